// The activation, its backward pass, and the gradient of a bias.
#include "src/device/cpu/kernels/activation.h"

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {

void CpuDevice::activation_forward(const ActivationForward& a) {
  check_activation_forward(a);
  auto kernel = activation_kernels()
                    .forward[static_cast<int>(a.activation)][a.x.type() == Dtype::bf16][a.out.type() == Dtype::bf16];
  for_pieces(pool_, a.out.elements(), piece_elements,
             [&](int64_t first, int64_t count, int) { kernel(a.out.data(), a.x.data(), first, count); });
}

void CpuDevice::activation_backward(const ActivationBackward& a) {
  constexpr auto name = "activation_backward";
  check_activation_backward(a);
  DropoutKey dropout = dropout_key(a.dropout, name);
  auto kernel = activation_kernels().backward[static_cast<int>(a.activation)][a.d_x.type() == Dtype::bf16];
  for_pieces(pool_, a.d_x.elements(), piece_elements, [&](int64_t first, int64_t count, int) {
    kernel({a.d_x.data(), a.d_out.data(), a.x.data(), first, count, dropout});
  });
}

void CpuDevice::bias_backward(const BiasBackward& a) {
  int64_t rows = rows_of(a.d_out), width = width_of(a.d_out), stride = check_bias_backward(a);
  int type = a.d_out.type() == Dtype::bf16, to = a.d_bias.type() == Dtype::bf16;
  Stripes stripes(rows);
  int64_t step = padded(width);
  float* partials = static_cast<float*>(scratch(pool_.size(), stripes.count * step * 4));
  const auto& kernels = activation_kernels();
  const char* values = static_cast<const char*>(a.d_out.data());
  int64_t row_bytes = stride * dtype_bytes(a.d_out.type());
  int64_t together = std::max<int64_t>(1, rows_per_piece(width) / stripes.each);
  for_pieces(pool_, stripes.count, together, [&](int64_t first, int64_t count, int) {
    for (int64_t s = first; s < first + count; ++s)
      kernels.column_sums[type](
          {values + stripes.first(s) * row_bytes, stripes.size(s), stride, width, partials + s * step});
  });
  kernels.add_partials[to](a.d_bias.data(), partials, step, stripes.count, width);
}

}  // namespace longhand::cpu
