// Sums over a row of logits, and what softmax needs of them.
#pragma once

#include <cstdint>

#include "src/device/cpu/kernels/isa.h"

namespace longhand::cpu {

struct CrossEntropyKernels {
  float (*largest[2])(const void* row, int64_t n);  // -inf when n is 0, NaN when an entry is
  double (*sum[2])(const void* row, int64_t n);
  double (*exponential_sum[2])(const void* row, int64_t n, float largest);
  /// row = factor * exp(row - largest) + shift
  void (*gradient[2])(void* row, int64_t n, float largest, float factor, float shift);
  /// out = row, in fp32
  void (*widen[2])(const void* row, float* out, int64_t n);
  /// out = exp((row - largest) / temperature), 0 where that is below `least`
  void (*weights)(const float* row, float* out, int64_t n, float largest, float temperature, float least);
};
LONGHAND_DECLARE_KERNELS(CrossEntropyKernels, cross_entropy_kernels)

}  // namespace longhand::cpu
