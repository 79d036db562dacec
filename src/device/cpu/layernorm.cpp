// Layer normalisation with the dropout and the residual before it.
#include "src/device/cpu/kernels/layernorm.h"

#include <cstring>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/kernels/activation.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {

void CpuDevice::layernorm_forward(const LayerNormForward& a) {
  check_layernorm(a);
  constexpr auto name = "layernorm_forward";
  int type = float_index(a.x, name, "x");
  int64_t rows = rows_of(a.x), width = width_of(a.x);
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
  ConstTensor shape = check_layernorm(a);
  int type = float_index(shape, name, "d_out");
  int64_t rows = rows_of(shape), width = width_of(shape);
  bool normalised = !a.d_out.empty();
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
