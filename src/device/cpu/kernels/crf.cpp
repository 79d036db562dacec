// A step along the chain costs n^2 exponentials, vector lanes being the labels stepped to; the matrix stays in cache.
#include "src/device/cpu/kernels/crf.h"

#include "src/device/cpu/kernels/rows.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

LONGHAND_KERNEL void log_sums(const float* x, const float* m, int64_t n, float* largest, float* sums) {
  each_vector(n, [&](int64_t j, auto part) {
    vec most = splat(-__builtin_inff()), sum = {};
    for (int64_t i = 0; i < n; ++i) most = maximum(most, splat(x[i]) + load(m + i * n + j, part));
    for (int64_t i = 0; i < n; ++i) sum += exponential(splat(x[i]) + load(m + i * n + j, part) - most);
    store(largest + j, most, part), store(sums + j, sum, part);
  });
}

LONGHAND_KERNEL void best(const float* x, const float* m, int64_t n, float* out, int32_t* from) {
  each_vector(n, [&](int64_t j, auto part) {
    vec most = splat(-__builtin_inff()), where = {};
    for (int64_t i = 0; i < n; ++i) {
      vec value = splat(x[i]) + load(m + i * n + j, part);
      where = select(value > most, splat(static_cast<float>(i)), where);
      most = maximum(most, value);
    }
    float index[lanes];
    store(index, where), store(out + j, most, part);
    for (int64_t l = 0; l < lanes && j + l < n; ++l) from[j + l] = static_cast<int32_t>(index[l]);
  });
}

LONGHAND_KERNEL double exponentials(const float* x, const float* y, float factor, float* out, int64_t n) {
  double total = 0;
  each_vector(n, [&](int64_t j, auto part) {
    vec value = keep(exponential(load(x + j, part) + load(y + j, part)), part);
    store(out + j, splat(factor) * value, part);
    total += sum(value);
  });
  return total;
}

LONGHAND_KERNEL void add_exponentials(float* to, float shift, const float* x, const float* y, float factor, int64_t n) {
  each_vector(n, [&](int64_t j, auto part) {
    vec value = exponential(splat(shift) + load(x + j, part) + load(y + j, part));
    store(to + j, load(to + j, part) + splat(factor) * value, part);
  });
}

}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(CrfKernels, crf_kernels) = {log_sums, best, exponentials, add_exponentials};

}  // namespace longhand::cpu
