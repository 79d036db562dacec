// Words of integer weights in registers, shared by the tiles of the quantised product.
#pragma once

#include "src/device/cpu/kernels/matmul_epilogue.h"
#include "src/device/cpu/kernels/quantized_pack.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

typedef int16_t svec __attribute__((vector_size(lanes * 4)));
typedef uint32_t bytes_unaligned __attribute__((vector_size(lanes * 4), aligned(1), may_alias));

#if defined(__AVX512F__)
constexpr int tile_rows = 14;
#elif defined(__AVX2__)
constexpr int tile_rows = 6;
#else
constexpr int tile_rows = 4;
#endif
constexpr int64_t scales_ahead = 512;
constexpr int64_t row_bytes_ahead = 512, bytes_ahead = 8192;  // of what is read: of a row, of interleaved rows
constexpr int64_t chunk_k = 2048;  // of a packed panel of weights: it stays in the second-level cache

/// sum + the products of pairs. This file's 512-bit build asks for VNNI (quantized.cpp of the launcher sees to it).
LONGHAND_INLINE ivec dot(ivec sum, uvec weights, ivec activations) {
#if defined(__AVX512F__)
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(activations));
  return sum;
#elif defined(__AVX2__)
  return sum + (ivec)_mm256_madd_epi16((__m256i)weights, (__m256i)activations);
#else
  return sum + (ivec)_mm_madd_epi16((__m128i)weights, (__m128i)activations);
#endif
}

/// Pair t of a word; integers of four bits come out as they are stored, 8 too large.
template <bool four>
LONGHAND_INLINE uvec pair_of(uvec word, int t) {
  if constexpr (four) return (word >> (4 * t)) & 0x000f000fu;
  svec halves = (svec)word;
  return (uvec)(t == 0 ? (halves << 8) >> 8 : halves >> 8);
}

/// A block ends: its integer sums join the others.
template <int R, bool grouped>
LONGHAND_INLINE vec block_sum(const QuantizedRows& rows, int64_t block, int r, ivec sum, vec before, vec of_weights) {
  vec scale = splat(rows.scales[block * R + r]);
  if constexpr (grouped) scale = of_weights * scale;
  return before + __builtin_convertvector(sum, vec) * scale;
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
