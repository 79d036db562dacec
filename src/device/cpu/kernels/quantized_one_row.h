// One row of activations times integer weights by whole vectors, where the processor has vectors of 512 bits.
#pragma once

#include "src/device/cpu/kernels/quantized_words.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

#if defined(__AVX512F__)
/// Words of a (0 to 15) and of b (16 to 31).
template <int... index>
LONGHAND_INLINE ivec pick(ivec a, ivec b) {
  return __builtin_shuffle(a, b, ivec{index...});
}
LONGHAND_INLINE ivec lower_halves(ivec a, ivec b) {
  return pick<0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23>(a, b);
}
LONGHAND_INLINE ivec upper_halves(ivec a, ivec b) {
  return pick<8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31>(a, b);
}
/// Quarters a0 + a1, a2 + a3, b0 + b1, b2 + b3.
LONGHAND_INLINE ivec add_quarters(ivec a, ivec b) {
  return pick<0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27>(a, b) +
         pick<4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31>(a, b);
}
/// Within every quarter: words a0 + a2, b0 + b2, a1 + a3, b1 + b3.
LONGHAND_INLINE ivec add_pairs(ivec a, ivec b) {
  return pick<0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29>(a, b) +
         pick<2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31>(a, b);
}
/// Within every quarter: words a0 + a2, a1 + a3, b0 + b2, b1 + b3.
LONGHAND_INLINE ivec add_words(ivec a, ivec b) {
  return pick<0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29>(a, b) +
         pick<2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31>(a, b);
}

/// x[i]: eight lanes of row i, then eight of row i + 8. Lane r of the result is the sum of row r's.
LONGHAND_INLINE ivec sums_of_halves(const ivec (&x)[8]) {
  ivec q[4];  // four lanes each of rows i, i + 8, i + 4, i + 12
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) q[i] = add_quarters(x[i], x[i + 4]);
  ivec sums = add_words(add_pairs(q[0], q[1]), add_pairs(q[2], q[3]));
  return pick<0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15>(sums, sums);
}

/// Lane r of the result is the sum of the lanes of x[r]; with `split` first[r] is that of the lower eight lanes and the
/// result that of the upper ones.
template <bool split>
LONGHAND_INLINE ivec sums_of(const ivec (&x)[lanes], ivec& first) {
  ivec lower[8], upper[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    lower[i] = lower_halves(x[i], x[i + 8]), upper[i] = upper_halves(x[i], x[i + 8]);
    if (!split) upper[i] += lower[i];
  }
  if (split) first = sums_of_halves(lower);
  return sums_of_halves(upper);
}

// One row by one vector of columns. The row's words lie by whole vectors (pack_row), so weights are multiplied as they
// stand, not transposed: a lane sums every 16th word of a block, and lanes add at the block's end. Memory is read in
// one of two orders, which end in the same bits (all_rows_in_step).
constexpr int few_rows = 4;

/// How one row's sums lie: of `vectors` vectors of words, each a block, or with `split` two blocks half a vector each.
template <bool four, bool grouped>
struct RowSums {
  static constexpr int steps = four ? 4 : 2, vectors = grouped ? 1 : four ? 2 : 4;
  static constexpr int64_t bytes = vectors * vector_bytes;
  static constexpr bool split = four && grouped;

  const QuantizedRows& rows;
  const float* scales;
  vec total = splat(0);
  int64_t block = 0;

  [[gnu::always_inline]] void add(const ivec (&sums)[lanes]) {
    ivec first, last = sums_of<split>(sums, first);
    if (split) add_block(first);
    add_block(last);
  }
  [[gnu::always_inline]] void add_block(ivec sum) {
    total = block_sum<1, grouped>(rows, block, 0, sum + splat_int(rows.starts[block]), total, scales);
    ++block;
  }
};

/// All rows of weights a block at a time, each one's bytes from `bytes_ahead` on called into the second-level cache.
template <bool four, bool grouped>
void one_row_in_step(const QuantizedShape& s, const QuantizedRows& rows, const uint8_t* from, int columns,
                     const float* scales, float* sums) {
  RowSums<four, grouped> result{rows, scales};
  constexpr int steps = result.steps, vectors = result.vectors;
  const uint8_t* row[lanes];
  find_rows(row, from, s.row_bytes(), columns);
  const uvec_unaligned* a = reinterpret_cast<const uvec_unaligned*>(rows.words);
  for (int64_t at = 0; at < s.row_bytes(); at += result.bytes, a += vectors * steps) {
    int64_t ahead = at + bytes_ahead;
    if (ahead >= s.row_bytes()) ahead += (lanes - 1) * s.row_bytes();
    ivec c[lanes] = {};
#pragma GCC unroll 16
    for (int r = 0; r < lanes; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) {
        __builtin_prefetch(row[r] + ahead + v * vector_bytes, 0, 2);
        uvec x = *reinterpret_cast<const bytes_unaligned*>(row[r] + at + v * vector_bytes);
#pragma GCC unroll 4
        for (int t = 0; t < steps; ++t) c[r] = dot(c[r], pair_of<four>(x, t), (ivec)a[v * steps + t]);
      }
    result.add(c);
  }
  store(sums, result.total);
}

/// A stretch of four rows of weights at a time, the next four's called into the cache.
template <bool four, bool grouped>
void one_row_by_fours(const QuantizedShape& s, const QuantizedRows& rows, const uint8_t* from, int columns,
                      const float* scales, float* sums) {
  RowSums<four, grouped> result{rows, scales};
  constexpr int steps = result.steps, vectors = result.vectors, most = 16;
  const uint8_t* row[lanes];
  find_rows(row, from, s.row_bytes(), columns);
  const uvec_unaligned* a = reinterpret_cast<const uvec_unaligned*>(rows.words);
  alignas(64) ivec c[most][lanes];
  for (int64_t at = 0; at < s.row_bytes(); at += most * result.bytes) {
    int64_t rest = (s.row_bytes() - at) / result.bytes, count = rest < most ? rest : most;
    for (int first = 0; first < lanes; first += few_rows) {
      const uvec_unaligned* words = a;
      for (int64_t i = 0; i < count; ++i) {
        ivec sum[few_rows] = {};
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) {
          int64_t place = at + i * result.bytes + v * vector_bytes;
          uvec x[few_rows];
#pragma GCC unroll 4
          for (int j = 0; j < few_rows; ++j) {
            __builtin_prefetch(row[first + j] + place + few_rows * s.row_bytes());
            x[j] = *reinterpret_cast<const bytes_unaligned*>(row[first + j] + place);
          }
#pragma GCC unroll 4
          for (int t = 0; t < steps; ++t, ++words)
#pragma GCC unroll 4
            for (int j = 0; j < few_rows; ++j) sum[j] = dot(sum[j], pair_of<four>(x[j], t), (ivec)*words);
        }
#pragma GCC unroll 4
        for (int j = 0; j < few_rows; ++j) c[i][first + j] = sum[j];
      }
    }
    a += count * vectors * steps;
    for (int64_t i = 0; i < count; ++i) result.add(c[i]);
  }
  store(sums, result.total);
}

/// Rows that lie a multiple of 4 KiB apart share a set of the first-level cache and drive each other out when all are
/// read in step. Otherwise short blocks gain by it: their sums stay in registers.
LONGHAND_INLINE bool all_rows_in_step(const QuantizedShape& s) { return s.grouped && s.row_bytes() % 4096 != 0; }
template <bool four, bool grouped>
LONGHAND_INLINE auto one_row_tile_for(const QuantizedShape& s) {
  return all_rows_in_step(s) ? one_row_in_step<four, grouped> : one_row_by_fours<four, grouped>;
}
#endif

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
