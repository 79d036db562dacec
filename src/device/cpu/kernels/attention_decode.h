// Attention over rings: what the launcher hands to its kernels.
#pragma once

#include "src/device/cpu/kernels/attention.h"

namespace longhand::cpu {

/// What rings and R are held in; an i8 row has a scale beside it.
enum class RingType : uint8_t { fp32, bf16, i8 };

/// Queries of one head at consecutive positions of one sequence.
struct DecodeHead {
  HeadRows q, out, keys, values, r;             // keys, values: a row a slot
  HeadRows key_scales, value_scales, r_scales;  // fp32, a number a row
  HeadRows key_bounds, r_bounds;                // fp32, rows 2 p and 2 p + 1: minima and maxima of page or group p
  int64_t slots, distances, groups, width, padded, window;
  int64_t topk;  // 0: dense
  bool pages;    // block selection
  int64_t position, count;
  bool half;  // q, out
  RingType ring;
  const float *u, *v;  // [padded]
  float sigma;
};
constexpr int64_t decode_group = 4;

struct DecodeKernels {
  int64_t (*scratch)(const DecodeHead&);  // floats
  void (*decode)(const DecodeHead&, float* scratch);
};
LONGHAND_DECLARE_KERNELS(DecodeKernels, decode_kernels)

}  // namespace longhand::cpu
