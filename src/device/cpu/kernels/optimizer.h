// Inner loops of AdamW and of the gradients' norm.
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

struct OptimizerKernels {
  void (*adamw[2][2][2])(const AdamWRange&);  // types of weight, gradient, moments
  double (*sum_of_squares[2])(const void* values, int64_t n);
};
LONGHAND_DECLARE_KERNELS(OptimizerKernels, optimizer_kernels)

}  // namespace longhand::cpu
