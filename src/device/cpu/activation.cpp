// The activation's backward pass and the gradient of a bias.
#include "src/device/cpu/kernels/activation.h"

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {

void CpuDevice::activation_backward(const ActivationBackward& a) {
  constexpr auto name = "activation_backward";
  int type = float_index(a.d_x, name, "d_x");
  int64_t rows = rows_of(a.d_x), width = width_of(a.d_x);
  check_rows(a.d_x, a.d_x.type(), rows, width, name, "d_x");
  check_rows(a.d_out, a.d_x.type(), rows, width, name, "d_out");
  if (a.activation != Activation::none) check_rows(a.x, a.d_x.type(), rows, width, name, "x");
  DropoutKey dropout = dropout_key(a.dropout, name);
  auto kernel = activation_kernels().backward[static_cast<int>(a.activation)][type];
  for_pieces(pool_, rows * width, piece_elements, [&](int64_t first, int64_t count, int) {
    kernel({a.d_x.data(), a.d_out.data(), a.x.data(), first, count, dropout});
  });
}

void CpuDevice::bias_backward(const BiasBackward& a) {
  constexpr auto name = "bias_backward";
  int type = float_index(a.d_out, name, "d_out"), to = float_index(a.d_bias, name, "d_bias");
  int64_t rows = rows_of(a.d_out), width = width_of(a.d_out), stride = width;
  check_list(a.d_bias, a.d_bias.type(), width, name, "d_bias");
  if (a.d_out.rank() == 2 && a.d_out.stride(1) == 1)
    stride = a.d_out.stride(0);
  else
    check_rows(a.d_out, a.d_out.type(), rows, width, name, "d_out");
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
