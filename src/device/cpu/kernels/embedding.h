// Inner loops of the embedding.
#pragma once

#include "src/device/cpu/kernels/isa.h"
#include "src/device/cpu/kernels/random.h"

namespace longhand::cpu {

enum class EmbeddingType : uint8_t { fp32, bf16, fp16, int8, int4 };

/// The table: floats, or integers with a scale a row or, grouped, for every 64.
struct EmbeddingTable {
  const void *weight, *scales;
  EmbeddingType type;
  bool grouped, half_scales;
  int64_t interleaved_rows = 0, interleaved_bytes = 0;  // side by side by runs, see Interleaving in device.h
};

struct EmbeddingRows {
  void* out;
  EmbeddingTable table;
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
