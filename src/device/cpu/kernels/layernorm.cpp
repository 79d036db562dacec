// Layer normalisation. A row is read from memory once: the statistics and the result come from a copy in the L1 cache
// (forward), the second pass of the backward finds its row there. Limit: memory bandwidth.
#include "src/device/cpu/kernels/layernorm.h"

#include "src/device/cpu/kernels/math.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

/// dropout(x) + residual, as `sum` holds it, into the buffer; returns its total.
template <class T>
LONGHAND_INLINE float form_sum(const LayerNormRows& a, int64_t r, DropoutRow& row) {
  vec total = {};
  for (int64_t at = 0; at < a.width; at += random_piece) {
    int64_t count = a.width - at < random_piece ? a.width - at : random_piece, start = r * a.width + at;
    const float* factor = dropout_piece(row, a.dropout, start, count);
    const T* x = static_cast<const T*>(a.x) + start;
    const T* residual = a.residual ? static_cast<const T*>(a.residual) + start : nullptr;
    T* sum = a.sum ? static_cast<T*>(a.sum) + start : nullptr;
    each_vector(count, [&](int64_t i, auto part) {
      vec value = load(x + i, part);
      if (factor) value *= load(factor + i);
      if (residual) value += load(residual + i, part);
      if (sum) store(sum + i, value, part), value = rounded_as(sum, value);
      if (a.buffer) store(a.buffer + at + i, value);
      total += value;
    });
  }
  return longhand::cpu::sum(total);
}

template <class T>
LONGHAND_KERNEL void layernorm_forward(const LayerNormRows& a) {
  DropoutRow row;
  const T *gain = static_cast<const T*>(a.gain), *bias = static_cast<const T*>(a.bias);
  for (int64_t r = a.first; r < a.first + a.count; ++r) {
    float mean = form_sum<T>(a, r, row) / static_cast<float>(a.width);
    if (!a.out) continue;
    vec squares = {};
    each_vector(a.width, [&](int64_t i, auto part) {
      vec deviation = keep(load(a.buffer + i) - splat(mean), part);
      squares += deviation * deviation;
    });
    float rstd = 1.0f / __builtin_sqrtf(longhand::cpu::sum(squares) / static_cast<float>(a.width) + a.eps);
    T* out = static_cast<T*>(a.out) + r * a.width;
    each_vector(a.width, [&](int64_t i, auto part) {
      vec normal = (load(a.buffer + i) - splat(mean)) * splat(rstd);
      store(out + i, normal * load(gain + i, part) + load(bias + i, part), part);
    });
    if (a.mean) a.mean[r] = mean;
    if (a.rstd) a.rstd[r] = rstd;
  }
}

/// d_x = d_sum * dropout mask, with d_sum += the entry that `change` gives.
template <class T, class Change>
LONGHAND_INLINE void change_sum(const LayerNormGradients& a, int64_t r, DropoutRow& row, Change change) {
  for (int64_t at = 0; at < a.width; at += random_piece) {
    int64_t count = a.width - at < random_piece ? a.width - at : random_piece, start = r * a.width + at;
    const float* factor = a.d_x ? dropout_piece(row, a.dropout, start, count) : nullptr;
    T* d_sum = static_cast<T*>(a.d_sum) + start;
    T* d_x = a.d_x ? static_cast<T*>(a.d_x) + start : nullptr;
    each_vector(count, [&](int64_t i, auto part) {
      vec value = change(at + i, load(d_sum + i, part), part);
      if (a.d_out) store(d_sum + i, value, part), value = rounded_as(d_sum, value);
      if (factor) value *= load(factor + i);
      if (d_x) store(d_x + i, value, part);
    });
  }
}

template <class T>
LONGHAND_KERNEL void layernorm_backward(const LayerNormGradients& a) {
  DropoutRow row;
  const T* gain = static_cast<const T*>(a.gain);
  for (int64_t r = a.first; r < a.first + a.count; ++r) {
    if (!a.d_out) {
      change_sum<T>(a, r, row, [](int64_t, vec value, auto) { return value; });
      continue;
    }
    const T *d_out = static_cast<const T*>(a.d_out) + r * a.width, *sum = static_cast<const T*>(a.sum) + r * a.width;
    vec mean = splat(a.mean[r]), rstd = splat(a.rstd[r]), total = {}, product = {};
    each_vector(a.width, [&](int64_t i, auto part) {
      vec normal = (load(sum + i, part) - mean) * rstd, d = load(d_out + i, part);
      vec g = d * load(gain + i, part);
      total += g, product += g * normal;
      if (a.d_gain) store(a.d_gain + i, load(a.d_gain + i) + d * normal);
      if (a.d_bias) store(a.d_bias + i, load(a.d_bias + i) + d);
    });
    if (!a.d_sum) continue;
    vec m1 = splat(longhand::cpu::sum(total) / static_cast<float>(a.width));
    vec m2 = splat(longhand::cpu::sum(product) / static_cast<float>(a.width));
    change_sum<T>(a, r, row, [&](int64_t i, vec value, auto part) {
      vec normal = (load(sum + i, part) - mean) * rstd, g = load(d_out + i, part) * load(gain + i, part);
      return value + rstd * (g - m1 - normal * m2);
    });
  }
}

}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(LayerNormKernels, layernorm_kernels) = {{layernorm_forward<float>, layernorm_forward<half>},
                                                                {layernorm_backward<float>, layernorm_backward<half>}};

}  // namespace longhand::cpu
