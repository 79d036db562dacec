// The model's configuration, as it stands in presets and in the metadata of every file (`longhand.config`, JSON).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "longhand/device.h"

namespace longhand {

enum class NormPlacement : uint8_t { pre, post };

/// The matrices of a layer that can have a low-rank update, W x + (alpha / rank) B A x (Hu et al. 2021).
enum class LoraSite : uint8_t { q, k, v, position, output, up, down };
inline constexpr std::array<const char*, 7> lora_site_names = {"q", "k", "v", "position", "output", "up", "down"};

/// The parts of a layer that a bottleneck adapter may follow (Houlsby et al. 2019). It acts on the part's output y,
/// which is W_o O or the feed-forward output, before that output's dropout and before it joins the residual stream:
///   y + W_up act(W_down y + b_down) + b_up
enum class AdapterSite : uint8_t { attention, feedforward };
inline constexpr std::array<const char*, 2> adapter_site_names = {"attention", "feedforward"};

/// What a head reads, and what it says of it.
enum class HeadKind : uint8_t {
  label,  // one label of a text, after its last token
  state,  // one label of a dialogue, where its reply begins
  tags,   // a tag of every word: O, or B-x and I-x for the first and the following words of an x
};

/// A linear layer on final hidden states: head.NAME.weight [labels, D], head.NAME.bias [labels] and, for the
/// transitions of a conditional random field, head.NAME.transitions [labels + 2, labels] (see CrfLoss).
struct HeadConfig {
  std::string name;
  HeadKind kind = HeadKind::label;
  bool crf = false;
  int64_t lookahead = 0;  // tags: the tokens after a word's first one that are read before its tag is said
  std::vector<std::string> labels;
  /// The place of a label, -1 where the head has no such.
  int32_t find(std::string_view label) const;
  bool operator==(const HeadConfig&) const = default;
};
const char* head_kind_name(HeadKind kind);

struct ModelConfig {
  int64_t vocab_size = 0, d_model = 0, n_layer = 0, n_head = 0, d_head = 0, d_ff = 0;
  int64_t mem_len = 0;
  int64_t clamp_len = 0;  // 0 = off
  int64_t topk = 0;       // 0 = dense
  TopkMode topk_mode = TopkMode::exact;
  bool same_length = false;
  bool scale_embedding = true;  // times sqrt(d_model)
  bool segments = false;        // XLNet's relative segment term
  NormPlacement norm = NormPlacement::pre;
  bool final_norm = true;  // default: true with pre-norm, false with post-norm
  bool output_bias = false;
  Activation activation = Activation::gelu;
  float norm_eps = 1e-5f;
  int64_t segment = 0;  // tokens a segment in training, the default of --segment; 0 = mem_len
  // Adaptive softmax (Grave et al. 2017): tail i holds the words from cutoffs[i] to the next cutoff and reads
  // tail_widths[i] numbers. Empty: one softmax over all words. Such a model scores and generates; it is not trained.
  std::vector<int64_t> cutoffs, tail_widths;

  // Low-rank updates beside the weights: rank 0 = none; the matrices that have one, "q,v" (see LoraSite). Written only
  // where there are any.
  int64_t lora_rank = 0;
  float lora_alpha = 32;
  std::string lora_sites;
  bool lora_on(LoraSite site) const;

  // Adapters behind parts of every layer: the width of their bottleneck, 0 = none; the parts (see AdapterSite), "" =
  // both. Written only where there are any.
  int64_t adapter_width = 0;
  std::string adapter_sites;
  bool adapter_on(AdapterSite site) const;

  /// Whether low-rank updates or adapters stand beside the weights: training is then theirs.
  bool extended() const { return lora_rank > 0 || adapter_width > 0; }
  ModelConfig without_lora() const;
  ModelConfig plain() const;  // without updates, adapters and heads: what an adapter file and its model have in common

  std::vector<HeadConfig> heads;  // written only where there are any

  /// The words [first, end) of tail i.
  std::pair<int64_t, int64_t> tail(size_t i) const {
    return {cutoffs[i], i + 1 < cutoffs.size() ? cutoffs[i + 1] : vocab_size};
  }

  int64_t parameters() const;         // all entries but those of updates and adapters
  int64_t matrix_parameters() const;  // entries of matrices, the tied output layer once: the 6N of the FLOP count
  void check() const;                 // fails with the first impossible setting
  std::string json() const;
  bool operator==(const ModelConfig&) const = default;
};

/// Parses JSON text; unknown keys fail with the nearest known one. `where` names the source in messages.
ModelConfig parse_config(std::string_view json, std::string_view where);

/// "tiny", "small", "base", "large", "7b".
ModelConfig preset(std::string_view name);
std::vector<std::string> preset_names();

/// Floating-point operations of one training step of one lane-token, as every figure here counts them:
/// 6 (matrix parameters), W_r counted (T + M) / (B T) times, plus attention 18 dh H a visible pair and layer.
/// Recomputation is not counted; K and V of memory rows neither.
double training_flops_per_token(const ModelConfig& config, int64_t lanes, int64_t segment, int64_t memory);

}  // namespace longhand
