#include "src/model/output.h"

#include <algorithm>

#include "src/model/project.h"

namespace longhand {

void OutputScratch::lay_out(Arena& arena, const ModelConfig& config) {
  if (config.cutoffs.empty()) return;
  int64_t width = *std::max_element(config.tail_widths.begin(), config.tail_widths.end()), words = 0;
  for (size_t i = 0; i < config.cutoffs.size(); ++i)
    words = std::max(words, config.tail(i).second - config.tail(i).first);
  projected = arena.take(Dtype::fp32, {rows, width});
  tail = arena.take(Dtype::fp32, {rows, words});
  tails = arena.take(Dtype::fp32, {rows, static_cast<int64_t>(config.cutoffs.size())});
  first_token = arena.take(Dtype::i32, {rows});
  first_log = arena.take(Dtype::fp32, {rows, 1});
  terms = arena.take(Dtype::fp32, {rows, 3});
  signs = arena.take(Dtype::fp32, {words, 3});
}

void OutputScratch::fill(Device& device) {
  if (signs.empty()) return;
  device.zero(first_token);
  std::vector<float> values;
  for (int64_t word = 0; word < signs.size(0); ++word) values.insert(values.end(), {1, 1, -1});
  device.upload(signs, values.data());
}

/// The first elements of a buffer as a contiguous [rows, columns].
static Tensor front(const Tensor& buffer, int64_t rows, int64_t columns) {
  return Tensor(buffer.data(), buffer.type(), {rows, columns});
}

static void adaptive_logits(Device& device, const ParameterSet& weights, const ModelConfig& config, const Tensor& out,
                            const ConstTensor& hidden, const OutputScratch& scratch) {
  int64_t rows = hidden.size(0);
  auto bias = [&](int64_t first, int64_t count) { return weights.output_bias.rows(first, count); };
  Tensor tails = scratch.tails.rows(0, rows), terms = scratch.terms.rows(0, rows);
  Tensor first_log = scratch.first_log.rows(0, rows);
  int64_t head = config.cutoffs[0];
  project(device, {.out = out.slice(1, 0, head), .a = hidden, .bias = bias(0, head)}, weights.head);
  project(device, {.out = tails, .a = hidden, .bias = weights.tail_bias}, weights.tail_weight);
  for (size_t i = 0; i < config.cutoffs.size(); ++i) {
    int64_t first = config.tail(i).first, words = config.tail(i).second - first;
    Tensor projected = front(scratch.projected, rows, config.tail_widths[i]);
    Tensor tail = front(scratch.tail, rows, words);
    project(device, {.out = projected, .a = hidden}, weights.tails[i].projection);
    project(device, {.out = tail, .a = projected, .bias = bias(first, words)}, weights.tails[i].weight);
    // -log sum exp = log softmax of the first word - its logit: with the tail's own logit three terms for every word.
    device.log_probability(
        {.logprob = first_log.reshape({rows}), .logits = tail, .tokens = scratch.first_token.rows(0, rows)});
    device.copy(terms.slice(1, 0, 1), tails.slice(1, static_cast<int64_t>(i), 1));
    device.copy(terms.slice(1, 1, 1), first_log);
    device.copy(terms.slice(1, 2, 1), tail.slice(1, 0, 1));
    device.matmul({.out = tail, .a = terms, .b = scratch.signs.rows(0, words), .accumulate = true});
    device.copy(out.slice(1, first, words), tail);
  }
}

void output_logits(Device& device, const ParameterSet& weights, const ModelConfig& config, const Tensor& out,
                   const ConstTensor& hidden, const OutputScratch& scratch) {
  if (config.cutoffs.empty()) {
    project(device, {.out = out, .a = hidden, .bias = weights.output_bias}, weights.output);
    return;
  }
  for (int64_t first = 0; first < hidden.size(0); first += OutputScratch::rows) {
    int64_t count = std::min(OutputScratch::rows, hidden.size(0) - first);
    adaptive_logits(device, weights, config, out.rows(first, count), hidden.rows(first, count), scratch);
  }
}

}  // namespace longhand
