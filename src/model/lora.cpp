// Low-rank updates (Hu et al. 2021, "LoRA"), beside the matrices that they belong to:
//
//   z = dropout(x);   s = (alpha / r) A z;   out = W x + B s
//   dB += d_out^T s;   d_s = (alpha / r) B^T d_out;   dA += d_s^T z;   d_x += mask * A^T d_s
//
// z and s are computed again in the backward pass.
#include "src/model/pass_state.h"

namespace longhand {

void Pass::State::lay_out_lora() {
  if (config.lora_rank == 0) return;
  int64_t rows = (shape.segment + shape.memory) * shape.lanes, rank = config.lora_rank;
  lora_scale = scratch_arena.take(type, {rank, rank});
  lora_product = scratch_arena.take(type, {rows, rank}), lora_scaled = scratch_arena.take(type, {rows, rank});
  if (shape.lora_dropout) {
    int64_t elements = rows * std::max(config.d_model, config.n_head * config.d_head);
    if (config.lora_on(LoraSite::down)) elements = std::max(elements, shape.segment * shape.lanes * config.d_ff);
    lora_dropped = scratch_arena.take(type, {elements});
  }
}

void Pass::State::fill_lora_scale() {
  if (config.lora_rank == 0) return;
  float scale = config.lora_alpha / static_cast<float>(config.lora_rank);
  std::vector<float> values(lora_scale.elements());
  for (int64_t i = 0; i < config.lora_rank; ++i) values[i * (config.lora_rank + 1)] = scale;
  if (type == Dtype::fp32) return device->upload(lora_scale, values.data());
  std::vector<bf16> rounded;
  for (float value : values) rounded.emplace_back(value);
  device->upload(lora_scale, rounded.data());
}

// (alpha / r) x A^T, [rows, r].
ConstTensor Pass::State::low_rank(const Tensor& a, const ConstTensor& x) {
  Tensor product = lora_product.rows(0, x.size(0)), scaled = lora_scaled.rows(0, x.size(0));
  device->matmul({.out = product, .a = x, .b = a});
  device->matmul({.out = scaled, .a = product, .b = lora_scale});
  return scaled;
}

Dropout Pass::State::lora_dropout(int64_t layer, LoraSite site) const {
  return dropout(rates.lora, lora_dropout_use(site), layer);
}

// What A reads: dropout(x).
ConstTensor Pass::State::lora_input(int64_t layer, LoraSite site, const ConstTensor& x) {
  Dropout mask = lora_dropout(layer, site);
  if (!mask) return x;
  Tensor dropped = front(lora_dropped, x.shape());
  device->layernorm_forward({.sum = dropped, .x = x, .dropout = mask});
  return dropped;
}

void Pass::State::lora_forward(int64_t layer, LoraSite site, const Tensor& out, const ConstTensor& x) {
  const LoraTensors& w = weights->layers[layer].low_rank(site);
  if (w.a.empty()) return;
  device->matmul({.out = out, .a = low_rank(w.a, lora_input(layer, site, x)), .b = w.b, .accumulate = true});
}

// d_x may be empty, or hold the last rows of x alone.
void Pass::State::lora_backward(int64_t layer, LoraSite site, const ConstTensor& d_out, const ConstTensor& x,
                                const Tensor& d_x) {
  const LoraTensors &w = weights->layers[layer].low_rank(site), &g = gradients->layers[layer].low_rank(site);
  if (w.a.empty()) return;
  ConstTensor z = lora_input(layer, site, x);
  if (g.b) weight_gradient(g.b, d_out, low_rank(w.a, z));
  Tensor product = lora_product.rows(0, x.size(0)), d_s = lora_scaled.rows(0, x.size(0));
  device->matmul({.out = product, .a = d_out, .b = w.b, .transpose_b = false});
  device->matmul({.out = d_s, .a = product, .b = lora_scale});
  weight_gradient(g.a, d_s, z);
  if (d_x.empty()) return;
  int64_t skip = x.size(0) - d_x.size(0);
  Dropout mask = lora_dropout(layer, site);
  if (!mask) {
    device->matmul({.out = d_x, .a = d_s.rows(skip, d_x.size(0)), .b = w.a, .transpose_b = false, .accumulate = true});
    return;
  }
  Tensor d_z = front(lora_dropped, x.shape());
  device->matmul({.out = d_z, .a = d_s, .b = w.a, .transpose_b = false});
  device->activation_backward({.d_x = d_z, .d_out = d_z, .activation = Activation::none, .dropout = mask});
  device->add({.out = d_x, .a = d_x, .b = d_z.rows(skip, d_x.size(0))});
}

void Pass::State::weight_gradient(const Tensor& d_weight, const ConstTensor& d_out, const ConstTensor& x) {
  if (d_weight.empty()) return;
  device->matmul({.out = d_weight, .a = d_out, .b = x, .transpose_a = true, .transpose_b = false, .accumulate = true});
}

void Pass::State::bias_gradient(const Tensor& d_bias, const ConstTensor& d_out) {
  if (d_bias) device->bias_backward({.d_bias = d_bias, .d_out = d_out});
}

/// Host values of a matrix in fp32.
static std::vector<float> values_of(Device& device, const Tensor& tensor) {
  std::vector<float> values(tensor.elements());
  if (tensor.type() == Dtype::fp32) {
    device.download(values.data(), tensor);
    return values;
  }
  std::vector<bf16> narrow(tensor.elements());
  device.download(narrow.data(), tensor);
  for (size_t i = 0; i < values.size(); ++i) values[i] = narrow[i];
  return values;
}

static void put_values(Device& device, const Tensor& tensor, const std::vector<float>& values) {
  if (tensor.type() == Dtype::fp32) return device.upload(tensor, values.data());
  std::vector<bf16> narrow;
  for (float value : values) narrow.emplace_back(value);
  device.upload(tensor, narrow.data());
}

void merge_lora(Device& device, const ModelConfig& config, const ParameterSet& weights, const ParameterSet& updates) {
  int64_t heads = config.n_head * config.d_head, rank = config.lora_rank;
  for (size_t l = 0; l < weights.layers.size(); ++l) {
    const LayerTensors& layer = weights.layers[l];
    const Tensor places[] = {layer.qkv.rows(0, heads),
                             layer.qkv.rows(heads, heads),
                             layer.qkv.rows(2 * heads, heads),
                             layer.position,
                             layer.output,
                             layer.up,
                             layer.down};
    for (size_t site = 0; site < lora_site_names.size(); ++site) {
      const LoraTensors& low = updates.layers[l].lora[site];
      if (low.a.empty()) continue;
      if (places[site].type() != Dtype::fp32 && places[site].type() != Dtype::bf16)
        fail("low-rank updates are not merged into matrices held as {}: give the adapter file beside the weights",
             dtype_name(places[site].type()));
      std::vector<float> w = values_of(device, places[site]), a = values_of(device, low.a),
                         b = values_of(device, low.b);
      int64_t in = low.a.size(1), out = low.b.size(0);
      float scale = config.lora_alpha / static_cast<float>(rank);
      for (int64_t o = 0; o < out; ++o)
        for (int64_t r = 0; r < rank; ++r) {
          float factor = scale * b[o * rank + r];
          for (int64_t i = 0; i < in; ++i) w[o * in + i] += factor * a[r * in + i];
        }
      put_values(device, places[site], w);
    }
  }
}

}  // namespace longhand
