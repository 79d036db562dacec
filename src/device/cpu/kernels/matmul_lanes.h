// Few rows times columns of fp16 or bf16 that are read once, where they stand.
//
// Vectors run along k: lane l of a column's sum takes the elements l, l + lanes, ... of a block in turn, and lanes add
// in order at the block's end. Panels of many rows lie by lanes too (MatmulStrip), so their sums run in the same order.
// A weight is read, widened and multiplied; nothing moves between lanes, and no more than four columns are read at a
// time. Where these lie interleaved they are one stretch of memory, which the processor's own prefetching follows
// best; otherwise four, about a quarter slower.
#pragma once

#include "src/device/cpu/kernels/fp16.h"
#include "src/device/cpu/kernels/matmul.h"
#include "src/device/cpu/kernels/matmul_epilogue.h"
#include "src/device/cpu/kernels/transpose.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

LONGHAND_INLINE int64_t lane_steps(int64_t k) { return (k + lanes - 1) / lanes; }

/// Rows of a: vector v of row r at to[(v * width + r) * lanes], zeros behind k and from row `rows` on.
template <class T>
void pack_lanes(float* to, const MatmulStrip& s, const T* from) {
  for (int64_t p = 0; p < s.k; p += lanes)
    for (int r = 0; r < s.width; ++r, to += lanes) {
      int64_t n = r >= s.rows ? 0 : s.k - p < lanes ? s.k - p : lanes;
      if (n == lanes && !s.k_major) {
        store(to, load(from + r * s.stride + p));
        continue;
      }
      store(to, splat(0));
      for (int64_t i = 0; i < n; ++i)
        to[i] = to_float(s.k_major ? from[(p + i) * s.stride + r] : from[r * s.stride + p + i]);
    }
}

constexpr int64_t elements_ahead = 4096;  // of interleaved columns

/// Whether columns are read through all of k, block after block, before the next ones. With one or two rows, which take
/// as long as memory, they are: from front to back where they lie interleaved. With more a block of a stays in the
/// cache meanwhile.
template <int R>
constexpr bool through_k = R <= 2;

/// R rows by the C columns of `b` from `first` on; lanes' sums of column j at [row][first + j]. What comes next is
/// called into the cache: the next columns, or what follows of interleaved ones, behind whose block the next columns'
/// stands.
template <int R, int C, class T, bool interleaved>
LONGHAND_INLINE void lanes_tile(const float* a, const MatmulStrip& b, int first, vec (*sums)[lanes]) {
  const T* column[C];
  for (int j = 0; j < C; ++j)
    column[j] = static_cast<const T*>(b.from) + b.at(first + j < b.rows ? first + j : b.rows - 1, 0);
  const int64_t k = b.k, apart = interleaved ? lanes_together : 1;
  vec c[R][C] = {};
  auto add = [&](const vec(&right)[C]) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      vec left = load(a + r * lanes);
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) c[r][j] = c[r][j] + right[j] * left;
    }
    a += R * lanes;
  };
  int64_t p = 0;
  for (; p + lanes_run <= k; p += lanes_run) {
    int64_t at = p * apart, ahead = interleaved ? at + elements_ahead : p + C * b.stride;
    if (interleaved && !through_k<R> && ahead >= k * apart) ahead += (b.stride - k) * apart;
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) __builtin_prefetch(column[j] + ahead);
#pragma GCC unroll 8
    for (int part = 0; part < lanes_run; part += lanes) {
      vec right[C];
#pragma GCC unroll 4
      for (int j = 0; j < C; ++j) right[j] = load(column[j] + at + part);
      add(right);
    }
  }
  for (; p < k; p += lanes) {
    vec right[C];
    for (int j = 0; j < C; ++j) right[j] = k - p < lanes ? load_part(column[j] + p, k - p) : load(column[j] + p);
    add(right);
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < C; ++j) sums[r][first + j] = c[r][j];
}

/// A panel of R rows by one vector of columns: sums of block j at [j][r][column], blocks `block_sums` apart.
/// sums_of_lanes: [blocks][R][lanes].
template <int R, class T, bool interleaved>
void lanes_columns(const MatmulFew& few, int64_t panel, int64_t column, int columns, vec* sums_of_lanes, float* sums,
                   int64_t block_sums) {
  constexpr int together = R * 4 <= 16 ? 4 : 2;
  vec(*c)[R][lanes] = reinterpret_cast<vec(*)[R][lanes]>(sums_of_lanes);
  auto multiply = [&](int first, int64_t block) __attribute__((always_inline)) {
    lanes_tile<R, together, T, interleaved>(reinterpret_cast<const float*>(few.panel(block, panel)),
                                            few.strip(column, columns, block), first, c[block]);
  };
  if (through_k<R>)
    for (int first = 0; first < columns; first += together)
      for (int64_t block = 0; block < few.blocks; ++block) multiply(first, block);
  else
    for (int64_t block = 0; block < few.blocks; ++block)
      for (int first = 0; first < columns; first += together) multiply(first, block);
  for (int64_t block = 0; block < few.blocks; ++block)
    for (int r = 0; r < R; ++r) {
      uvec x[lanes];
      for (int i = 0; i < lanes; ++i) x[i] = i < columns ? (uvec)c[block][r][i] : uvec{};
      transpose(x);
      vec sum = (vec)x[0];
      for (int i = 1; i < lanes; ++i) sum = sum + (vec)x[i];
      store(sums + block * block_sums + r * tile_columns, sum);
    }
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
