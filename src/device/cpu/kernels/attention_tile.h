// The pieces of attention that all its kernels share: a small matrix product with free strides, packing, a tile of
// queries with the keys each may see, its scores, dropout.
#pragma once

#include "src/device/cpu/kernels/attention.h"
#include "src/device/cpu/kernels/simd.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

constexpr int64_t most_rows = 128;  // of a tile of queries

LONGHAND_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
LONGHAND_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
LONGHAND_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
/// A row of scores has `guard` columns on both sides, as many as a tile has rows at most. Its length is an odd number
/// of cache lines: columns of a tile then spread over the cache's sets.
LONGHAND_INLINE int64_t row_length(int64_t columns, int64_t guard) { return (columns + 2 * guard + 15) / 32 * 32 + 16; }
template <int N>
struct Count {
  static constexpr int value = N;
};

/// c[m][n] (+)= sum_k a[m * a_row + k * a_step] * b[k * b_row + n], n < columns (a multiple of `lanes`), c's rows
/// c_row apart; every stride may be negative. The sum runs over k in order, whatever the blocking.
struct Product {
  int64_t rows, columns, depth;
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  bool add;
};
void multiply(const Product&);

/// out[row] = scale * (rows[row] + bias), fp32, zero from width to padded. bias may be null.
void pack_rows(const AttentionHead&, float* out, HeadRows rows, int64_t first, int64_t count, const float* bias,
               float scale);
/// Keys of tiles [first_tile, last_tile) in panels [width, 32], one after another; keys that do not exist are zero.
void pack_key_panels(const AttentionHead&, float* out, HeadRows rows, int64_t first_tile, int64_t last_tile);
/// The same keys as rows.
void pack_key_rows(const AttentionHead&, float* out, HeadRows rows, int64_t first_tile, int64_t last_tile);
/// The transpose of both: row i of `rows` = in[i].
void unpack_rows(const AttentionHead&, HeadRows rows, int64_t first, int64_t count, const float* in);

void pack_position(const AttentionPosition&);
/// out [2, padded]: the smallest and the largest entry of each column of `count` rows.
void row_bounds(float* out, const float* rows, int64_t count, int64_t padded);

/// Queries [first, first + rows) and the interval of keys that each sees.
struct QueryTile {
  int64_t first, rows;
  int64_t low[most_rows], high[most_rows];
  int64_t lowest, highest;
};
void set_tile(const AttentionHead&, QueryTile&, int64_t first, int64_t rows);
/// The smallest key that a query of [first, last) sees.
int64_t lowest_key(const AttentionHead&, int64_t first, int64_t last);

/// A stretch of key columns: column c is key start + c.
struct Stretch {
  int64_t start, columns;
  bool carried;  // the position terms of the first columns are already there, from the stretch before
  bool carry;    // the stretch that follows is the neighbour: leave it its position terms
};

/// What a tile's products read: fp32, rows of `padded`. Panels and rows of keys begin with tile first_tile.
struct Packed {
  int64_t first_tile;
  const float *key_panels, *key_rows, *value_panels, *value_rows;
  const float *qu, *qv;  // sigma (q + u), sigma (q + v)
};
LONGHAND_INLINE int64_t packed_row(const AttentionHead& h, const Packed& p, int64_t key) {
  return key + h.shift - p.first_tile * attention_page;
}

/// Scores of the tile over a stretch at s (row i, column c at s[i * length + c]; guard columns on both sides). What no
/// query sees is left undefined.
void scores(const AttentionHead&, const QueryTile&, const Packed&, const Stretch&, float* s, int64_t length);
/// out (+)= a b^T over the keys of a stretch that some query sees; a's rows are the tile's queries.
void times_keys(const AttentionHead&, const QueryTile&, const Packed&, const Stretch&, const float* a,
                const float* panels, float* out, int64_t length, bool add);
/// Adds the segment term to columns [low, high] of one row. y: sigma (q + w) . S[0 and 1].
void add_segments(const AttentionHead&, float* s, int64_t start, int64_t low, int64_t high, int64_t query,
                  const float* y);
/// y[2] = sigma (q + w) . S[e], qw = sigma (q + w).
void segment_scores(const AttentionHead&, const float* qw, float* y);

/// Dropout factors of keys [key, key + n) for one query, somewhere in z, which has room for n + 4 + 4 lanes floats.
const float* dropout_run(const HeadDropout&, float* z, int64_t query, int64_t key, int64_t n);
/// Dropout factors of the listed keys, key = base + list[t]; z and list are read and written up to n rounded up to 16.
void dropout_list(const HeadDropout&, float* z, int64_t query, int64_t base, const int32_t* list, int64_t n);

LONGHAND_INLINE ivec iota() {
  ivec x;
  for (int i = 0; i < lanes; ++i) x[i] = i;
  return x;
}
/// All ones in the lanes whose column lies in [low, high].
LONGHAND_INLINE ivec inside(int64_t column, int64_t low, int64_t high) {
  ivec x = iota() + static_cast<int32_t>(column);
  return (x >= static_cast<int32_t>(low)) & (x <= static_cast<int32_t>(high));
}
LONGHAND_INLINE float dot(const float* a, const float* b, int64_t padded) {
  vec total = splat(0);
  for (int64_t c = 0; c < padded; c += lanes) total = total + load(a + c) * load(b + c);
  return sum(total);
}

/// Interleaves two vectors: [a0 b0 a1 b1 ...], lower and upper half.
template <bool upper>
LONGHAND_INLINE vec interleave(vec a, vec b) {
  constexpr int o = upper ? lanes / 2 : 0;
#if defined(__AVX512F__)
  return __builtin_shufflevector(a, b, o, 16 + o, o + 1, 17 + o, o + 2, 18 + o, o + 3, 19 + o, o + 4, 20 + o, o + 5,
                                 21 + o, o + 6, 22 + o, o + 7, 23 + o);
#elif defined(__AVX2__)
  return __builtin_shufflevector(a, b, o, 8 + o, o + 1, 9 + o, o + 2, 10 + o, o + 3, 11 + o);
#else
  return __builtin_shufflevector(a, b, o, 4 + o, o + 1, 5 + o);
#endif
}
/// Rows to columns in place.
LONGHAND_INLINE void transpose(vec x[lanes]) {
#pragma GCC unroll 4
  for (int round = 1; round < lanes; round *= 2) {
    vec y[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) {
      y[2 * i] = interleave<false>(x[i], x[i + lanes / 2]);
      y[2 * i + 1] = interleave<true>(x[i], x[i + lanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) x[i] = y[i];
  }
}
/// Lane i of the result is the sum of x[i]'s lanes, each in the same fixed order.
LONGHAND_INLINE vec sums(vec x[lanes]) {
#pragma GCC unroll 4
  for (int count = lanes / 2; count > 0; count /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < count; ++i) x[i] = interleave<false>(x[i], x[i + count]) + interleave<true>(x[i], x[i + count]);
  }
  return x[0];
}

}  // namespace attention
}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
