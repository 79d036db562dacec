// Inner loops of AdamW, of the gradients' norm and of FGM's step.
#pragma once

#include "src/device/cpu/kernels/isa.h"
#include "src/device/cpu/kernels/random.h"

namespace longhand::cpu {

struct AdamWRange {
  void* weight;
  float* master;  // null: `weight` is updated
  void *m, *v;
  const void* gradient;
  int64_t first, count;
  float learning_rate, beta1, beta2, eps, gradient_scale, weight_decay;
  float m_correction, v_correction;  // 1 / (1 - beta^step)
  RandomKey rounding;
};

/// Entries [first, first + count) of x += epsilon (gradient / norm).
struct FgmRange {
  void* x;
  const void* gradient;
  int64_t first, count;
  float norm, epsilon;
};

struct OptimizerKernels {
  void (*adamw[2][2][2])(const AdamWRange&);  // types of weight, gradient, moments
  double (*sum_of_squares[2])(const void* values, int64_t n);
  void (*fgm_step[2][2])(const FgmRange&);  // types of x, gradient
};
LONGHAND_DECLARE_KERNELS(OptimizerKernels, optimizer_kernels)

}  // namespace longhand::cpu
