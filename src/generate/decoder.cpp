// The model's forward pass over rings. The order of operations is that of Pass (src/model/forward.cpp); rows are tokens
// of any sequences, N in all.
#include <algorithm>
#include <cmath>

#include "src/generate/decoder_state.h"
#include "src/model/project.h"

namespace longhand {

Decoder::State::State(const ModelConfig& model, const DecoderShape& shape, Dtype weight_type,
                      std::vector<AdapterStack> stacks)
    : config(model), type(weight_type), sequences(shape.sequences), adapters(std::move(stacks)) {
  config.check();
  if (shape.sequences < 1 || shape.chunk < 1 || shape.window < 0)
    fail_usage("a decoder of {} sequences, {} tokens a call and a window of {}", shape.sequences, shape.chunk,
               shape.window);
  window = shape.window ? shape.window : (config.segment ? config.segment : config.mem_len) + config.mem_len;
  if (config.same_length) window = std::min(window, config.mem_len);
  if (window < 1) fail_usage("the model states no context of its own: give a window (--window N)");
  rows_max = std::max(shape.chunk, shape.sequences);
  taken.assign(sequences, 0), stored.assign(sequences, 0);
  size_t tables = prepare_adapters();
  rings.emplace(config, shape, type, window, rows_max, tables);
  lay_out();
}

void Decoder::State::lay_out() {
  int64_t width = config.d_model, head_width = config.n_head * config.d_head;
  rings->lay_out(ring_arena, table_arena);
  Arena& arena = activation_arena;
  tokens = arena.take(Dtype::i32, {rows_max});
  position = arena.take(Dtype::i64, {rows_max});
  sequence = arena.take(Dtype::i32, {rows_max});
  stream = arena.take(type, {rows_max, width});
  normed = arena.take(type, {rows_max, width});
  branch = arena.take(type, {rows_max, width});
  qkv = arena.take(type, {rows_max, 3 * head_width});
  heads = arena.take(type, {rows_max, head_width});
  up = arena.take(type, {rows_max, config.d_ff});
  chosen = arena.take(type, {rows_max, width});
  chosen_normed = arena.take(type, {rows_max, width});
  logits = arena.take(Dtype::fp32, {rows_max, config.vocab_size});
  output_scratch.lay_out(arena, config);
  lay_out_adapters();
}

void Decoder::State::commit() {
  for (Arena* arena : {&ring_arena, &table_arena, &activation_arena}) arena->commit(*device);
  lay_out();
}

void Decoder::State::build_tables() {
  output_scratch.fill(*device);
  rings->build_tables(*device, *weights,
                      [&](size_t table, int64_t layer, const Tensor& r, const ConstTensor& encoding) {
                        update_table(table, layer, r, encoding);
                      });
}

int64_t Decoder::State::check(std::span<const Input> inputs) const {
  int64_t rows = 0;
  std::vector<bool> seen(sequences);
  for (const Input& input : inputs) {
    if (input.sequence < 0 || input.sequence >= sequences)
      fail("sequence {} of a decoder that holds {}", input.sequence, sequences);
    if (seen[input.sequence]) fail("sequence {} stands twice in one call", input.sequence);
    seen[input.sequence] = true;
    if (input.tokens.empty()) fail("sequence {} is given no tokens", input.sequence);
    for (size_t i = 0; i < input.tokens.size(); ++i)
      if (input.tokens[i] < 0 || input.tokens[i] >= config.vocab_size)
        fail("token {} at position {}: the model's vocabulary has {} entries", input.tokens[i],
             taken[input.sequence] + static_cast<int64_t>(i), config.vocab_size);
    rows += static_cast<int64_t>(input.tokens.size());
  }
  if (rows > rows_max) fail("{} tokens in one call of a decoder that takes {}", rows, rows_max);
  return rows;
}

void Decoder::State::upload(std::span<const Input> inputs) {
  token_list.clear(), position_list.clear(), sequence_list.clear();
  for (const Input& input : inputs)
    for (int32_t token : input.tokens) {
      token_list.push_back(token);
      position_list.push_back(taken[input.sequence]++);
      sequence_list.push_back(input.sequence);
      stored[input.sequence] = std::max(stored[input.sequence], taken[input.sequence]);
    }
  int64_t rows = static_cast<int64_t>(token_list.size());
  device->upload(tokens.rows(0, rows), token_list.data());
  device->upload(position.rows(0, rows), position_list.data());
  device->upload(sequence.rows(0, rows), sequence_list.data());
}

void Decoder::State::join(LayerNormForward operation, const NormTensors& norm) {
  operation.gain = norm.gain, operation.bias = norm.bias, operation.eps = config.norm_eps;
  device->layernorm_forward(operation);
}

// On entry `stream` is the layer's input and, pre-norm, `normed` its normalisation; on return they are the next
// layer's. XLNet's segment term (q_i + w) . S[e] is left out: a text generated here is one segment, e = 0 for every
// key, so the term is the same for all keys of a query; the softmax cancels it and no selection of keys depends on it.
void Decoder::State::layer(int64_t index, int64_t rows) {
  const LayerTensors& w = weights->layers[index];
  int64_t head_width = config.n_head * config.d_head;
  Tensor x = stream.rows(0, rows), n = normed.rows(0, rows), b = branch.rows(0, rows);
  Tensor all = qkv.rows(0, rows), mixed = heads.rows(0, rows), wide = up.rows(0, rows);
  ConstTensor at = position.rows(0, rows), of = sequence.rows(0, rows);
  Shape by_head = {rows, config.n_head, config.d_head};
  Tensor q = all.slice(1, 0, head_width).reshape(by_head);
  Tensor k = all.slice(1, head_width, head_width).reshape(by_head);
  Tensor v = all.slice(1, 2 * head_width, head_width).reshape(by_head);

  ConstTensor read = pre() ? n : x;
  project(*device, {.out = all, .a = read}, w.qkv);
  for (LoraSite site : {LoraSite::q, LoraSite::k, LoraSite::v})
    add_updates(index, site, all.slice(1, static_cast<int64_t>(site) * head_width, head_width), read);
  rings->store(*device, index, k, v, at, of);
  for (const Run& run : attention_runs)
    device->attention_decode(rings->complete(index,
                                             {.out = mixed.reshape(by_head).rows(run.first, run.rows),
                                              .q = q.rows(run.first, run.rows),
                                              .u = w.content_bias,
                                              .v = w.position_bias,
                                              .position = at.rows(run.first, run.rows),
                                              .sequence = of.rows(run.first, run.rows)},
                                             run.table));
  project(*device, {.out = b, .a = mixed}, w.output);
  add_updates(index, LoraSite::output, b, mixed);
  follow(index, AdapterSite::attention, b);

  // Pre-norm: the sum x goes on, its normalisation n is read. Post-norm: n is read and goes on.
  const NormTensors& middle = pre() ? w.feedforward_norm : w.attention_norm;
  join({.out = n, .sum = x, .x = b, .residual = x}, middle);
  project_up(index, wide, n);
  project(*device, {.out = b, .a = wide, .bias = w.down_bias}, w.down);
  add_updates(index, LoraSite::down, b, wide);
  follow(index, AdapterSite::feedforward, b);
  if (!pre())
    join({.out = x, .sum = n, .x = b, .residual = n}, w.feedforward_norm);
  else if (index + 1 < config.n_layer)
    join({.out = n, .sum = x, .x = b, .residual = x}, weights->layers[index + 1].attention_norm);
  else
    device->add({.out = x, .a = x, .b = b});
}

// Rows of an input whose logits are wanted: its last ones.
static int64_t wanted_rows(const Decoder::Input& input) {
  return input.none ? 0 : input.every ? static_cast<int64_t>(input.tokens.size()) : 1;
}

// Copies the stream's rows whose logits are wanted to the front of `chosen`, neighbours at once.
int64_t Decoder::State::gather(std::span<const Input> inputs) {
  int64_t row = 0, count = 0, first = 0, run = 0;
  auto copy_run = [&] {
    if (run > 0) device->copy(chosen.rows(count, run), stream.rows(first, run));
    count += run, run = 0;
  };
  for (const Input& input : inputs) {
    int64_t size = static_cast<int64_t>(input.tokens.size()), wanted = wanted_rows(input);
    if (row + size - wanted != first + run) copy_run(), first = row + size - wanted;
    row += size, run += wanted;
  }
  copy_run();
  return count;
}

void Decoder::State::output(std::span<const Input> inputs) {
  int64_t count = gather(inputs);
  if (count == 0) return;
  Tensor hidden = chosen.rows(0, count);
  if (config.final_norm) {
    hidden = chosen_normed.rows(0, count);
    join({.out = hidden, .x = chosen.rows(0, count)}, weights->final_norm);
  }
  output_logits(*device, *weights, config, logits.rows(0, count), hidden, output_scratch);
}

void Decoder::State::run(std::span<const Input> inputs, int64_t rows) {
  float scale = config.scale_embedding ? std::sqrt(static_cast<float>(config.d_model)) : 1.0f;
  Tensor x = stream.rows(0, rows);
  device->embedding_forward({.out = x,
                             .tokens = tokens.rows(0, rows),
                             .weight = weights->embedding,
                             .scales = weights->embedding.scales,
                             .scale = scale});
  if (pre()) join({.out = normed.rows(0, rows), .x = x}, weights->layers[0].attention_norm);
  for (int64_t l = 0; l < config.n_layer; ++l) layer(l, rows);
  output(inputs);
}

Decoder::Decoder(Device& device, const ModelConfig& config, const ParameterSet& weights, const DecoderShape& shape,
                 std::vector<AdapterStack> adapters)
    : state_(std::make_shared<State>(config, shape, weights.type(), std::move(adapters))) {
  state_->device = &device, state_->weights = &weights;
  state_->commit();
  state_->build_tables();
}

static std::vector<AdapterStack> stack_of(const LoadedModel& model) {
  AdapterStack stack;
  for (const Adapter& adapter : model.adapters) stack.push_back(&adapter);
  return stack.empty() ? std::vector<AdapterStack>{} : std::vector<AdapterStack>{stack};
}

Decoder::Decoder(Device& device, const LoadedModel& model, const DecoderShape& shape)
    : Decoder(device, model.config, model.weights, shape, stack_of(model)) {
  if (!model.adapters.empty()) state_->chosen_adapters.assign(state_->sequences, 0);
}

std::vector<std::pair<std::string, int64_t>> Decoder::plan(const ModelConfig& config, const DecoderShape& shape,
                                                           Dtype type) {
  State state(config, shape, type, {});
  return {{"ring", state.ring_arena.bytes()},
          {"position tables", state.table_arena.bytes()},
          {"activations", state.activation_arena.bytes()}};
}

Tensor Decoder::forward(std::span<const Input> inputs) {
  State& s = *state_;
  int64_t rows = s.check(inputs);
  if (rows == 0) return {};
  s.upload(inputs);
  s.find_runs(inputs);
  s.rows_taken = rows;
  int64_t wanted = 0;
  for (const Input& input : inputs) wanted += wanted_rows(input);
  // The logits of every row: the same operations for every call of so many rows under one stack.
  if (wanted == rows && s.runs.size() == 1)
    s.device->repeat(s.step_key(), 0, [&] { s.run(inputs, rows); });
  else
    s.run(inputs, rows);
  return wanted > 0 ? s.logits.rows(0, wanted) : Tensor();
}

Tensor Decoder::hidden() {
  State& s = *state_;
  Tensor x = s.stream.rows(0, s.rows_taken);
  if (s.rows_taken == 0 || !s.config.final_norm) return x;
  Tensor out = s.normed.rows(0, s.rows_taken);
  s.join({.out = out, .x = x}, s.weights->final_norm);
  return out;
}

int64_t Decoder::position(int32_t sequence) const { return state_->taken.at(sequence); }
void Decoder::reset(int32_t sequence) { resume(sequence, 0); }

void Decoder::copy(int32_t to, int32_t from) {
  State& s = *state_;
  if (to == from) return;
  s.rings->copy(*s.device, to, from);
  s.taken.at(to) = s.taken.at(from), s.stored.at(to) = s.stored.at(from);
  s.chosen_adapters.at(to) = s.chosen_adapters.at(from);
}

void Decoder::take_back(int32_t sequence, int64_t position) {
  State& s = *state_;
  int64_t taken = s.taken.at(sequence), stored = s.stored.at(sequence);
  if (position < 0 || position > taken || stored - position > s.rows_max)
    fail("sequence {} goes back from {} tokens to {}: at most {} can be taken back", sequence, taken, position,
         s.rows_max - (stored - taken));
  s.taken.at(sequence) = position;
}

void Decoder::adapt(int32_t sequence, int32_t adapters) {
  State& s = *state_;
  if (adapters != no_adapters && (adapters < 0 || adapters >= static_cast<int32_t>(s.adapters.size())))
    fail("stack {} of a decoder that has {}", adapters, s.adapters.size());
  if (s.taken.at(sequence) > 0) fail("sequence {} has begun under other adapters", sequence);
  s.chosen_adapters.at(sequence) = adapters;
}

std::vector<Tensor> Decoder::rings(int32_t sequence) const { return state_->rings->of(sequence); }
int64_t Decoder::rows_needed(int64_t position) const { return state_->rings->needed(position); }

void Decoder::resume(int32_t sequence, int64_t position) {
  state_->rings->refill(*state_->device, sequence);
  state_->taken.at(sequence) = state_->stored.at(sequence) = position;
}

const ModelConfig& Decoder::config() const { return state_->config; }
int64_t Decoder::window() const { return state_->window; }
Dtype Decoder::ring() const { return state_->rings->type(); }
std::string Decoder::attention() const { return state_->rings->attention(); }
int64_t Decoder::sequences() const { return state_->sequences; }
int64_t Decoder::rows() const { return state_->rows_max; }

}  // namespace longhand
