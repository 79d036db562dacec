// Inner loops of layer normalisation.
#pragma once

#include "src/device/cpu/kernels/isa.h"
#include "src/device/cpu/kernels/random.h"

namespace longhand::cpu {

struct LayerNormRows {
  void *out, *sum;  // each may be null
  float *mean, *rstd;
  const void *x, *residual, *gain, *bias;
  float* buffer;                // one row in fp32, its width rounded up to 16
  int64_t width, first, count;  // rows
  float eps;
  DropoutKey dropout;
};

struct LayerNormGradients {
  void *d_sum, *d_x;  // each may be null
  const void *d_out, *sum, *gain;
  const float *mean, *rstd;
  float *d_gain, *d_bias;       // this stripe's sums, zeroed, widths rounded up to 16; null when not wanted
  int64_t width, first, count;  // rows
  DropoutKey dropout;
};

struct LayerNormKernels {
  void (*forward[2])(const LayerNormRows&);
  void (*backward[2])(const LayerNormGradients&);
};
LONGHAND_DECLARE_KERNELS(LayerNormKernels, layernorm_kernels)

}  // namespace longhand::cpu
