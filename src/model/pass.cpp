// A pass's arenas and its public face.
#include <algorithm>
#include <bit>

#include "src/model/pass_state.h"

namespace longhand {

/// Room to widen the largest matrix of a layer at once, where there are packed ones; larger ones go in parts.
static int64_t elements_to_widen(const ModelConfig& config, const WeightFormats& formats) {
  bool packed = std::any_of(formats.matrices.begin(), formats.matrices.end(),
                            [](const auto& entry) { return entry.second.packed(); });
  return packed ? config.d_model * std::max(config.d_ff, 2 * config.n_head * config.d_head) : 0;
}

Pass::State::State(const ModelConfig& model, const PassShape& pass_shape, Dtype pass_type, const WeightFormats& formats)
    : config(model), shape(pass_shape), type(pass_type), wide_elements(elements_to_widen(model, formats)) {
  config.check();
  if (shape.lanes < 1 || shape.segment < 1 || shape.memory < 0)
    fail_usage("a pass over {} lanes of {} tokens with {} of memory", shape.lanes, shape.segment, shape.memory);
  if (shape.training && !config.cutoffs.empty())
    fail_usage("the model has an adaptive softmax (cutoffs): it scores and generates, but is not trained here");
  shape.loss_rows = std::min(shape.loss_rows, shape.lanes * shape.segment);
  lay_out();
}

void Pass::State::lay_out() {
  int64_t lanes = shape.lanes, tokens_max = shape.segment, keys_max = shape.segment + shape.memory;
  int64_t width = config.d_model, heads = config.n_head * config.d_head;
  Arena& arena = activation_arena;

  // Without a backward pass two layers' contexts alternate; with recomputation one is kept for each layer. In both
  // cases all layers share the rest.
  bool shared = shape.recompute || !shape.training;
  int64_t kept = shape.training ? config.n_layer + 1 : 2;
  layers.assign(kept, {});
  for (int64_t l = 0; l < kept; ++l) {
    LayerActivations& a = layers[l];
    if (l > 0 && shared) a = layers[0];
    a.context = arena.take(type, {keys_max, lanes, width});
    if (l > 0 && (shared || l == config.n_layer)) continue;
    if (pre()) {
      a.normed = arena.take(type, {keys_max, lanes, width});
      a.mean = arena.take(Dtype::fp32, {keys_max, lanes}), a.rstd = arena.take(Dtype::fp32, {keys_max, lanes});
    }
    a.q = arena.take(type, {tokens_max, lanes, heads});
    a.kv = arena.take(type, {keys_max, lanes, 2 * heads});
    a.r = arena.take(type, {distances(keys_max), heads});
    a.attended = arena.take(type, {tokens_max, lanes, heads});
    a.lse = arena.take(Dtype::fp32, {lanes, config.n_head, tokens_max});
    if (config.topk > 0) {
      bool block = config.topk_mode == TopkMode::block;
      int64_t rows = block ? (tokens_max + 63) / 64 : tokens_max;
      int64_t bits = block ? (keys_max + 126) / 64 : keys_max;
      a.selected = arena.take(Dtype::u64, {lanes, config.n_head, rows, (bits + 63) / 64});
    }
    a.middle_sum = arena.take(type, {tokens_max, lanes, width});
    a.middle = arena.take(type, {tokens_max, lanes, width});
    a.middle_mean = arena.take(Dtype::fp32, {tokens_max, lanes});
    a.middle_rstd = arena.take(Dtype::fp32, {tokens_max, lanes});
    a.up = arena.take(type, {tokens_max, lanes, config.d_ff});
    a.activated = arena.take(type, {tokens_max, lanes, config.d_ff});
    lay_out_adapters(a);
    if (!pre()) {
      a.sum = arena.take(type, {tokens_max, lanes, width});
      a.sum_mean = arena.take(Dtype::fp32, {tokens_max, lanes});
      a.sum_rstd = arena.take(Dtype::fp32, {tokens_max, lanes});
    }
  }
  // The top has no attention of its own, but pre-norm's final normalisation has statistics.
  if (pre() && shape.training) {
    LayerActivations& top = layers[config.n_layer];
    top.mean = arena.take(Dtype::fp32, {keys_max, lanes}), top.rstd = arena.take(Dtype::fp32, {keys_max, lanes});
  }
  hidden = arena.take(type, {tokens_max, lanes, width});
  losses = arena.take(Dtype::fp32, {tokens_max, lanes});
  encoding = arena.take(type, {distances(keys_max), width});
  tokens = arena.take(Dtype::i32, {tokens_max, lanes});
  targets = arena.take(Dtype::i32, {tokens_max, lanes});
  target_weights = arena.take(Dtype::fp32, {tokens_max, lanes});
  document_start = arena.take(Dtype::i32, {tokens_max, lanes});
  if (config.segments) segment_ids = arena.take(Dtype::u8, {keys_max, lanes});

  output_scratch.lay_out(arena, config);
  memories.clear();
  if (shape.memory > 0) {
    for (int64_t l = 0; l < config.n_layer; ++l)
      memories.push_back(memory_arena.take(type, {shape.memory, lanes, width}));
    if (config.segments) memory_ids = memory_arena.take(Dtype::u8, {shape.memory, lanes});
  }
  lay_out_scratch();
}

void Pass::State::lay_out_scratch() {
  int64_t lanes = shape.lanes, tokens_max = shape.segment, keys_max = shape.segment + shape.memory;
  int64_t width = config.d_model, heads = config.n_head * config.d_head;
  Arena& arena = scratch_arena;
  if (shape.training) {
    d_hidden = arena.take(type, {tokens_max, lanes, width});
    stream = arena.take(type, {tokens_max, lanes, width});
    branch = arena.take(type, {tokens_max, lanes, width});
    if (config.adapter_width > 0) d_adapter = arena.take(type, {tokens_max, lanes, config.adapter_width});
  }
  if (shape.training && wide_elements > 0) wide = arena.take(type, {wide_elements});
  lay_out_lora();
  int64_t start = arena.mark();
  output = arena.take(type, {tokens_max, lanes, width});
  arena.rewind(start);
  logits = arena.take(shape.training ? type : Dtype::fp32, {shape.loss_rows, config.vocab_size});
  if (!shape.training) return;
  arena.rewind(start);
  d_middle = arena.take(type, {tokens_max, lanes, width});
  d_up = arena.take(type, {tokens_max, lanes, config.d_ff});
  arena.rewind(start);
  d_attended = arena.take(type, {tokens_max, lanes, heads});
  d_q = arena.take(type, {tokens_max, lanes, heads});
  d_kv = arena.take(type, {keys_max, lanes, 2 * heads});
  d_r = arena.take(type, {distances(keys_max), heads});
  d_context = arena.take(type, {keys_max, lanes, width});
}

void Pass::State::commit() {
  for (Arena* arena : {&activation_arena, &memory_arena, &scratch_arena}) arena->commit(*device);
  lay_out();
  device->position_encoding({.out = encoding});
  output_scratch.fill(*device);
  fill_lora_scale();
}

/// One number for a list of them (the finaliser of splitmix64, Steele et al. 2014).
static uint64_t mixed(std::initializer_list<uint64_t> values) {
  uint64_t all = 0;
  for (uint64_t value : values) {
    all = (all ^ value) + 0x9e3779b97f4a7c15u;
    all = (all ^ all >> 30) * 0xbf58476d1ce4e5b9u;
    all = (all ^ all >> 27) * 0x94d049bb133111ebu;
    all ^= all >> 31;
  }
  return all;
}

void Pass::State::repeat(Part part, bool with_loss, const std::function<void()>& work) {
  if (!shape.training) return work();  // texts of every length come to be scored: few stretches repeat
  uint64_t dropped = 0;
  for (float rate : {rates.embedding, rates.attention, rates.residual, rates.activation, rates.feedforward, rates.lora})
    dropped = dropped << 1 | (rate > 0);
  auto bits = [](float x) { return static_cast<uint64_t>(std::bit_cast<uint32_t>(x)); };
  uint64_t key = mixed({identity, static_cast<uint64_t>(part), static_cast<uint64_t>(segment),
                        static_cast<uint64_t>(memory_length), static_cast<uint64_t>(with_loss),
                        static_cast<uint64_t>(has_weights), static_cast<uint64_t>(has_documents), dropped});
  uint64_t arguments = mixed({bits(loss.smoothing), bits(loss.gamma), bits(loss.scale)});
  if (dropped)
    arguments = mixed({arguments, seed, step, bits(rates.embedding), bits(rates.attention), bits(rates.residual),
                       bits(rates.activation), bits(rates.feedforward), bits(rates.lora)});
  bool in_pages = config.topk > 0 && config.topk_mode == TopkMode::block;
  if (in_pages) arguments = mixed({arguments, static_cast<uint64_t>(first_position)});
  device->repeat(key, arguments, work);
}

Pass::Pass(Device& device, const ModelConfig& config, const ParameterSet& weights, const ParameterSet* gradients,
           const PassShape& shape, Dtype type)
    : state_(std::make_shared<State>(config, shape, type, weights.formats())) {
  if (shape.training && !gradients) fail("a training pass needs a place for its gradients");
  if (shape.training)
    for (size_t i = 0; i < gradients->list().size(); ++i)
      if (const ParameterInfo& info = gradients->list()[i];
          gradients->tensors()[i] && weights.tensors()[i].type() != type)
        fail("{} is held as {} in a pass of {}: such weights are read, not trained", info.name,
             dtype_name(weights.tensors()[i].type()), dtype_name(type));
  state_->device = &device, state_->weights = &weights, state_->gradients = gradients;
  state_->commit();
}

std::vector<std::pair<std::string, int64_t>> Pass::plan(const ModelConfig& config, const PassShape& shape, Dtype type,
                                                        const WeightFormats& formats) {
  State state(config, shape, type, formats);
  return {{"activations", state.activation_arena.bytes()},
          {"memory", state.memory_arena.bytes()},
          {"scratch", state.scratch_arena.bytes()}};
}

double Pass::forward(const Batch& batch, const LossOptions& loss, const DropoutRates& dropout, uint64_t seed,
                     uint64_t step) {
  if (dropout.lora > 0 && !state_->shape.lora_dropout) fail("this pass has no room for dropout in low-rank updates");
  state_->rates = dropout, state_->seed = seed, state_->step = step;
  return state_->forward(batch, loss);
}

void Pass::backward() {
  if (!state_->shape.training) fail("this pass keeps nothing for a backward pass");
  state_->repeat(State::Part::backward, true, [this] { state_->backward(); });
}

void Pass::watch(Watcher watcher) { state_->watcher = std::move(watcher); }

ConstTensor Pass::hidden() const { return state_->hidden.rows(0, state_->segment); }
Tensor Pass::d_hidden() const { return state_->d_hidden.rows(0, state_->segment); }
ConstTensor Pass::losses() const { return state_->losses.rows(0, state_->segment); }

void Pass::logits(const Tensor& out, const ConstTensor& rows) {
  output_logits(*state_->device, *state_->weights, state_->config, out, rows, state_->output_scratch);
}

int64_t Pass::memory_length() const { return state_->next_memory_length; }
int64_t Pass::first_position() const { return state_->next_first_position; }
void Pass::reset_memory() { set_memory(0, 0); }
Tensor Pass::memory(int64_t layer) const {
  return state_->memories.empty() ? Tensor() : state_->memories[layer].rows(0, state_->next_memory_length);
}
Tensor Pass::memory_segment_ids() const {
  return state_->memory_ids.empty() ? Tensor() : state_->memory_ids.rows(0, state_->next_memory_length);
}
void Pass::set_memory(int64_t rows, int64_t first_position) {
  if (rows < 0 || rows > state_->shape.memory)
    fail("a memory of {} rows in a pass that holds {}", rows, state_->shape.memory);
  state_->next_memory_length = rows, state_->next_first_position = first_position;
}

}  // namespace longhand
