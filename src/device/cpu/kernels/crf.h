// Steps along a chain of labels, and what is summed over them.
#pragma once

#include <cstdint>

#include "src/device/cpu/kernels/isa.h"

namespace longhand::cpu {

struct CrfKernels {
  /// largest_j = max_i (x_i + m_ij), sums_j = sum_i exp(x_i + m_ij - largest_j); m [n, n].
  void (*log_sums)(const float* x, const float* m, int64_t n, float* largest, float* sums);
  /// best_j = max_i (x_i + m_ij), from_j the smallest i that reaches it.
  void (*best)(const float* x, const float* m, int64_t n, float* best, int32_t* from);
  /// out_j = factor * exp(x_j + y_j); their sum without the factor is returned.
  double (*exponentials)(const float* x, const float* y, float factor, float* out, int64_t n);
  /// to_j += factor * exp(shift + x_j + y_j)
  void (*add_exponentials)(float* to, float shift, const float* x, const float* y, float factor, int64_t n);
};
LONGHAND_DECLARE_KERNELS(CrfKernels, crf_kernels)

}  // namespace longhand::cpu
