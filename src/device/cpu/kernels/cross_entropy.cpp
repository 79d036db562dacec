// Softmax over rows of up to some hundred thousand entries. A row comes from memory once and is passed over three times
// from the L2 cache: its largest entry, the sum of exponentials, the gradient. Limit: the exponentials.
#include "src/device/cpu/kernels/cross_entropy.h"

#include "src/device/cpu/kernels/rows.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

template <class T>
LONGHAND_KERNEL float row_largest(const void* row, int64_t n) {
  const T* x = static_cast<const T*>(row);
  const float low = -__builtin_inff();
  vec best[4] = {splat(low), splat(low), splat(low), splat(low)};
  ivec strange = {};
  auto take = [&](vec value, vec& largest) {
    strange |= value != value;
    largest = maximum(value, largest);
  };
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes)
    for (int v = 0; v < 4; ++v) take(load(x + i + v * lanes), best[v]);
  each_vector(n - i, [&](int64_t j, auto part) { take(keep(load(x + i + j, part), part, low), best[0]); });
  if (sum(select(strange, splat(1.0f), splat(0.0f))) > 0) return __builtin_nanf("");
  return longhand::cpu::largest(maximum(maximum(best[0], best[1]), maximum(best[2], best[3])));
}

/// The sum of term(x), in fp32 over blocks, in fp64 over the blocks.
template <class T, class Term>
LONGHAND_INLINE double blocked_sum(const void* row, int64_t n, Term term) {
  constexpr int64_t block = 4096;
  double total = 0;
  for (int64_t at = 0; at < n; at += block) {
    const T* x = static_cast<const T*>(row) + at;
    int64_t count = n - at < block ? n - at : block, i = 0;
    vec part_sum[2] = {};
    for (; i + 2 * lanes <= count; i += 2 * lanes)
      for (int v = 0; v < 2; ++v) part_sum[v] += term(load(x + i + v * lanes));
    each_vector(count - i, [&](int64_t j, auto part) { part_sum[0] += keep(term(load(x + i + j, part)), part); });
    total += sum(part_sum[0] + part_sum[1]);
  }
  return total;
}

template <class T>
LONGHAND_KERNEL double row_sum(const void* row, int64_t n) {
  return blocked_sum<T>(row, n, [](vec x) { return x; });
}

template <class T>
LONGHAND_KERNEL double exponential_sum(const void* row, int64_t n, float largest) {
  return blocked_sum<T>(row, n, [=](vec x) { return exponential(x - splat(largest)); });
}

template <class T>
LONGHAND_KERNEL void gradient(void* row, int64_t n, float largest, float factor, float shift) {
  T* x = static_cast<T*>(row);
  each_vector(n, [&](int64_t i, auto part) {
    store(x + i, splat(factor) * exponential(load(x + i, part) - splat(largest)) + splat(shift), part);
  });
}

template <class T>
LONGHAND_KERNEL void widen(const void* row, float* out, int64_t n) {
  const T* x = static_cast<const T*>(row);
  each_vector(n, [&](int64_t i, auto part) { store(out + i, load(x + i, part), part); });
}

LONGHAND_KERNEL void weights(const float* row, float* out, int64_t n, float largest, float temperature, float least) {
  each_vector(n, [&](int64_t i, auto part) {
    vec weight = exponential((load(row + i, part) - splat(largest)) / splat(temperature));
    store(out + i, select(weight >= splat(least), weight, splat(0.0f)), part);
  });
}

}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(CrossEntropyKernels, cross_entropy_kernels) = {{row_largest<float>, row_largest<half>},
                                                                       {row_sum<float>, row_sum<half>},
                                                                       {exponential_sum<float>, exponential_sum<half>},
                                                                       {gradient<float>, gradient<half>},
                                                                       {widen<float>, widen<half>},
                                                                       weights};

}  // namespace longhand::cpu
