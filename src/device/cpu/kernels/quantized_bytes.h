// Many rows of 8-bit activations times interleaved 8-bit weights, which are multiplied where they lie.
//
// vpdpbusd takes an unsigned factor: weights enter 128 too large, and a panel's sums begin with what that adds
// (QuantizedRows::starts). A step is four k: two vectors of weights, a word of each row. Half as many instructions as
// with 16-bit activations, and nothing is packed; weights of a panel of columns stay in the second-level cache.
#pragma once

#include "src/device/cpu/kernels/quantized_words.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

#if defined(__AVX512F__)
LONGHAND_INLINE ivec dot_bytes(ivec sum, uvec weights, ivec activations) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(activations));
  return sum;
}

/// R rows by two vectors of columns, words of weights at left and right, over blocks [first, last) of k.
template <int R>
void bytes_tile(const QuantizedShape& s, const QuantizedRows& rows, const uint8_t* left, const uint8_t* right,
                int64_t first, int64_t last, float* sums) {
  constexpr int64_t block_words = 256 / 4;
  const int32_t* a = reinterpret_cast<const int32_t*>(rows.words) + first * block_words * R;
  for (int64_t block = first; block < last; ++block) {
    ivec c[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) c[r][0] = c[r][1] = splat_int(rows.starts[block * R + r]);
    int64_t begin = block * block_words, end = begin + block_words, words = s.row_bytes() / 4;
    for (int64_t i = begin; i < (end < words ? end : words); ++i, a += R) {
      __builtin_prefetch(a + 8 * R);
      __builtin_prefetch(left + (i + 8) * vector_bytes);
      __builtin_prefetch(right + (i + 8) * vector_bytes);
      uvec x = *reinterpret_cast<const bytes_unaligned*>(left + i * vector_bytes) ^ 0x80808080u;
      uvec y = *reinterpret_cast<const bytes_unaligned*>(right + i * vector_bytes) ^ 0x80808080u;
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        ivec row = splat_int(a[r]);
        c[r][0] = dot_bytes(c[r][0], x, row), c[r][1] = dot_bytes(c[r][1], y, row);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < 2; ++v) {
        float* sum = sums + r * tile_columns + v * lanes;
        store(sum, block_sum<R, false>(rows, block, r, c[r][v], load(sum), vec{}));
      }
  }
}

using BytesTile = void (*)(const QuantizedShape&, const QuantizedRows&, const uint8_t*, const uint8_t*, int64_t,
                           int64_t, float*);
template <int R = tile_rows>
LONGHAND_INLINE BytesTile bytes_tile_for(int rows) {
  if constexpr (R == 1) {
    return bytes_tile<1>;
  } else {
    return rows == R ? bytes_tile<R> : bytes_tile_for<R - 1>(rows);
  }
}
#endif

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
