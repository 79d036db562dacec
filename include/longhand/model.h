// The model, once: forward and backward over one segment of every lane, with the memory of earlier segments.
//
//   context = concat(memory, h);  attention, feed-forward, norms as in docs/MODEL.md;  loss over the targets
//
// Training and scoring use this class; generation uses Decoder (longhand/generate.h), which holds keys and values
// instead of hidden states and gives the same numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "longhand/arena.h"
#include "longhand/parameters.h"

namespace longhand {

/// What is fixed before the first step: it decides every size.
struct PassShape {
  int64_t lanes = 1;          // B
  int64_t segment = 0;        // T at most; a batch may be shorter
  int64_t memory = 0;         // memory rows at most; 0 = none is kept
  bool training = true;       // keep what the backward pass needs
  bool recompute = false;     // keep only each layer's input and run the layer again in the backward pass
  int64_t loss_rows = 512;    // rows of logits held at a time
  bool lora_dropout = false;  // room for DropoutRates::lora
};

struct DropoutRates {
  float embedding = 0, attention = 0, residual = 0, activation = 0, feedforward = 0;
  float lora = 0;  // of the input of low-rank updates, a mask for each site: B A dropout(x)
};

/// What a head is to say after reading token `row` of a lane. The words of one example make up a sequence of tags.
struct HeadTarget {
  int32_t head, lane, row, label, example;
  float weight;
};

/// What dropout before a low-rank update draws: uses of their own, 16 to 22, behind those that random.h names.
constexpr RandomUse lora_dropout_use(LoraSite site) { return static_cast<RandomUse>(16 + static_cast<uint32_t>(site)); }

/// Host tensors of one step. Position-major: entry [i, b] is token i of lane b.
struct Batch {
  ConstTensor tokens;          // [T, B] i32
  ConstTensor targets;         // [T, B] i32, -1 = none
  ConstTensor weights;         // [T, B] fp32 per target, may be empty
  ConstTensor document_start;  // [T, B] i32: first visible key, counted from the first memory row; may be empty
  ConstTensor segment_ids;     // [T, B] u8, for `segments` models
  std::span<const HeadTarget> heads = {};  // by lane and row; for Heads, the pass itself does not look at them
};

struct LossOptions {
  float smoothing = 0, gamma = 0;
  float scale = 1;  // gradient is that of scale * sum of losses; usually 1 / (targets of the optimizer step)
};

/// What a layer's matrices multiply: rows of c, attention's output, the feed-forward's input and its middle, [T, B, ...].
struct LayerInputs {
  ConstTensor qkv, output, up, down;
};

class Pass {
 public:
  /// `gradients` may be null when `shape.training` is false. Both outlive the pass. Weights without a gradient may be
  /// held in any format; those with one are of the pass's type.
  Pass(Device& device, const ModelConfig& config, const ParameterSet& weights, const ParameterSet* gradients,
       const PassShape& shape, Dtype type);

  /// Counts the arenas without allocating: pairs (name, bytes) in order. `formats`: how the weights are held.
  static std::vector<std::pair<std::string, int64_t>> plan(const ModelConfig& config, const PassShape& shape,
                                                           Dtype type, const WeightFormats& formats = {});

  /// Forward over one segment. Returns the sum of the (weighted) losses over the targets; per-row losses, [T, B], stay
  /// in losses(). With training on, d_logits has been taken back to the last hidden state and the output layer's
  /// gradients are added; without targets that gradient is 0. `step` keys the dropout masks. The memory is rolled
  /// forward.
  double forward(const Batch& batch, const LossOptions& loss, const DropoutRates& dropout, uint64_t seed,
                 uint64_t step);

  /// Adds the gradients of everything below the output layer. Follows a forward().
  void backward();

  /// Calls `watcher` with every layer's inputs as forward() goes through them.
  using Watcher = std::function<void(int64_t layer, const LayerInputs&)>;
  void watch(Watcher watcher);

  /// Final hidden states [T, B, D] of the last forward (after final_norm): for logits at chosen rows, embeddings,
  /// heads.
  ConstTensor hidden() const;
  /// The gradient to them [T, B, D], to which heads add theirs between forward() and backward().
  Tensor d_hidden() const;
  ConstTensor losses() const;
  /// logits [rows, V] of hidden rows [rows, D].
  void logits(const Tensor& out, const ConstTensor& hidden);

  int64_t memory_length() const;
  /// Where the first memory row stands in its stream (block top-k aligns its pages to it).
  int64_t first_position() const;
  void reset_memory();
  /// Memory of layer l, [memory_length, B, D]; a checkpoint saves and restores it.
  Tensor memory(int64_t layer) const;
  Tensor memory_segment_ids() const;  // [memory, B] u8
  void set_memory(int64_t rows, int64_t first_position);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace longhand
