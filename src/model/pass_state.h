// What a Pass holds: the tensors of every layer, laid out in arenas before the first step.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <vector>

#include "longhand/model.h"
#include "src/model/output.h"

namespace longhand {

/// What an adapter's backward pass reads, [T, B, D] and twice [T, B, b]: its input, W_down of it before and after the
/// activation.
struct AdapterActivations {
  Tensor input, down, activated;
};

/// Everything of one layer that its backward pass reads. K = memory + segment at most; views of the current size are
/// cut from the front, which is contiguous because activations are position-major.
struct LayerActivations {
  Tensor context;        // [K, B, D]: memory rows, then the layer's input
  Tensor normed;         // [K, B, D]: its layer normalisation (pre-norm; post-norm attends to the context itself)
  Tensor mean, rstd;     // [K, B] fp32 (pre-norm)
  Tensor q, kv;          // [T, B, H dh], [K, B, 2 H dh]
  Tensor r;              // [distances, H dh]
  Tensor attended;       // [T, B, H dh]
  Tensor lse, selected;  // see AttentionForward
  Tensor middle_sum;     // [T, B, D]: input plus attention output
  Tensor middle;         // [T, B, D]: its normalisation, what the feed-forward part reads
  Tensor middle_mean, middle_rstd;  // [T, B] fp32
  Tensor up, activated;             // [T, B, F]: before and after the activation
  Tensor sum;                       // [T, B, D]: plus the feed-forward output (post-norm; pre-norm: the next context)
  Tensor sum_mean, sum_rstd;        // [T, B] fp32 (post-norm)
  std::array<AdapterActivations, adapter_site_names.size()> adapters;
};

/// The place where a layer's output joins the stream: sum = dropout(x) + residual, out = LN(sum). Pre-norm: the norm is
/// that of the next layer's attention, or the final one; post-norm: the layer's own.
struct Joint {
  Tensor sum, out, mean, rstd;
  NormTensors norm, d_norm;
};

struct Pass::State {
  State(const ModelConfig& config, const PassShape& shape, Dtype type, const WeightFormats& formats);

  void lay_out();
  void lay_out_scratch();
  void lay_out_lora();
  void lay_out_adapters(LayerActivations& a);
  void fill_lora_scale();
  void commit();

  /// The parts of a step that a device may replay (Device::repeat): what sizes them and whether there is dropout tells
  /// them apart, what else a step puts into their operations' arguments says whether they can be replayed as they are.
  enum class Part : uint64_t { forward, backward };
  void repeat(Part part, bool with_loss, const std::function<void()>& work);

  // Forward, in src/model/forward.cpp.
  double forward(const Batch& batch, const LossOptions& options);
  void upload(const Batch& batch);
  void forward_layers();
  void layer_forward(int64_t layer, bool again);
  void up_forward(int64_t layer, const Tensor& up, const Tensor& activated, const ConstTensor& x);
  void join_forward(int64_t layer, const ConstTensor& x, const ConstTensor& residual);
  void roll_memory(int64_t layer);
  Tensor lse(const LayerActivations& a) const;
  Tensor selected(const LayerActivations& a) const;
  void output_layer();
  double sum_of_losses();

  // Backward, in src/model/backward.cpp.
  void backward();
  void join_backward(int64_t layer, const ConstTensor& d_out);
  void feedforward_backward(int64_t layer);
  void attention_backward(int64_t layer, const Tensor& d_y);
  bool attention_trains(int64_t layer) const;
  int64_t lowest_trained_layer() const;

  // Gradients of frozen parameters, which have no place to go, are not formed.
  void weight_gradient(const Tensor& d_weight, const ConstTensor& d_out, const ConstTensor& x);  // += d_out^T x
  void bias_gradient(const Tensor& d_bias, const ConstTensor& d_out);                            // += sums over rows

  // Low-rank updates, in src/model/lora.cpp.
  ConstTensor low_rank(const Tensor& a, const ConstTensor& x);
  Dropout lora_dropout(int64_t layer, LoraSite site) const;
  ConstTensor lora_input(int64_t layer, LoraSite site, const ConstTensor& x);
  void lora_forward(int64_t layer, LoraSite site, const Tensor& out, const ConstTensor& x);
  void lora_backward(int64_t layer, LoraSite site, const ConstTensor& d_out, const ConstTensor& x, const Tensor& d_x);

  // Adapters, in src/model/adapters.cpp. Where a part has none, its output is `output` and passes as it is.
  Tensor part_output(int64_t layer, AdapterSite site);
  Tensor adapter_forward(int64_t layer, AdapterSite site, const Tensor& y);
  Tensor adapter_backward(int64_t layer, AdapterSite site, const Tensor& d_out);

  LayerActivations& activations(int64_t layer) { return layers[shape.training ? layer : layer % 2]; }
  Joint joint(int64_t layer);  // after `layer`; -1: after the embedding
  float embedding_scale() const {
    return config.scale_embedding ? std::sqrt(static_cast<float>(config.d_model)) : 1.0f;
  }
  bool pre() const { return config.norm == NormPlacement::pre; }
  int64_t keys() const { return memory_length + segment; }
  int64_t distances(int64_t keys) const { return config.clamp_len ? std::min(keys, config.clamp_len + 1) : keys; }
  AttentionMask mask() const;
  AttentionSegments segments(int64_t layer) const;
  Dropout dropout(float rate, RandomUse use, int64_t layer) const {
    return {rate, {seed, step, use, static_cast<uint32_t>(layer)}};
  }

  static inline std::atomic<uint64_t> made{0};
  uint64_t identity = ++made;  // tells this pass's steps from another's (Device::repeat)
  Device* device = nullptr;
  ModelConfig config;
  PassShape shape;
  Dtype type;
  int64_t wide_elements = 0;
  const ParameterSet* weights = nullptr;
  const ParameterSet* gradients = nullptr;

  Arena activation_arena{"activations"}, memory_arena{"memory"}, scratch_arena{"scratch"};
  OutputScratch output_scratch;
  std::vector<LayerActivations> layers;
  std::vector<Tensor> memories;                                         // [memory, B, D] a layer
  Tensor memory_ids;                                                    // [memory, B] u8
  Tensor encoding;                                                      // [distances, D]
  Tensor tokens, targets, target_weights, document_start, segment_ids;  // of the batch; segment_ids [K, B]
  Tensor hidden, losses;                                                // [T, B, D], [T, B] fp32
  Tensor d_hidden, stream, branch;  // [T, B, D] gradients: of `hidden`, of the residual stream, of what joins it
  // Scratch: each group is used at another time and lies over the others.
  Tensor wide;                                   // packed weights on their way into a product (project_back)
  Tensor lora_scale;                             // [r, r], alpha / r on its diagonal
  Tensor lora_product, lora_scaled;              // [(T or K) B, r]: A x; (alpha / r) A x
  Tensor lora_dropped;                           // dropout(x), or its gradient, [(T or K) B, in]
  Tensor d_adapter;                              // [T, B, b]: of an adapter's bottleneck
  Tensor output;                                 // [T, B, D]: attention or feed-forward output before it joins
  Tensor logits;                                 // [loss_rows, V]
  Tensor d_middle, d_up;                         // [T, B, D], [T, B, F]
  Tensor d_attended, d_q, d_kv, d_r, d_context;  // like their namesakes

  Pass::Watcher watcher;

  // The current step.
  int64_t segment = 0, memory_length = 0;
  int64_t first_position = 0;                               // of the first memory row in its stream
  int64_t next_memory_length = 0, next_first_position = 0;  // what the next step will meet
  bool has_weights = false, has_documents = false;
  LossOptions loss;
  DropoutRates rates;
  uint64_t seed = 0, step = 0;
};

/// The first elements of a buffer under the shape of the current step.
inline Tensor front(const Tensor& buffer, const Shape& shape) { return Tensor(buffer.data(), buffer.type(), shape); }

/// [T, B, D] as the matrix [T B, D].
inline Tensor matrix(const Tensor& t) { return t.reshape({t.size(0) * t.size(1), t.size(2)}); }

}  // namespace longhand
