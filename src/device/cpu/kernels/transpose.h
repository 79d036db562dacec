// Words of several rows turned into words of one step: a square of 32-bit words transposed in registers.
#pragma once

#include "src/device/cpu/kernels/simd.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

// One round of the transpose by butterflies: exchanges the bit `step` of the row with that of the lane.
template <int step>
LONGHAND_INLINE void exchange(uvec (&x)[lanes]) {
  uvec low{}, high{};
  for (int i = 0; i < lanes; ++i) {
    low[i] = i & step ? lanes + i - step : i;
    high[i] = i & step ? lanes + i : i + step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    if (i & step) continue;
    uvec a = x[i], b = x[i + step];
    x[i] = __builtin_shuffle(a, b, low);
    x[i + step] = __builtin_shuffle(a, b, high);
  }
}

LONGHAND_INLINE void transpose(uvec (&x)[lanes]) {
  exchange<1>(x);
  exchange<2>(x);
  if constexpr (lanes > 4) exchange<4>(x);
  if constexpr (lanes > 8) exchange<8>(x);
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
