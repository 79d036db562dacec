// The activation, its backward pass, and column sums. Limit: memory bandwidth (two streams; three; one).
#include "src/device/cpu/kernels/activation.h"

#include "src/device/cpu/kernels/math.h"
#include "src/device/cpu/kernels/matmul_epilogue.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

template <int activation, class In, class Out>
LONGHAND_KERNEL void activation_forward(void* out, const void* x, int64_t first, int64_t count) {
  const In* from = static_cast<const In*>(x) + first;
  Out* to = static_cast<Out*>(out) + first;
  each_vector(count, [&](int64_t i, auto part) { store(to + i, activate(load(from + i, part), activation), part); });
}

template <int activation, class T>
LONGHAND_KERNEL void activation_backward(const ActivationRange& a) {
  DropoutRow row;
  for (int64_t at = 0; at < a.count; at += random_piece) {
    int64_t first = a.first + at, count = a.count - at < random_piece ? a.count - at : random_piece;
    const float* factor = dropout_piece(row, a.dropout, first, count);
    T* d_x = static_cast<T*>(a.d_x) + first;
    const T* d_out = static_cast<const T*>(a.d_out) + first;
    const T* x = static_cast<const T*>(a.x) + first;
    each_vector(count, [&](int64_t i, auto part) {
      vec d = load(d_out + i, part);
      if (factor) d *= load(factor + i);
      if constexpr (activation == 1) d = select(load(x + i, part) > splat(0.0f), d, splat(0.0f));
      if constexpr (activation == 2) d *= gelu_derivative(load(x + i, part));
      store(d_x + i, d, part);
    });
  }
}

/// Eight vectors of columns at a time stay in registers while the rows go by.
template <class T>
LONGHAND_KERNEL void column_sums(const ColumnSums& a) {
  const T* values = static_cast<const T*>(a.values);
  constexpr int64_t block = 8 * lanes;
  int64_t c = 0;
  for (; c + block <= a.width; c += block) {
    vec total[8] = {};
    for (int64_t r = 0; r < a.rows; ++r)
      for (int v = 0; v < 8; ++v) total[v] += load(values + r * a.stride + c + v * lanes);
    for (int v = 0; v < 8; ++v) store(a.sums + c + v * lanes, total[v]);
  }
  each_vector(a.width - c, [&](int64_t i, auto part) {
    vec total = {};
    for (int64_t r = 0; r < a.rows; ++r) total += load(values + r * a.stride + c + i, part);
    store(a.sums + c + i, total);
  });
}

template <class T>
LONGHAND_KERNEL void add_partials(void* to, const float* partials, int64_t stride, int64_t stripes, int64_t width) {
  T* out = static_cast<T*>(to);
  each_vector(width, [&](int64_t i, auto part) {
    vec total = {};
    for (int64_t s = 0; s < stripes; ++s) total += load(partials + s * stride + i, part);
    store(out + i, load(out + i, part) + total, part);
  });
}

}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(ActivationKernels, activation_kernels) = {
    {{{activation_forward<0, float, float>, activation_forward<0, float, half>},
      {activation_forward<0, half, float>, activation_forward<0, half, half>}},
     {{activation_forward<1, float, float>, activation_forward<1, float, half>},
      {activation_forward<1, half, float>, activation_forward<1, half, half>}},
     {{activation_forward<2, float, float>, activation_forward<2, float, half>},
      {activation_forward<2, half, float>, activation_forward<2, half, half>}}},
    {{activation_backward<0, float>, activation_backward<0, half>},
     {activation_backward<1, float>, activation_backward<1, half>},
     {activation_backward<2, float>, activation_backward<2, half>}},
    {column_sums<float>, column_sums<half>},
    {add_partials<float>, add_partials<half>}};

}  // namespace longhand::cpu
