// What a decoder holds, and its forward pass in parts.
#pragma once

#include <atomic>
#include <optional>

#include "longhand/generate.h"
#include "src/generate/rings.h"
#include "src/model/output.h"

namespace longhand {

struct Decoder::State {
  // Rows of a call that stand side by side under the same adapters.
  struct Run {
    int64_t first, rows;
    int32_t adapters;
    size_t table;  // of R
  };

  State(const ModelConfig& model, const DecoderShape& decoder_shape, Dtype weight_type,
        std::vector<AdapterStack> stacks);
  void lay_out();
  void commit();
  void build_tables();

  int64_t check(std::span<const Input> inputs) const;
  void upload(std::span<const Input> inputs);
  void join(LayerNormForward operation, const NormTensors& norm);
  void layer(int64_t index, int64_t rows);
  void run(std::span<const Input> inputs, int64_t rows);
  void output(std::span<const Input> inputs);
  int64_t gather(std::span<const Input> inputs);
  bool pre() const { return config.norm == NormPlacement::pre; }

  // src/generate/decoder_adapters.cpp
  size_t prepare_adapters();  // returns how many tables of R there are
  void lay_out_adapters();
  void update_table(size_t table, int64_t layer, const Tensor& r, const ConstTensor& encoding);
  void find_runs(std::span<const Input> inputs);
  uint64_t step_key() const;  // of a step of one run
  void add_updates(int64_t layer, LoraSite site, const Tensor& out, const ConstTensor& x);
  void add_update(const Adapter& adapter, int64_t layer, LoraSite site, const Tensor& out, const ConstTensor& x);
  void follow(int64_t layer, AdapterSite site, const Tensor& y);
  void add_bottleneck(const AdapterTensors& w, const Tensor& y);
  void project_up(int64_t layer, const Tensor& out, const ConstTensor& x);

  static inline std::atomic<uint64_t> made{0};
  uint64_t identity = ++made;  // tells this decoder's steps from another's (Device::repeat)
  Device* device = nullptr;
  const ParameterSet* weights = nullptr;
  ModelConfig config;
  Dtype type;
  int64_t sequences, window, rows_max;
  int64_t rows_taken = 0;  // by the last call

  Arena ring_arena{"ring"}, table_arena{"position tables"}, activation_arena{"activations"};
  OutputScratch output_scratch;
  std::optional<Rings> rings;
  Tensor tokens, position, sequence;               // [N]
  Tensor stream, normed, branch, qkv, heads, up;   // [N, ...]
  Tensor chosen, chosen_normed, logits;            // rows whose logits are wanted
  std::vector<int64_t> taken, stored;              // tokens of each sequence: so far, and ever since its ring began
  std::vector<int32_t> token_list, sequence_list;  // the current call on the host
  std::vector<int64_t> position_list;

  std::vector<AdapterStack> adapters;
  std::vector<size_t> table_of;          // of each stack: those with an update of W_r have a table of their own
  std::vector<int32_t> chosen_adapters;  // of each sequence
  std::vector<Run> runs;                 // of the current call
  std::vector<Run> attention_runs;       // the same, neighbours with one table joined
  bool updates_up = false;               // some stack has an update before the activation
  Tensor low_rank;                       // A x, [N, rank]
  Tensor narrow, change;                 // of a bottleneck, [N, b] and [N, D]
  Tensor before_activation;              // [N, F] fp32
};

}  // namespace longhand
