#include "src/device/checks.h"

#include <cmath>

namespace longhand {

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
}

}  // namespace longhand
