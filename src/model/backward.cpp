// The backward pass, in the order in which it happens: forward.cpp from its end.
//
// `stream` is the gradient of the residual stream at the point reached; `branch` the gradient of what joins it there,
// which is the same tensor unless dropout stands between them.
#include <initializer_list>

#include "src/model/pass_state.h"
#include "src/model/project.h"

namespace longhand {

static bool any(std::initializer_list<Tensor> tensors) {
  return std::any_of(tensors.begin(), tensors.end(), [](const Tensor& t) { return !t.empty(); });
}

bool Pass::State::attention_trains(int64_t layer) const {
  const LayerTensors& g = gradients->layers[layer];
  bool low_rank = false;
  for (LoraSite site : {LoraSite::q, LoraSite::k, LoraSite::v, LoraSite::position, LoraSite::output})
    low_rank = low_rank || any({g.low_rank(site).a, g.low_rank(site).b});
  return low_rank || any({g.attention_norm.gain, g.attention_norm.bias, g.qkv, g.position, g.output, g.content_bias,
                          g.position_bias, g.segment_bias, g.segment_embedding});
}

static bool any(const AdapterTensors& g) { return any({g.down, g.down_bias, g.up, g.up_bias}); }

/// Nothing below it has a gradient; n_layer where no layer has one.
int64_t Pass::State::lowest_trained_layer() const {
  if (gradients->embedding) return 0;
  auto trains = [&](const LayerTensors& g, int64_t layer) {
    const LoraTensors &up = g.low_rank(LoraSite::up), &down = g.low_rank(LoraSite::down);
    return attention_trains(layer) || any(g.adapters[0]) || any(g.adapters[1]) ||
           any({g.feedforward_norm.gain, g.feedforward_norm.bias, g.up, g.up_bias, g.down, g.down_bias, up.a, up.b,
                down.a, down.b});
  };
  int64_t layer = 0;
  while (layer < config.n_layer && !trains(gradients->layers[layer], layer)) ++layer;
  return layer;
}

void Pass::State::backward() {
  int64_t lowest = lowest_trained_layer();
  Tensor d_stream = stream.rows(0, segment);
  device->zero(d_stream);
  if (pre()) join_backward(config.n_layer - 1, d_hidden.rows(0, segment));
  for (int64_t l = config.n_layer - 1; l >= lowest; --l) {
    if (shape.recompute && l + 1 < config.n_layer) layer_forward(l, true);
    DeviceRange range(*device, fmt::format("layer {} backward", l));
    if (!pre()) join_backward(l, d_hidden.rows(0, segment));
    feedforward_backward(l);
    Tensor d_y = adapter_backward(l, AdapterSite::attention, rates.residual > 0 ? branch.rows(0, segment) : d_stream);
    if (l == lowest && !gradients->embedding && !attention_trains(l)) return;
    attention_backward(l, d_y);
  }
  if (gradients->embedding)
    device->embedding_backward({.d_weight = gradients->embedding,
                                .d_out = pre() ? d_stream : d_hidden.rows(0, segment),
                                .tokens = tokens.rows(0, segment),
                                .scale = embedding_scale(),
                                .dropout = dropout(rates.embedding, RandomUse::embedding_dropout, 0)});
}

// stream += J^T d_out, from out = LN(sum), sum = dropout(x) + residual
void Pass::State::join_backward(int64_t layer, const ConstTensor& d_out) {
  Joint j = joint(layer);
  Tensor d_sum = stream.rows(0, segment);
  Dropout mask = dropout(layer < 0 ? 0 : rates.feedforward, RandomUse::feedforward_dropout, layer);
  Tensor d_x = mask ? branch.rows(0, segment) : Tensor();
  if (j.out.empty()) {
    device->copy(d_sum, d_out);
    if (mask) device->layernorm_backward({.d_sum = d_sum, .d_x = d_x, .dropout = mask});
    return;
  }
  device->layernorm_backward({.d_sum = d_sum,
                              .d_x = d_x,
                              .d_gain = j.d_norm.gain,
                              .d_bias = j.d_norm.bias,
                              .d_out = d_out,
                              .sum = j.sum,
                              .mean = j.mean,
                              .rstd = j.rstd,
                              .gain = j.norm.gain,
                              .dropout = mask});
}

// f = W_2 act(W_1 x + b_1) + b_2, then x = LN(middle_sum)
void Pass::State::feedforward_backward(int64_t layer) {
  LayerActivations& a = activations(layer);
  const LayerTensors &w = weights->layers[layer], &g = gradients->layers[layer];
  Tensor d_sum = stream.rows(0, segment);
  Tensor d_f =
      adapter_backward(layer, AdapterSite::feedforward, rates.feedforward > 0 ? branch.rows(0, segment) : d_sum);
  Tensor d_u = d_up.rows(0, segment), d_x = d_middle.rows(0, segment);

  weight_gradient(g.down, matrix(d_f), matrix(a.activated.rows(0, segment)));
  bias_gradient(g.down_bias, matrix(d_f));
  project_back(*device, {.out = matrix(d_u), .a = matrix(d_f)}, w.down, wide);
  lora_backward(layer, LoraSite::down, matrix(d_f), matrix(a.activated.rows(0, segment)), matrix(d_u));
  device->activation_backward({.d_x = matrix(d_u),
                               .d_out = matrix(d_u),
                               .x = matrix(a.up.rows(0, segment)),
                               .activation = config.activation,
                               .dropout = dropout(rates.activation, RandomUse::activation_dropout, layer)});
  weight_gradient(g.up, matrix(d_u), matrix(a.middle.rows(0, segment)));
  bias_gradient(g.up_bias, matrix(d_u));
  project_back(*device, {.out = matrix(d_x), .a = matrix(d_u)}, w.up, wide);
  lora_backward(layer, LoraSite::up, matrix(d_u), matrix(a.middle.rows(0, segment)), matrix(d_x));

  if (!pre()) {  // the residual of the feed-forward part is x itself
    device->add({.out = d_x, .a = d_x, .b = d_sum});
    device->zero(d_sum);
  }
  Dropout mask = dropout(rates.residual, RandomUse::residual_dropout, layer);
  const NormTensors& norm = pre() ? w.feedforward_norm : w.attention_norm;
  const NormTensors& d_norm = pre() ? g.feedforward_norm : g.attention_norm;
  device->layernorm_backward({.d_sum = d_sum,
                              .d_x = mask ? branch.rows(0, segment) : Tensor(),
                              .d_gain = d_norm.gain,
                              .d_bias = d_norm.bias,
                              .d_out = d_x,
                              .sum = a.middle_sum.rows(0, segment),
                              .mean = a.middle_mean.rows(0, segment),
                              .rstd = a.middle_rstd.rows(0, segment),
                              .gain = norm.gain,
                              .dropout = mask});
}

// y = W_o attention(c Wqkv^T, W_r E), c = LN(context) (pre-norm) or the context
void Pass::State::attention_backward(int64_t layer, const Tensor& d_y) {
  LayerActivations& a = activations(layer);
  const LayerTensors &w = weights->layers[layer], &g = gradients->layers[layer];
  int64_t heads = config.n_head * config.d_head, table = distances(keys());
  Shape per_head{segment, shape.lanes, config.n_head, config.d_head};
  Shape keys_per_head{keys(), shape.lanes, config.n_head, config.d_head};
  Tensor d_sum = stream.rows(0, segment);
  Tensor attended = a.attended.rows(0, segment), d_o = d_attended.rows(0, segment);

  weight_gradient(g.output, matrix(d_y), matrix(attended));
  project_back(*device, {.out = matrix(d_o), .a = matrix(d_y)}, w.output, wide);
  lora_backward(layer, LoraSite::output, matrix(d_y), matrix(attended), matrix(d_o));

  Tensor dq = d_q.rows(0, segment), dkv = d_kv.rows(0, keys()), dr = d_r.rows(0, table), kv = a.kv.rows(0, keys());
  Shape r_per_head{table, config.n_head, config.d_head};
  auto part = [&](const Tensor& both, int64_t which) {
    return both.slice(2, which * heads, heads).reshape(keys_per_head);
  };
  device->attention_backward({.d_q = dq.reshape(per_head),
                              .d_k = part(dkv, 0),
                              .d_value = part(dkv, 1),
                              .d_r = dr.reshape(r_per_head),
                              .d_u = g.content_bias,
                              .d_v = g.position_bias,
                              .d_segment_bias = g.segment_bias,
                              .d_segment_embedding = g.segment_embedding,
                              .d_out = d_o.reshape(per_head),
                              .out = attended.reshape(per_head),
                              .lse = lse(a),
                              .selected = selected(a),
                              .q = a.q.rows(0, segment).reshape(per_head),
                              .k = part(kv, 0),
                              .value = part(kv, 1),
                              .r = a.r.rows(0, table).reshape(r_per_head),
                              .u = w.content_bias,
                              .v = w.position_bias,
                              .mask = mask(),
                              .segments = segments(layer),
                              .topk = config.topk,
                              .topk_mode = config.topk_mode,
                              .first_position = first_position,
                              .dropout = dropout(rates.attention, RandomUse::attention_dropout, layer)});

  // Keys and values of memory rows count for the weights; no gradient flows into the memory itself.
  Tensor c = (pre() ? a.normed : a.context).rows(0, keys()), dc = d_context.rows(0, keys());
  Tensor c_now = c.rows(memory_length, segment), dc_now = dc.rows(memory_length, segment);
  if (g.qkv) weight_gradient(g.qkv.rows(0, heads), matrix(dq), matrix(c_now));
  if (g.qkv) weight_gradient(g.qkv.rows(heads, 2 * heads), matrix(dkv), matrix(c));
  weight_gradient(g.position, dr, encoding.rows(0, table));
  int64_t skip = pre() ? 0 : memory_length;  // pre-norm's gain and bias do get gradient through memory rows
  Tensor dc_kept = matrix(dc.rows(skip, keys() - skip));
  project_back(*device, {.out = dc_kept, .a = matrix(dkv.rows(skip, keys() - skip))}, w.qkv.rows(heads, 2 * heads),
               wide);
  project_back(*device, {.out = matrix(dc_now), .a = matrix(dq), .accumulate = true}, w.qkv.rows(0, heads), wide);
  lora_backward(layer, LoraSite::q, matrix(dq), matrix(c_now), matrix(dc_now));
  lora_backward(layer, LoraSite::k, matrix(dkv).slice(1, 0, heads), matrix(c), dc_kept);
  lora_backward(layer, LoraSite::v, matrix(dkv).slice(1, heads, heads), matrix(c), dc_kept);
  lora_backward(layer, LoraSite::position, dr, encoding.rows(0, table), {});
  if (!pre()) {
    device->add({.out = d_hidden.rows(0, segment), .a = d_sum, .b = dc_now});
    device->zero(d_sum);
    return;
  }
  if (memory_length > 0 && (g.attention_norm.gain || g.attention_norm.bias))
    device->layernorm_backward({.d_gain = g.attention_norm.gain,
                                .d_bias = g.attention_norm.bias,
                                .d_out = dc.rows(0, memory_length),
                                .sum = a.context.rows(0, memory_length),
                                .mean = a.mean.rows(0, memory_length),
                                .rstd = a.rstd.rows(0, memory_length),
                                .gain = w.attention_norm.gain});
  join_backward(layer - 1, dc_now);
}

}  // namespace longhand
