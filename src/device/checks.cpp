#include "src/device/checks.h"

#include <cmath>

namespace longhand {

void check_matmul(const Matmul& a) {
  RowsOf left(a.a, "matmul", "a"), right(a.b, "matmul", "b"), out(a.out, "matmul", "out");
  int64_t m = a.transpose_a ? left.columns : left.rows, k = a.transpose_a ? left.rows : left.columns;
  int64_t n = a.transpose_b ? right.rows : right.columns;
  if ((a.transpose_b ? right.columns : right.rows) != k || out.rows != m || out.columns != n)
    fail("matmul: a {}{} times b {}{} does not give out {}", a.a.shape().text(), a.transpose_a ? " transposed" : "",
         a.b.shape().text(), a.transpose_b ? " transposed" : "", a.out.shape().text());
  if (a.accumulate && (a.bias || a.pre_activation || a.activation != Activation::none || a.dropout))
    fail("matmul: accumulate takes no bias, activation or dropout");
  if (a.bias && (a.bias.elements() != n || !a.bias.contiguous() ||
                 (a.bias.type() != Dtype::fp32 && a.bias.type() != Dtype::bf16)))
    fail("matmul: bias {} of {} does not fit {} columns", a.bias.shape().text(), dtype_name(a.bias.type()), n);
  if (a.pre_activation.empty()) return;
  float_index(a.pre_activation, "matmul", "pre_activation");
  RowsOf before(a.pre_activation, "matmul", "pre_activation");
  if (before.rows != m || before.columns != n)
    fail("matmul: pre_activation {} is not shaped as out {}", a.pre_activation.shape().text(), a.out.shape().text());
}

void check_activation_forward(const ActivationForward& a) {
  constexpr auto name = "activation_forward";
  float_index(a.out, name, "out"), float_index(a.x, name, "x");
  check_list(a.x, a.x.type(), a.x.elements(), name, "x");
  check_list(a.out, a.out.type(), a.x.elements(), name, "out");
  if (a.out.data() == a.x.data() && a.out.type() != a.x.type()) fail("{}: out lies in x and is of another type", name);
}

void check_activation_backward(const ActivationBackward& a) {
  constexpr auto name = "activation_backward";
  float_index(a.d_x, name, "d_x");
  int64_t rows = rows_of(a.d_x), width = width_of(a.d_x);
  check_rows(a.d_x, a.d_x.type(), rows, width, name, "d_x");
  check_rows(a.d_out, a.d_x.type(), rows, width, name, "d_out");
  if (a.activation != Activation::none) check_rows(a.x, a.d_x.type(), rows, width, name, "x");
}

int64_t check_bias_backward(const BiasBackward& a) {
  constexpr auto name = "bias_backward";
  float_index(a.d_out, name, "d_out"), float_index(a.d_bias, name, "d_bias");
  int64_t rows = rows_of(a.d_out), width = width_of(a.d_out);
  check_list(a.d_bias, a.d_bias.type(), width, name, "d_bias");
  if (a.d_out.rank() == 2 && a.d_out.stride(1) == 1) return a.d_out.stride(0);
  check_rows(a.d_out, a.d_out.type(), rows, width, name, "d_out");
  return width;
}

void check_embedding(const EmbeddingBackward& a) {
  constexpr auto name = "embedding_backward";
  float_index(a.d_weight, name, "d_weight");
  int64_t rows = a.tokens.elements(), width = width_of(a.d_weight), vocabulary = rows_of(a.d_weight);
  check_list(a.tokens, Dtype::i32, rows, name, "tokens");
  check_rows(a.d_weight, a.d_weight.type(), vocabulary, width, name, "d_weight");
  check_rows(a.d_out, a.d_weight.type(), rows, width, name, "d_out");
}

void check_position_encoding(const PositionEncoding& a) {
  constexpr auto name = "position_encoding";
  float_index(a.out, name, "out");
  int64_t distances = rows_of(a.out), width = width_of(a.out);
  check_rows(a.out, a.out.type(), distances, width, name, "out");
  if (width % 2) fail("{}: a width of {} is odd", name, width);
}

void check_cross_entropy(const CrossEntropy& a) {
  constexpr auto name = "cross_entropy";
  float_index(a.logits, name, "logits");
  int64_t rows = rows_of(a.logits), vocabulary = width_of(a.logits);
  check_rows(a.logits, a.logits.type(), rows, vocabulary, name, "logits");
  check_list(a.loss, Dtype::fp32, rows, name, "loss");
  check_list(a.targets, Dtype::i32, rows, name, "targets");
  if (a.weights) check_list(a.weights, Dtype::fp32, rows, name, "weights");
  if (!(a.smoothing >= 0 && a.smoothing < 1)) fail("{}: a smoothing of {} is not in [0, 1)", name, a.smoothing);
  if (!(a.gamma >= 0)) fail("{}: a gamma of {} is below 0", name, a.gamma);
}

void check_log_probability(const LogProbability& a) {
  constexpr auto name = "log_probability";
  float_index(a.logits, name, "logits");
  int64_t rows = rows_of(a.logits), vocabulary = width_of(a.logits);
  check_rows(a.logits, a.logits.type(), rows, vocabulary, name, "logits");
  check_list(a.logprob, Dtype::fp32, rows, name, "logprob");
  check_list(a.tokens, Dtype::i32, rows, name, "tokens");
}

/// What both operations of a conditional random field take.
static void check_crf(const ConstTensor& emissions, const ConstTensor& transitions, const ConstTensor& starts,
                      const char* name) {
  constexpr int64_t most_labels = 256;
  int64_t rows = rows_of(emissions), labels = width_of(emissions);
  check_rows(emissions, Dtype::fp32, rows, labels, name, "emissions");
  if (labels > most_labels) fail("{}: {} labels, at most {} were expected", name, labels, most_labels);
  check_rows(transitions, Dtype::fp32, labels + 2, labels, name, "transitions");
  if (starts.elements() < 1) fail("{}: starts has no end", name);
  check_list(starts, Dtype::i32, starts.elements(), name, "starts");
}

void check_crf_loss(const CrfLoss& a) {
  constexpr auto name = "crf_loss";
  check_crf(a.emissions, a.transitions, a.starts, name);
  int64_t rows = rows_of(a.emissions), labels = width_of(a.emissions), sequences = a.starts.elements() - 1;
  check_list(a.targets, Dtype::i32, rows, name, "targets");
  check_list(a.loss, Dtype::fp32, sequences, name, "loss");
  if (a.weights) check_list(a.weights, Dtype::fp32, sequences, name, "weights");
  if (a.d_transitions) check_rows(a.d_transitions, Dtype::fp32, labels + 2, labels, name, "d_transitions");
}

void check_crf_decode(const CrfDecode& a) {
  constexpr auto name = "crf_decode";
  check_crf(a.emissions, a.transitions, a.starts, name);
  check_list(a.labels, Dtype::i32, rows_of(a.emissions), name, "labels");
  check_list(a.score, Dtype::fp32, a.starts.elements() - 1, name, "score");
}

void check_adamw(const AdamW& a) {
  constexpr auto name = "adamw";
  if (a.step < 1) fail("adamw: steps count from 1, not {}", a.step);
  for (const AdamWParameter& p : a.parameters) {
    int64_t n = p.weight.elements();
    float_index(p.weight, name, "weight"), float_index(p.gradient, name, "gradient"), float_index(p.m, name, "m");
    check_list(p.weight, p.weight.type(), n, name, "weight");
    check_list(p.gradient, p.gradient.type(), n, name, "gradient");
    check_list(p.m, p.m.type(), n, name, "m");
    check_list(p.v, p.m.type(), n, name, "v");
    if (p.master) check_list(p.master, Dtype::fp32, n, name, "master");
  }
}

void check_global_norm(const GlobalNorm& a) {
  constexpr auto name = "global_norm";
  check_list(a.norm, Dtype::fp32, 1, name, "norm");
  for (const ConstTensor& t : a.tensors) {
    float_index(t, name, "a tensor");
    check_list(t, t.type(), t.elements(), name, "a tensor");
  }
}

void check_add(const Add& a) {
  float_index(a.out, "add", "out");
  int64_t n = a.out.elements();
  check_list(a.out, a.out.type(), n, "add", "out");
  check_list(a.a, a.out.type(), n, "add", "a");
  check_list(a.b, a.out.type(), n, "add", "b");
}

void check_layernorm(const LayerNormForward& a) {
  constexpr auto name = "layernorm_forward";
  float_index(a.x, name, "x");
  int64_t rows = rows_of(a.x), width = width_of(a.x);
  auto optional = [&](const ConstTensor& t, const char* what) {
    if (!t.empty()) check_rows(t, a.x.type(), rows, width, name, what);
  };
  optional(a.x, "x"), optional(a.out, "out"), optional(a.sum, "sum"), optional(a.residual, "residual");
  if (a.out.empty() && a.sum.empty()) fail("{}: neither out nor sum is wanted", name);
  if (a.out.empty()) return;
  check_list(a.gain, a.x.type(), width, name, "gain");
  check_list(a.bias, a.x.type(), width, name, "bias");
  if (a.mean) check_list(a.mean, Dtype::fp32, rows, name, "mean");
  if (a.rstd) check_list(a.rstd, Dtype::fp32, rows, name, "rstd");
}

ConstTensor check_layernorm(const LayerNormBackward& a) {
  constexpr auto name = "layernorm_backward";
  ConstTensor shape = a.d_out.empty() ? ConstTensor(a.d_sum) : a.d_out;
  if (shape.empty()) fail("{}: d_out and d_sum are missing", name);
  float_index(shape, name, a.d_out.empty() ? "d_sum" : "d_out");
  int64_t rows = rows_of(shape), width = width_of(shape);
  auto check = [&](const ConstTensor& t, const char* what) { check_rows(t, shape.type(), rows, width, name, what); };
  check(shape, "d_out");
  if (a.d_sum) check(a.d_sum, "d_sum");
  if (a.d_x) check(a.d_x, "d_x");
  if (a.d_x && a.d_sum.empty()) fail("{}: d_x is wanted without d_sum", name);
  if (a.d_out.empty()) return shape;
  check(a.sum, "sum");
  check_list(a.mean, Dtype::fp32, rows, name, "mean");
  check_list(a.rstd, Dtype::fp32, rows, name, "rstd");
  check_list(a.gain, shape.type(), width, name, "gain");
  if (a.d_gain) float_index(a.d_gain, name, "d_gain"), check_list(a.d_gain, a.d_gain.type(), width, name, "d_gain");
  if (a.d_bias) float_index(a.d_bias, name, "d_bias"), check_list(a.d_bias, a.d_bias.type(), width, name, "d_bias");
  return shape;
}

ConstTensor check_memory_roll(const MemoryRoll& a) {
  constexpr auto name = "memory_roll";
  if (a.context.empty() || a.context.size(0) < a.memory.size(0))
    fail("{}: memory {} is longer than its context {}", name, a.memory.shape().text(), a.context.shape().text());
  ConstTensor last = a.context.rows(a.context.size(0) - a.memory.size(0), a.memory.size(0));
  if (last.type() != a.memory.type() || last.shape() != a.memory.shape())
    fail("{}: memory is {} {}, context {} {}", name, dtype_name(a.memory.type()), a.memory.shape().text(),
         dtype_name(a.context.type()), a.context.shape().text());
  if (!last.contiguous() || !a.memory.contiguous()) fail("{}: memory or context is not contiguous", name);
  return last;
}

void check_fgm_step(const FgmStep& a) {
  constexpr auto name = "fgm_step";
  float_index(a.x, name, "x"), float_index(a.gradient, name, "gradient");
  check_list(a.x, a.x.type(), a.x.elements(), name, "x");
  check_list(a.gradient, a.gradient.type(), a.x.elements(), name, "gradient");
  check_list(a.norm, Dtype::fp32, 1, name, "norm");
  if (!std::isfinite(a.epsilon)) fail("{}: an epsilon of {} is not finite", name, a.epsilon);
}

static void check_rule(const SamplingParameters& rule, int64_t row) {
  if (!(rule.temperature >= 0) || std::isinf(rule.temperature))
    fail("sample: row {} has a temperature of {}, it must be 0 or more", row, rule.temperature);
  if (rule.top_k < 0) fail("sample: row {} has a top_k of {}, it must be 0 (off) or more", row, rule.top_k);
  if (!(rule.top_p > 0 && rule.top_p <= 1)) fail("sample: row {} has a top_p of {}, not in (0, 1]", row, rule.top_p);
  if (!(rule.min_p >= 0 && rule.min_p <= 1)) fail("sample: row {} has a min_p of {}, not in [0, 1]", row, rule.min_p);
  if (!(rule.repetition_penalty > 0) || std::isinf(rule.repetition_penalty))
    fail("sample: row {} has a repetition penalty of {}, it must be above 0", row, rule.repetition_penalty);
}

void check_sample(const Sample& a) {
  constexpr auto name = "sample";
  float_index(a.logits, name, "logits");
  int64_t rows = rows_of(a.logits), length = width_of(a.history);
  check_rows(a.logits, a.logits.type(), rows, width_of(a.logits), name, "logits");
  check_list(a.tokens, Dtype::i32, rows, name, "tokens");
  if (a.logprob) check_list(a.logprob, Dtype::fp32, rows, name, "logprob");
  if (static_cast<int64_t>(a.rules.size()) != rows) fail("{}: {} rules for {} rows", name, a.rules.size(), rows);
  for (int64_t r = 0; r < rows; ++r) check_rule(a.rules[r], r);
  if (length) check_rows(a.history, Dtype::i32, rows, length, name, "history");
  if (a.allowed) check_rows(a.allowed, Dtype::u64, rows, (width_of(a.logits) + 63) / 64, name, "allowed");
}

}  // namespace longhand
