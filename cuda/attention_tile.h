// The products of the general attention path: 64 x 64 tiles in fp32 on 128 threads.
//
// A tile's rows are queries. Its columns are keys (forward, d_q, d_k, d_value) or distances (d_r): with
// distance + key = query + memory the two trade places. One operand is then indexed by the column ("straight"), the
// other by row - column ("skewed", 127 rows for a tile): the shift of relative attention costs nothing but an index.
//
// Thread t owns rows y + 16 i (i < 4, y = t / 8) and columns x + 8 j (j < 8, x = t % 8): a warp reads 4 rows of one
// operand and 8 of the other, and row - column takes 14 values. Operands come through shared memory 16 channels at a
// time, rows 20 floats apart, so that 8 neighbouring rows lie in different banks. 256 multiply-adds of a thread take 16
// (straight) or 22 (skewed) 16-byte reads.
#pragma once

#include "cuda/attention.h"

namespace longhand::LONGHAND_GPU {

constexpr int tile_threads = 128, tile_rows = 64, skewed_rows = 128;
constexpr int step_channels = 16, step_stride = 20;  // of operands whose product runs over channels
constexpr int chunk_channels = 64;                   // of operands whose product runs over rows
constexpr int pair_stride = 72;                      // of a tile of pairs

/// What a block holds of its tile; 47 KiB.
struct TileShared {
  float stage[(3 * tile_rows + skewed_rows) * step_stride];  // the operands of a step, or a chunk of 64 rows
  float pairs[tile_rows * pair_stride];
  uint32_t visible[tile_rows][2], kept[tile_rows][2], other_segment[tile_rows][2];  // a bit a column
  float2 segment[tile_rows];
  float2 own_sums[tile_threads];  // a thread's running sums, where registers are short
  float lse[tile_rows], delta[tile_rows];
};

enum class Columns { keys, distances };

/// Where a tile stands: queries [query, query + 64) of a head, columns [column, column + 64), both may pass the end.
template <Columns columns>
struct TilePlace {
  int lane, head, query, column;

  /// What operand "skewed" holds for index e = row - column + 63: a distance, or a key.
  __device__ __forceinline__ int skewed(const Attention& a, int e) const { return query + a.memory - column - 63 + e; }
  /// The first of the 64 keys that a row meets: in column order, or against it when the columns are distances.
  __device__ __forceinline__ int first_key(const Attention& a, int row) const {
    return columns == Columns::keys ? column : query + row + a.memory - column - 63;
  }
};

/// Channels [channel, channel + 4) of a row, zeros beyond its width or without a row.
template <class T>
__device__ __forceinline__ float4 load_four(const T* row, int channel, const Attention& a) {
  float4 x = make_float4(0, 0, 0, 0);
  if (row == nullptr || channel >= a.width) return x;
  row += channel;
  if (a.aligned) {
    if constexpr (sizeof(T) == 4) {
      return *reinterpret_cast<const float4*>(row);
    } else {
      uint2 words = *reinterpret_cast<const uint2*>(row);
      return make_float4(__uint_as_float(words.x << 16), __uint_as_float(words.x & 0xffff0000u),
                         __uint_as_float(words.y << 16), __uint_as_float(words.y & 0xffff0000u));
    }
  }
  int rest = a.width - channel;
  x.x = to_float(row[0]);
  if (rest > 1) x.y = to_float(row[1]);
  if (rest > 2) x.z = to_float(row[2]);
  if (rest > 3) x.w = to_float(row[3]);
  return x;
}

template <class T>
__device__ __forceinline__ void store_four(T* row, int channel, const Attention& a, float4 x) {
  if (channel >= a.width) return;
  row += channel;
  if (a.aligned) {
    if constexpr (sizeof(T) == 4)
      *reinterpret_cast<float4*>(row) = x;
    else
      *reinterpret_cast<uint2*>(row) = make_uint2(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w));
    return;
  }
  int rest = a.width - channel;
  row[0] = from_float<T>(x.x);
  if (rest > 1) row[1] = from_float<T>(x.y);
  if (rest > 2) row[2] = from_float<T>(x.z);
  if (rest > 3) row[3] = from_float<T>(x.w);
}

__device__ __forceinline__ float4 add(float4 a, float4 b) {
  return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
__device__ __forceinline__ float dot(float4 a, float4 b, float sum) {
  return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}
__device__ __forceinline__ float4& four(float* at) { return *reinterpret_cast<float4*>(at); }
__device__ __forceinline__ const float4& four(const float* at) { return *reinterpret_cast<const float4*>(at); }

/// The rows of one head as a tile's operands see them; null where there is no such row.
template <class T>
struct RowsAt {
  const HeadRows& rows;
  int lane, head, first, count;
  __device__ __forceinline__ const T* operator()(int row) const {
    int at = first + row;
    return at >= 0 && at < count ? rows.row<const T>(at, lane, head) : nullptr;
  }
};
/// The rows of r, which the clamp repeats.
template <class T>
struct DistancesAt {
  const Attention& a;
  int head, first;
  __device__ __forceinline__ const T* operator()(int row) const {
    int at = first + row;
    return at >= 0 ? a.r.row<const T>(a.r_row(at), 0, head) : nullptr;
  }
};

/// Copies `channels` from `channel` on of `rows` rows to shared memory, rows `stride` apart.
template <int rows, int channels, int stride, class Rows>
__device__ __forceinline__ void stage_rows(float* to, const Rows& from, int channel, const Attention& a) {
  constexpr int pieces = channels / 4;
#pragma unroll 4
  for (int item = threadIdx.x; item < rows * pieces; item += tile_threads) {
    int row = item / pieces, piece = item % pieces * 4;
    four(to + row * stride + piece) = load_four(from(row), channel + piece, a);
  }
}

/// The same for queries, plus a bias: (q + bias), zeros beyond the last query.
template <int channels, int stride, class T>
__device__ __forceinline__ void stage_queries(float* to, const RowsAt<T>& from, const T* bias, int channel,
                                              const Attention& a) {
  constexpr int pieces = channels / 4;
#pragma unroll 2
  for (int item = threadIdx.x; item < tile_rows * pieces; item += tile_threads) {
    int row = item / pieces, piece = item % pieces * 4;
    const T* at = from(row);
    four(to + row * stride + piece) =
        add(load_four(at, channel + piece, a), load_four(at ? bias : nullptr, channel + piece, a));
  }
}

/// sum[i][j] += the products of row y + 16 i of `left` and row x + 8 j of `right` over a step's channels.
__device__ __forceinline__ void multiply_straight(float (&sum)[4][8], const float* left, const float* right) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll 1
  for (int c = 0; c < step_channels; c += 4) {
    float4 l[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) l[i] = four(left + (y + 16 * i) * step_stride + c);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float4 r = four(right + (x + 8 * j) * step_stride + c);
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i][j] = dot(l[i], r, sum[i][j]);
    }
  }
}

/// sum[i][j] += the products of row y + 16 i of `left` and row (row - column + 63) of `right`.
__device__ __forceinline__ void multiply_skewed(float (&sum)[4][8], const float* left, const float* right) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
  right += (y - x + 63) * step_stride;
#pragma unroll 1
  for (int c = 0; c < step_channels; c += 4) {
    float4 l[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) l[i] = four(left + (y + 16 * i) * step_stride + c);
#pragma unroll
    for (int skew = -7; skew <= 6; ++skew) {
      float4 r = four(right + 8 * skew * step_stride + c);
#pragma unroll
      for (int i = 0; i < 4; ++i)
        if (2 * i - skew >= 0 && 2 * i - skew < 8) sum[i][2 * i - skew] = dot(l[i], r, sum[i][2 * i - skew]);
    }
  }
}

/// Content plus position, unscaled: sum = (q + u) . k + (q + v) . r for the tile's pairs.
template <class T, Columns columns>
__device__ __forceinline__ void score_tile(float (&sum)[4][8], TileShared& s, const Attention& a,
                                           const TilePlace<columns>& at) {
  constexpr bool keys = columns == Columns::keys;
  float *with_u = s.stage, *with_v = with_u + tile_rows * step_stride, *straight = with_v + tile_rows * step_stride,
        *skewed = straight + tile_rows * step_stride;
  const T *u = a.u.row<const T>(0, 0, at.head), *v = a.v.row<const T>(0, 0, at.head);
  RowsAt<T> queries{a.q, at.lane, at.head, at.query, a.queries};
  RowsAt<T> key_rows{a.k, at.lane, at.head, keys ? at.column : at.skewed(a, 0), a.keys};
  DistancesAt<T> distances{a, at.head, keys ? at.skewed(a, 0) : at.column};
  for (int channel = 0; channel < a.width; channel += step_channels) {
    __syncthreads();
    stage_queries<step_channels, step_stride>(with_u, queries, u, channel, a);
    stage_queries<step_channels, step_stride>(with_v, queries, v, channel, a);
    if constexpr (keys) {
      stage_rows<tile_rows, step_channels, step_stride>(straight, key_rows, channel, a);
      stage_rows<skewed_rows, step_channels, step_stride>(skewed, distances, channel, a);
    } else {
      stage_rows<tile_rows, step_channels, step_stride>(straight, distances, channel, a);
      stage_rows<skewed_rows, step_channels, step_stride>(skewed, key_rows, channel, a);
    }
    __syncthreads();
    multiply_straight(sum, keys ? with_u : with_v, straight);
    multiply_skewed(sum, keys ? with_v : with_u, skewed);
  }
}

/// sum = d_out . value for the tile's pairs.
template <class T, Columns columns>
__device__ __forceinline__ void probability_gradient_tile(float (&sum)[4][8], TileShared& s, const Attention& a,
                                                          const TilePlace<columns>& at) {
  constexpr bool keys = columns == Columns::keys;
  float *left = s.stage, *right = left + tile_rows * step_stride;
  RowsAt<T> queries{a.d_out, at.lane, at.head, at.query, a.queries};
  RowsAt<T> values{a.value, at.lane, at.head, keys ? at.column : at.skewed(a, 0), a.keys};
  for (int channel = 0; channel < a.width; channel += step_channels) {
    __syncthreads();
    stage_rows<tile_rows, step_channels, step_stride>(left, queries, channel, a);
    stage_rows<keys ? tile_rows : skewed_rows, step_channels, step_stride>(right, values, channel, a);
    __syncthreads();
    if constexpr (keys)
      multiply_straight(sum, left, right);
    else
      multiply_skewed(sum, left, right);
  }
}

/// sum[i][e] += over b of pairs[y + 16 i][b] rows[b][channel e], channel e = 4 x + 32 (e / 4) + e % 4 of the chunk.
__device__ __forceinline__ void multiply_rows(float (&sum)[4][8], const float* pairs, const float* rows) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll 1
  for (int b = 0; b < tile_rows; b += 4) {
    float p[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four(p[i]) = four(pairs + (y + 16 * i) * pair_stride + b);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float r[8];
      four(r) = four(rows + (b + k) * chunk_channels + 4 * x);
      four(r + 4) = four(rows + (b + k) * chunk_channels + 4 * x + 32);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int e = 0; e < 8; ++e) sum[i][e] = fmaf(p[i][k], r[e], sum[i][e]);
    }
  }
}

/// sum[j][e] += over b of pairs[b][4 y + j] rows[b][channel e]: the transposed product.
__device__ __forceinline__ void multiply_columns(float (&sum)[4][8], const float* pairs, const float* rows) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll 2
  for (int b = 0; b < tile_rows; ++b) {
    float p[4], r[8];
    four(p) = four(pairs + b * pair_stride + 4 * y);
    four(r) = four(rows + b * chunk_channels + 4 * x);
    four(r + 4) = four(rows + b * chunk_channels + 4 * x + 32);
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 8; ++e) sum[j][e] = fmaf(p[j], r[e], sum[j][e]);
  }
}

/// Writes rows `first + 4 y + j` (transposed) or `first + y + 16 i` of a product's chunk.
template <bool transposed, class Rows>
__device__ __forceinline__ void store_chunk(const float (&sum)[4][8], const Rows& row_at, int channel,
                                            const Attention& a) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    auto* row = row_at(transposed ? 4 * y + i : y + 16 * i);
    if (row == nullptr) continue;
#pragma unroll
    for (int e = 0; e < 8; e += 4)
      store_four(row, channel + 4 * x + 8 * e, a, make_float4(sum[i][e], sum[i][e + 1], sum[i][e + 2], sum[i][e + 3]));
  }
}

/// Fills the tile's masks, a thread half a row; says whether any pair is left. A barrier on return.
template <Columns columns>
__device__ __forceinline__ bool mask_tile(TileShared& s, const Attention& a, const TilePlace<columns>& at) {
  int row = threadIdx.x / 2, half = threadIdx.x % 2, query = at.query + row;
  uint32_t visible = 0, other = 0, kept = 0;
  if (query < a.queries) {
    int first = at.first_key(a, row) + 32 * half;
    visible = a.visible_keys(at.lane, at.head, query, first);
    if (visible && a.segments()) other = a.other_segment_keys(at.lane, query, first);
    if (visible && a.dropout.on) kept = a.kept_by_dropout(at.lane, at.head, query, first, visible);
  }
  s.visible[row][half] = visible, s.other_segment[row][half] = other, s.kept[row][half] = kept;
  return __syncthreads_or(visible != 0) != 0;
}

/// Bit of column x + 8 j in a row's mask.
template <Columns columns>
__device__ __forceinline__ bool column_bit(const uint32_t (&mask)[2], int j) {
  int column = threadIdx.x % 8 + 8 * j;
  if (columns == Columns::distances) column = 63 - column;
  return mask[column / 32] >> (column % 32) & 1;
}

}  // namespace longhand::LONGHAND_GPU
