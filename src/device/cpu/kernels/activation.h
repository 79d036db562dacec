// Inner loops of the activation, of its backward pass and of column sums.
#pragma once

#include "src/device/cpu/kernels/isa.h"
#include "src/device/cpu/kernels/random.h"

namespace longhand::cpu {

struct ActivationRange {
  void* d_x;
  const void *d_out, *x;
  int64_t first, count;  // elements
  DropoutKey dropout;
};

struct ColumnSums {
  const void* values;  // the first row of the stripe
  int64_t rows, stride, width;
  float* sums;  // room for width rounded up to 16
};

/// Tables are indexed by type: 0 = fp32, 1 = bf16.
struct ActivationKernels {
  /// Elements [first, first + count); indices: none, relu, gelu; the type of x; the type of out.
  void (*forward[3][2][2])(void* out, const void* x, int64_t first, int64_t count);
  void (*backward[3][2])(const ActivationRange&);  // first index: none, relu, gelu
  void (*column_sums[2])(const ColumnSums&);
  /// to[c] += the sum of partials[s * stride + c] over s in order.
  void (*add_partials[2])(void* to, const float* partials, int64_t stride, int64_t stripes, int64_t width);
};
LONGHAND_DECLARE_KERNELS(ActivationKernels, activation_kernels)

}  // namespace longhand::cpu
