// Extremes of pages of rows.
#pragma once

#include "src/device/cpu/kernels/attention_decode.h"

namespace longhand::cpu {

struct RingKernels {
  /// low and high [width]: the extremes of `count` rows of one head. scales: as in DecodeHead.
  void (*bounds)(HeadRows rows, HeadRows scales, RingType type, int64_t count, int64_t width, float* low, float* high);
};
LONGHAND_DECLARE_KERNELS(RingKernels, ring_kernels)

}  // namespace longhand::cpu
