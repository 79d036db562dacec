// Interface of the kernels that measure what the processor can do.
#pragma once

#include <cstdint>

#include "src/device/cpu/kernels/isa.h"

namespace longhand::cpu {

/// Each runs `rounds` rounds of work and returns a value that depends on all of it.
struct CeilingKernels {
  int64_t fma_operations, dot_operations;  // of a round; dot_operations 0: no bf16 dot product
  float (*fma)(int64_t rounds);
  float (*dot)(int64_t rounds);
  float (*read)(const float* from, int64_t count);  // sums; count a multiple of 256
};
LONGHAND_DECLARE_KERNELS(CeilingKernels, ceiling_kernels);

}  // namespace longhand::cpu
