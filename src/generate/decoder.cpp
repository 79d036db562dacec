// The model's forward pass over rings. The order of operations is that of Pass (src/model/forward.cpp); rows are tokens
// of any sequences, N in all.
#include <algorithm>
#include <atomic>
#include <cmath>

#include "longhand/generate.h"
#include "src/generate/rings.h"
#include "src/model/output.h"
#include "src/model/project.h"

namespace longhand {

struct Decoder::State {
  State(const ModelConfig& model, const DecoderShape& decoder_shape, Dtype weight_type);
  void lay_out();
  void commit();
  void build_tables();

  int64_t check(std::span<const Input> inputs) const;
  void upload(std::span<const Input> inputs);
  void join(LayerNormForward operation, const NormTensors& norm);
  void layer(int64_t index, int64_t rows);
  void adapt(const AdapterTensors& w, const Tensor& y);
  void run(std::span<const Input> inputs, int64_t rows);
  void output(std::span<const Input> inputs);
  int64_t gather(std::span<const Input> inputs);
  bool pre() const { return config.norm == NormPlacement::pre; }

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
  Tensor narrow, adapted;                          // of an adapter, [N, b] and [N, D]
  Tensor chosen, chosen_normed, logits;            // rows whose logits are wanted
  std::vector<int64_t> taken, stored;              // tokens of each sequence: so far, and ever since its ring began
  std::vector<int32_t> token_list, sequence_list;  // the current call on the host
  std::vector<int64_t> position_list;
};

Decoder::State::State(const ModelConfig& model, const DecoderShape& shape, Dtype weight_type)
    : config(model), type(weight_type), sequences(shape.sequences) {
  config.check();
  if (shape.sequences < 1 || shape.chunk < 1 || shape.window < 0)
    fail_usage("a decoder of {} sequences, {} tokens a call and a window of {}", shape.sequences, shape.chunk,
               shape.window);
  window = shape.window ? shape.window : (config.segment ? config.segment : config.mem_len) + config.mem_len;
  if (config.same_length) window = std::min(window, config.mem_len);
  if (window < 1) fail_usage("the model states no context of its own: give a window (--window N)");
  rows_max = std::max(shape.chunk, shape.sequences);
  rings.emplace(config, shape, type, window, rows_max);
  taken.assign(sequences, 0), stored.assign(sequences, 0);
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
  if (config.adapter_width > 0) {
    narrow = arena.take(type, {rows_max, config.adapter_width});
    adapted = arena.take(type, {rows_max, width});
  }
  chosen = arena.take(type, {rows_max, width});
  chosen_normed = arena.take(type, {rows_max, width});
  logits = arena.take(Dtype::fp32, {rows_max, config.vocab_size});
  output_scratch.lay_out(arena, config);
}

void Decoder::State::commit() {
  for (Arena* arena : {&ring_arena, &table_arena, &activation_arena}) arena->commit(*device);
  lay_out();
}

void Decoder::State::build_tables() {
  output_scratch.fill(*device);
  rings->build_tables(*device, *weights);
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

// y += W_up act(W_down y + b_down) + b_up, where the model has an adapter there.
void Decoder::State::adapt(const AdapterTensors& w, const Tensor& y) {
  if (w.down.empty()) return;
  Tensor z = narrow.rows(0, y.size(0)), change = adapted.rows(0, y.size(0));
  project(*device, {.out = z, .a = y, .bias = w.down_bias, .activation = config.activation}, w.down);
  project(*device, {.out = change, .a = z, .bias = w.up_bias}, w.up);
  device->add({.out = y, .a = y, .b = change});
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

  project(*device, {.out = all, .a = pre() ? n : x}, w.qkv);
  rings->store(*device, index, k, v, at, of);
  device->attention_decode(rings->complete(index, {.out = mixed.reshape(by_head),
                                                   .q = q,
                                                   .u = w.content_bias,
                                                   .v = w.position_bias,
                                                   .position = at,
                                                   .sequence = of}));
  project(*device, {.out = b, .a = mixed}, w.output);
  adapt(w.adapter(AdapterSite::attention), b);

  // Pre-norm: the sum x goes on, its normalisation n is read. Post-norm: n is read and goes on.
  const NormTensors& middle = pre() ? w.feedforward_norm : w.attention_norm;
  join({.out = n, .sum = x, .x = b, .residual = x}, middle);
  project(*device, {.out = wide, .a = n, .bias = w.up_bias, .activation = config.activation}, w.up);
  project(*device, {.out = b, .a = wide, .bias = w.down_bias}, w.down);
  adapt(w.adapter(AdapterSite::feedforward), b);
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

Decoder::Decoder(Device& device, const ModelConfig& config, const ParameterSet& weights, const DecoderShape& shape)
    : state_(std::make_shared<State>(config, shape, weights.type())) {
  state_->device = &device, state_->weights = &weights;
  state_->commit();
  state_->build_tables();
}

std::vector<std::pair<std::string, int64_t>> Decoder::plan(const ModelConfig& config, const DecoderShape& shape,
                                                           Dtype type) {
  State state(config, shape, type);
  return {{"ring", state.ring_arena.bytes()},
          {"position tables", state.table_arena.bytes()},
          {"activations", state.activation_arena.bytes()}};
}

Tensor Decoder::forward(std::span<const Input> inputs) {
  State& s = *state_;
  int64_t rows = s.check(inputs);
  if (rows == 0) return {};
  s.upload(inputs);
  s.rows_taken = rows;
  int64_t wanted = 0;
  for (const Input& input : inputs) wanted += wanted_rows(input);
  if (wanted == rows)  // the logits of every row: the same operations for every call of so many rows
    s.device->repeat(s.identity << 20 | static_cast<uint64_t>(rows), 0, [&] { s.run(inputs, rows); });
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
}

void Decoder::take_back(int32_t sequence, int64_t position) {
  State& s = *state_;
  int64_t taken = s.taken.at(sequence), stored = s.stored.at(sequence);
  if (position < 0 || position > taken || stored - position > s.rows_max)
    fail("sequence {} goes back from {} tokens to {}: at most {} can be taken back", sequence, taken, position,
         s.rows_max - (stored - taken));
  s.taken.at(sequence) = position;
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
