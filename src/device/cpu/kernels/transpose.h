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

#if defined(__AVX512F__)
// By the instructions that stay within quarters, which cost less than free permutations: words, then pairs of words of
// neighbouring rows come together, then quarters go to their rows.
template <int... index>
LONGHAND_INLINE uvec pick(uvec a, uvec b) {
  return __builtin_shuffle(a, b, uvec{index...});
}
LONGHAND_INLINE void transpose_words(uvec& a, uvec& b) {
  uvec low = pick<0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29>(a, b);
  b = pick<2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31>(a, b);
  a = low;
}
LONGHAND_INLINE void transpose_pairs(uvec& a, uvec& b) {
  uvec low = pick<0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29>(a, b);
  b = pick<2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31>(a, b);
  a = low;
}
LONGHAND_INLINE void transpose_quarters(uvec& a, uvec& b) {
  uvec even = pick<0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27>(a, b);
  b = pick<4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31>(a, b);
  a = even;
}

LONGHAND_INLINE void transpose(uvec (&x)[lanes]) {
#pragma GCC unroll 4
  for (int i = 0; i < lanes; i += 4) {
    transpose_words(x[i], x[i + 1]), transpose_words(x[i + 2], x[i + 3]);
    transpose_pairs(x[i], x[i + 2]), transpose_pairs(x[i + 1], x[i + 3]);
  }
  // Columns 4 q + (0, 2, 1, 3) of four rows lie in quarter q of x[i], ..., x[i + 3].
  uvec y[lanes];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    uvec a = x[i], b = x[4 + i], c = x[8 + i], d = x[12 + i];
    transpose_quarters(a, b), transpose_quarters(c, d);
    transpose_quarters(a, c), transpose_quarters(b, d);
    int column = i == 1 ? 2 : i == 2 ? 1 : i;
    y[column] = a, y[4 + column] = b, y[8 + column] = c, y[12 + column] = d;
  }
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) x[i] = y[i];
}
#else
LONGHAND_INLINE void transpose(uvec (&x)[lanes]) {
  exchange<1>(x);
  exchange<2>(x);
  if constexpr (lanes > 4) exchange<4>(x);
}
#endif

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
