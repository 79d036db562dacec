// The forward pass, in the order in which it happens.
#include <numeric>

#include "src/model/pass_state.h"
#include "src/model/project.h"

namespace longhand {

AttentionMask Pass::State::mask() const {
  return {.max_distance = config.same_length ? config.mem_len - 1 : -1,
          .document_start = has_documents ? ConstTensor(document_start.rows(0, segment)) : ConstTensor()};
}

AttentionSegments Pass::State::segments(int64_t layer) const {
  if (!config.segments) return {};
  const LayerTensors& w = weights->layers[layer];
  return {w.segment_bias, w.segment_embedding, segment_ids.rows(memory_length, segment), segment_ids.rows(0, keys())};
}

void Pass::State::upload(const Batch& batch) {
  segment = batch.tokens.size(0);
  if (segment < 1 || segment > shape.segment || batch.tokens.size(1) != shape.lanes)
    fail("a batch {} in a pass for at most {} tokens of {} lanes", batch.tokens.shape().text(), shape.segment,
         shape.lanes);
  const int32_t* ids = batch.tokens.as<int32_t>();
  for (int64_t i = 0; i < batch.tokens.elements(); ++i)
    if (ids[i] < 0 || ids[i] >= config.vocab_size)
      fail("token {} at position {} of lane {}: the vocabulary has {} entries", ids[i], i / shape.lanes,
           i % shape.lanes, config.vocab_size);
  device->upload(tokens.rows(0, segment), batch.tokens.data());
  const int32_t* wanted = batch.targets.as<int32_t>();
  for (int64_t i = 0; i < batch.targets.elements(); ++i)
    if (wanted[i] < -1 || wanted[i] >= config.vocab_size)
      fail("target {} at position {} of lane {}: the vocabulary has {} entries, -1 stands for none", wanted[i],
           i / shape.lanes, i % shape.lanes, config.vocab_size);
  if (batch.targets) device->upload(targets.rows(0, segment), batch.targets.data());
  has_weights = !batch.weights.empty(), has_documents = !batch.document_start.empty();
  if (has_weights) device->upload(target_weights.rows(0, segment), batch.weights.data());
  if (has_documents) device->upload(document_start.rows(0, segment), batch.document_start.data());
  if (config.segments) {
    if (batch.segment_ids.empty()) fail("this model tells segments apart: the batch needs segment ids");
    if (memory_length > 0) device->copy(segment_ids.rows(0, memory_length), memory_ids.rows(0, memory_length));
    device->upload(segment_ids.rows(memory_length, segment), batch.segment_ids.data());
  }
}

Joint Pass::State::joint(int64_t layer) {
  LayerActivations& next = activations(layer + 1);
  bool top = layer + 1 == config.n_layer;
  Tensor input = next.context.rows(memory_length, segment);
  if (pre()) {
    auto norm = [&](const ParameterSet* set) {
      return !set ? NormTensors() : top ? set->final_norm : set->layers[layer + 1].attention_norm;
    };
    Tensor out = top ? hidden.rows(0, segment) : next.normed.rows(memory_length, segment);
    if (top && !config.final_norm) return {.sum = hidden.rows(0, segment)};
    return {input,
            out,
            next.mean.rows(memory_length, segment),
            next.rstd.rows(memory_length, segment),
            norm(weights),
            norm(gradients)};
  }
  if (layer < 0) return {.sum = input};
  LayerActivations& a = activations(layer);
  return {a.sum.rows(0, segment),
          top ? hidden.rows(0, segment) : input,
          a.sum_mean.rows(0, segment),
          a.sum_rstd.rows(0, segment),
          weights->layers[layer].feedforward_norm,
          gradients ? gradients->layers[layer].feedforward_norm : NormTensors()};
}

// sum = dropout(x) + residual;  out = LN(sum)
void Pass::State::join_forward(int64_t layer, const ConstTensor& x, const ConstTensor& residual) {
  Joint j = joint(layer);
  device->layernorm_forward({.out = j.out,
                             .sum = j.sum,
                             .mean = j.mean,
                             .rstd = j.rstd,
                             .x = x,
                             .residual = residual,
                             .gain = j.norm.gain,
                             .bias = j.norm.bias,
                             .eps = config.norm_eps,
                             .dropout = dropout(rates.feedforward, RandomUse::feedforward_dropout, layer)});
}

void Pass::State::layer_forward(int64_t layer, bool again) {
  DeviceRange range(*device, fmt::format("layer {} forward", layer));
  LayerActivations& a = activations(layer);
  const LayerTensors& w = weights->layers[layer];
  int64_t heads = config.n_head * config.d_head, table = distances(keys());
  Shape per_head{segment, shape.lanes, config.n_head, config.d_head};
  Shape keys_per_head{keys(), shape.lanes, config.n_head, config.d_head};
  Tensor context = a.context.rows(0, keys()), input = context.rows(memory_length, segment);

  // c = LN(concat(mem, h)); the current rows were normalised where they joined the stream, unless they are run again or
  // come from the embedding.
  Tensor c = context;
  if (pre()) {
    c = a.normed.rows(0, keys());
    int64_t rows = layer == 0 || again ? keys() : memory_length;
    if (rows > 0)
      device->layernorm_forward({.out = c.rows(0, rows),
                                 .mean = a.mean.rows(0, rows),
                                 .rstd = a.rstd.rows(0, rows),
                                 .x = context.rows(0, rows),
                                 .gain = w.attention_norm.gain,
                                 .bias = w.attention_norm.bias,
                                 .eps = config.norm_eps});
  }

  // q, k, v = c Wqkv^T;  R[d] = W_r E(d)
  Tensor q = a.q.rows(0, segment), kv = a.kv.rows(0, keys()), r = a.r.rows(0, table);
  project(*device, {.out = matrix(q), .a = matrix(c.rows(memory_length, segment))}, w.qkv.rows(0, heads));
  project(*device, {.out = matrix(kv), .a = matrix(c)}, w.qkv.rows(heads, 2 * heads));
  project(*device, {.out = r, .a = encoding.rows(0, table)}, w.position);
  lora_forward(layer, LoraSite::q, matrix(q), matrix(c.rows(memory_length, segment)));
  lora_forward(layer, LoraSite::k, matrix(kv).slice(1, 0, heads), matrix(c));
  lora_forward(layer, LoraSite::v, matrix(kv).slice(1, heads, heads), matrix(c));
  lora_forward(layer, LoraSite::position, r, encoding.rows(0, table));

  Tensor attended = a.attended.rows(0, segment);
  device->attention_forward({.out = attended.reshape(per_head),
                             .lse = lse(a),
                             .selected = selected(a),
                             .q = q.reshape(per_head),
                             .k = kv.slice(2, 0, heads).reshape(keys_per_head),
                             .value = kv.slice(2, heads, heads).reshape(keys_per_head),
                             .r = r.reshape({table, config.n_head, config.d_head}),
                             .u = w.content_bias,
                             .v = w.position_bias,
                             .mask = mask(),
                             .segments = segments(layer),
                             .topk = config.topk,
                             .topk_mode = config.topk_mode,
                             .first_position = first_position,
                             .dropout = dropout(rates.attention, RandomUse::attention_dropout, layer)});

  // y = W_o O;  pre-norm: x = h + y, feed-forward of LN(x);  post-norm: x = LN(h + y), feed-forward of x
  Tensor y = part_output(layer, AdapterSite::attention), middle = a.middle.rows(0, segment),
         middle_sum = a.middle_sum.rows(0, segment);
  project(*device, {.out = matrix(y), .a = matrix(attended)}, w.output);
  lora_forward(layer, LoraSite::output, matrix(y), matrix(attended));
  y = adapter_forward(layer, AdapterSite::attention, y);
  const NormTensors& norm = pre() ? w.feedforward_norm : w.attention_norm;
  device->layernorm_forward({.out = middle,
                             .sum = middle_sum,
                             .mean = a.middle_mean.rows(0, segment),
                             .rstd = a.middle_rstd.rows(0, segment),
                             .x = y,
                             .residual = input,
                             .gain = norm.gain,
                             .bias = norm.bias,
                             .eps = config.norm_eps,
                             .dropout = dropout(rates.residual, RandomUse::residual_dropout, layer)});

  Tensor up = a.up.rows(0, segment), activated = a.activated.rows(0, segment);
  up_forward(layer, matrix(up), matrix(activated), matrix(middle));
  bool joined = again && pre();  // the layer's output stands already in the next one's context
  if (joined && !config.adapter_on(AdapterSite::feedforward)) return;
  Tensor f = part_output(layer, AdapterSite::feedforward);
  project(*device, {.out = matrix(f), .a = matrix(activated), .bias = w.down_bias}, w.down);
  lora_forward(layer, LoraSite::down, matrix(f), matrix(activated));
  if (watcher) watcher(layer, {c.rows(memory_length, segment), attended, middle, activated});
  f = adapter_forward(layer, AdapterSite::feedforward, f);
  if (!joined) join_forward(layer, f, pre() ? middle_sum : middle);
}

// up = W_1 x + b_1 with its low-rank update; activated = dropout(act(up)). One product where nothing has to join in
// between.
void Pass::State::up_forward(int64_t layer, const Tensor& up, const Tensor& activated, const ConstTensor& x) {
  const LayerTensors& w = weights->layers[layer];
  Dropout mask = dropout(rates.activation, RandomUse::activation_dropout, layer);
  if (!w.up.packed() && w.low_rank(LoraSite::up).a.empty())
    return project(*device,
                   {.out = activated,
                    .pre_activation = up,
                    .a = x,
                    .bias = w.up_bias,
                    .activation = config.activation,
                    .dropout = mask},
                   w.up);
  project(*device, {.out = up, .a = x, .bias = w.up_bias}, w.up);
  lora_forward(layer, LoraSite::up, up, x);
  device->activation_forward({.out = activated, .x = up, .activation = config.activation});
  if (mask) device->layernorm_forward({.sum = activated, .x = activated, .dropout = mask});
}

Tensor Pass::State::lse(const LayerActivations& a) const { return front(a.lse, {shape.lanes, config.n_head, segment}); }

Tensor Pass::State::selected(const LayerActivations& a) const {
  if (config.topk == 0) return {};
  if (config.topk_mode == TopkMode::exact)
    return front(a.selected, {shape.lanes, config.n_head, segment, (keys() + 63) / 64});
  int64_t pages = (first_position + keys() - 1) / 64 - first_position / 64 + 1;
  return front(a.selected, {shape.lanes, config.n_head, (segment + 63) / 64, (pages + 63) / 64});
}

// new_mem = concat(mem, h)[-mem_len :], detached
void Pass::State::roll_memory(int64_t layer) {
  int64_t rows = std::min(shape.memory, keys());
  if (rows > 0)
    device->memory_roll(
        {.memory = memories[layer].rows(0, rows), .context = activations(layer).context.rows(0, keys())});
}

// Logits, the loss, and, in training, the gradients of both, a few rows at a time.
void Pass::State::output_layer() {
  DeviceRange range(*device, "output layer");
  int64_t rows = segment * shape.lanes;
  Tensor h = matrix(hidden.rows(0, segment)), row_losses = losses.rows(0, segment).reshape({rows});
  Tensor d_h = shape.training ? matrix(d_hidden.rows(0, segment)) : Tensor();
  bool tied = weights->output.data() == weights->embedding.data();
  ConstTensor row_targets = targets.rows(0, segment).reshape({rows});
  ConstTensor row_weights = has_weights ? target_weights.rows(0, segment).reshape({rows}) : Tensor();
  for (int64_t first = 0; first < rows; first += shape.loss_rows) {
    int64_t count = std::min(shape.loss_rows, rows - first);
    Tensor z = logits.rows(0, count);
    output_logits(*device, *weights, config, z, h.rows(first, count), output_scratch);
    device->cross_entropy({.logits = z,
                           .loss = row_losses.rows(first, count),
                           .targets = row_targets.rows(first, count),
                           .weights = has_weights ? row_weights.rows(first, count) : ConstTensor(),
                           .smoothing = loss.smoothing,
                           .gamma = loss.gamma,
                           .scale = loss.scale,
                           .gradient = shape.training});
    if (!shape.training) continue;
    project_back(*device, {.out = d_h.rows(first, count), .a = z}, weights->output, wide);
    if (tied) weight_gradient(gradients->embedding, z, h.rows(first, count));
    bias_gradient(gradients->output_bias, z);
  }
}

double Pass::State::sum_of_losses() {
  std::vector<float> host(segment * shape.lanes);
  device->download(host.data(), losses.rows(0, segment));
  return std::accumulate(host.begin(), host.end(), 0.0);
}

void Pass::State::forward_layers() {
  Tensor input = activations(0).context.rows(memory_length, segment);
  device->embedding_forward({.out = input,
                             .tokens = tokens.rows(0, segment),
                             .weight = weights->embedding,
                             .scales = weights->embedding.scales,
                             .scale = embedding_scale(),
                             .dropout = dropout(rates.embedding, RandomUse::embedding_dropout, 0)});
  for (int64_t l = 0; l < config.n_layer; ++l) {
    if (memory_length > 0)
      device->copy(activations(l).context.rows(0, memory_length), memories[l].rows(0, memory_length));
    layer_forward(l, false);
    roll_memory(l);
  }
}

double Pass::State::forward(const Batch& batch, const LossOptions& options) {
  memory_length = next_memory_length, first_position = next_first_position, loss = options;
  upload(batch);
  bool with_loss = !batch.targets.empty();
  repeat(Part::forward, with_loss, [&] {
    forward_layers();
    if (with_loss)
      output_layer();
    else if (shape.training)
      device->zero(d_hidden.rows(0, segment));
  });
  int64_t kept = std::min(shape.memory, keys());
  if (config.segments && kept > 0) device->copy(memory_ids.rows(0, kept), segment_ids.rows(keys() - kept, kept));
  // The backward pass still needs this step's sizes: the next forward() starts from these.
  next_memory_length = kept, next_first_position = first_position + keys() - kept;
  return with_loss ? sum_of_losses() : 0;
}

}  // namespace longhand
