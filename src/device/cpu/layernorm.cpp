// Layer normalisation with the dropout and the residual before it.
#include "src/device/cpu/kernels/layernorm.h"

#include <cstring>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/kernels/activation.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {

void CpuDevice::layernorm_forward(const LayerNormForward& a) {
  constexpr auto name = "layernorm_forward";
  int type = float_index(a.x, name, "x");
  int64_t rows = rows_of(a.x), width = width_of(a.x);
  auto optional = [&](const ConstTensor& t, const char* what) {
    if (!t.empty()) check_rows(t, a.x.type(), rows, width, name, what);
  };
  optional(a.x, "x"), optional(a.out, "out"), optional(a.sum, "sum"), optional(a.residual, "residual");
  if (a.out.empty() && a.sum.empty()) fail("{}: neither out nor sum is wanted", name);
  if (a.out) {
    check_list(a.gain, a.x.type(), width, name, "gain");
    check_list(a.bias, a.x.type(), width, name, "bias");
    if (a.mean) check_list(a.mean, Dtype::fp32, rows, name, "mean");
    if (a.rstd) check_list(a.rstd, Dtype::fp32, rows, name, "rstd");
  }
  LayerNormRows all{a.out.data(),
                    a.sum.data(),
                    a.mean.as<float>(),
                    a.rstd.as<float>(),
                    a.x.data(),
                    a.residual.data(),
                    a.gain.data(),
                    a.bias.data(),
                    nullptr,
                    width,
                    0,
                    0,
                    a.eps,
                    dropout_key(a.dropout, name)};
  auto kernel = layernorm_kernels().forward[type];
  for_pieces(pool_, rows, rows_per_piece(width), [&](int64_t first, int64_t count, int thread) {
    LayerNormRows part = all;
    part.first = first, part.count = count;
    if (a.out) part.buffer = static_cast<float*>(scratch(thread, padded(width) * 4));
    kernel(part);
  });
}

void CpuDevice::layernorm_backward(const LayerNormBackward& a) {
  constexpr auto name = "layernorm_backward";
  const ConstTensor& shape = a.d_out.empty() ? ConstTensor(a.d_sum) : a.d_out;
  if (shape.empty()) fail("{}: d_out and d_sum are missing", name);
  int type = float_index(shape, name, a.d_out.empty() ? "d_sum" : "d_out");
  int64_t rows = rows_of(shape), width = width_of(shape);
  auto check = [&](const ConstTensor& t, const char* what) { check_rows(t, shape.type(), rows, width, name, what); };
  check(shape, "d_out");
  if (a.d_sum) check(a.d_sum, "d_sum");
  if (a.d_x) check(a.d_x, "d_x");
  if (a.d_x && a.d_sum.empty()) fail("{}: d_x is wanted without d_sum", name);
  bool normalised = !a.d_out.empty();
  if (normalised) {
    check(a.sum, "sum");
    check_list(a.mean, Dtype::fp32, rows, name, "mean");
    check_list(a.rstd, Dtype::fp32, rows, name, "rstd");
    check_list(a.gain, shape.type(), width, name, "gain");
    if (a.d_gain) check_list(a.d_gain, a.d_gain.type(), width, name, "d_gain");
    if (a.d_bias) check_list(a.d_bias, a.d_bias.type(), width, name, "d_bias");
  }
  LayerNormGradients all{a.d_sum.data(),
                         a.d_x.data(),
                         a.d_out.data(),
                         a.sum.data(),
                         a.gain.data(),
                         a.mean.as<float>(),
                         a.rstd.as<float>(),
                         nullptr,
                         nullptr,
                         width,
                         0,
                         0,
                         dropout_key(a.dropout, name)};
  bool gain = normalised && a.d_gain, bias = normalised && a.d_bias;
  Stripes stripes(rows);
  int64_t step = padded(width);
  float* partials = static_cast<float*>(scratch(pool_.size(), (gain + bias) * stripes.count * step * 4));
  float *gains = gain ? partials : nullptr, *biases = bias ? partials + gain * stripes.count * step : nullptr;
  auto kernel = layernorm_kernels().backward[type];
  for_pieces(pool_, stripes.count, std::max<int64_t>(1, rows_per_piece(width) / stripes.each),
             [&](int64_t begin, int64_t count, int) {
               for (int64_t s = begin; s < begin + count; ++s) {
                 LayerNormGradients part = all;
                 part.first = stripes.first(s), part.count = stripes.size(s);
                 if (gain) std::memset(part.d_gain = gains + s * step, 0, step * 4);
                 if (bias) std::memset(part.d_bias = biases + s * step, 0, step * 4);
                 kernel(part);
               }
             });
  auto add = [&](const Tensor& to, const float* from, const char* what) {
    activation_kernels().add_partials[float_index(to, name, what)](to.data(), from, step, stripes.count, width);
  };
  if (gain) add(a.d_gain, gains, "d_gain");
  if (bias) add(a.d_bias, biases, "d_bias");
}

}  // namespace longhand::cpu
