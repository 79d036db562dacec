// Inner loops of the embedding.
#pragma once

#include "src/device/cpu/kernels/isa.h"
#include "src/device/cpu/kernels/random.h"

namespace longhand::cpu {

struct EmbeddingRows {
  void* out;
  const void* weight;
  const int32_t* tokens;
  int64_t width, first, count;  // rows
  float scale;
  DropoutKey dropout;
};

/// All rows of one token: `row`, next[row], ... until -1, in ascending order.
struct EmbeddingToken {
  void* d_weight;  // this token's row
  const void* d_out;
  const int32_t* next;
  int32_t row;
  int64_t width;
  float scale;
  DropoutKey dropout;
};

struct EmbeddingKernels {
  void (*forward[2])(const EmbeddingRows&);
  void (*backward[2])(const EmbeddingToken&);
};
LONGHAND_DECLARE_KERNELS(EmbeddingKernels, embedding_kernels)

}  // namespace longhand::cpu
