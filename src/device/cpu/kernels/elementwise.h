// Inner loops of conversion and addition.
#pragma once

#include "src/device/cpu/kernels/isa.h"
#include "src/device/cpu/kernels/random.h"

namespace longhand::cpu {

struct ElementwiseKernels {
  /// Types from, to: 0 = fp32, 1 = bf16, 2 = fp16.
  void (*cast[3][3])(const void* x, void* out, int64_t first, int64_t count);
  /// To bf16, by chance; element e uses word e of the stream.
  void (*cast_by_chance[3])(const void* x, void* out, int64_t first, int64_t count, const RandomKey& key);
  void (*add[2])(const void* a, const void* b, void* out, int64_t first, int64_t count);
  void (*random_words)(const RandomKey& key, uint64_t first, int64_t count, uint32_t* words);
};
LONGHAND_DECLARE_KERNELS(ElementwiseKernels, elementwise_kernels)

}  // namespace longhand::cpu
