// Relative attention on tensor cores: what the forward and the backward kernels share.
//
// A block of four warps works on tiles of 64 queries by 64 keys (or 64 distances). A warp owns 16 of the queries; its
// products are mma.m16n8k16, whose accumulators put rows g and g + 8, columns 2 t and 2 t + 1 of every eight into
// thread 4 g + t. Query a and key c of a tile whose first query and first key are D apart have the distance D + a - c,
// so the products with rows of R (query by distance) reach the scores (query by key) along the skew: through a buffer
// of 16 x 64 floats that belongs to one warp alone.
//
// Kernels are instantiated for widths of 32, 64 and 128; a smaller width is filled up with zeros in shared memory.
#pragma once

#include "cuda/attention.h"
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

constexpr int mma_threads = 128;
constexpr float log2_of_e = 1.4426950408889634f;

/// A thread's place: warp of the block, lane of the warp, and its rows g, g + 8 and columns 2 t, 2 t + 1.
struct Place {
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  __device__ __forceinline__ int row(int half) const { return 16 * warp + g + 8 * half; }  // in the block's 64

  /// The same place, by a shuffle that the compiler cannot see through: what follows from it is computed anew, not kept
  /// in registers through a loop. On sm_120 alone, where ptxas runs out of them.
  __device__ __forceinline__ void renew() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
    lane = __shfl_sync(all_lanes, lane, lane), g = lane / 4, t = lane % 4;
#endif
  }
};

/// 64 rows of `width` bf16 in shared memory, in pieces of 16 bytes. The pieces of a row are permuted so that eight
/// neighbouring rows put one column of pieces into eight different groups of banks: ldmatrix is free of conflicts.
template <int width>
struct Tile {
  static constexpr int pieces = width / 8, elements = 64 * width, bytes = elements * 2;
  static constexpr int period = pieces % 8 == 0 ? 8 : pieces % 4 == 0 ? 4 : 2;

  static __device__ __forceinline__ int at(int row, int piece) {
    return row * width + (piece ^ (row / (8 / period) % period)) * 8;
  }

  /// Starts to copy 64 rows; row n is source(n), null for a row of zeros. `any` is a readable address.
  template <class Source>
  static __device__ __forceinline__ void load(bf16_t* tile, int used, const bf16_t* any, const Source& source) {
    int piece = threadIdx.x % pieces;
    bool inside = piece * 8 < used;
#pragma unroll(width == 128 ? 1 : 2)
    for (int i = 0; i < 64 * pieces / mma_threads; ++i) {
      int row = threadIdx.x / pieces + i * (mma_threads / pieces);
      const bf16_t* from = inside ? source(row) : nullptr;
      simt::cp_async_16_zfill(tile + at(row, piece), from ? from + piece * 8 : any, from ? 16 : 0);
    }
  }
  /// Rows [first, first + 64) of a tensor with `count` positions; zeros beyond its ends.
  static __device__ __forceinline__ void load_rows(bf16_t* tile, const Attention& a, const HeadRows& rows, int first,
                                                   int count, int lane, int head) {
    const bf16_t* origin = rows.row<const bf16_t>(0, lane, head);
    load(tile, a.width, origin, [&](int row) {
      int position = first + row;
      return position >= 0 && position < count ? origin + position * rows.position_stride : nullptr;
    });
  }
  /// Rows of R for the distances [first, first + 64); those that no pair has repeat the nearest.
  static __device__ __forceinline__ void load_distances(bf16_t* tile, const Attention& a, int first, int head) {
    const bf16_t* origin = a.r.row<const bf16_t>(0, 0, head);
    load(tile, a.width, origin,
         [&](int row) { return origin + a.r_row(first + row > 0 ? first + row : 0) * a.r.position_stride; });
  }

  /// Rows [row, row + 16) as the left operand, columns [16 step, 16 step + 16).
  static __device__ __forceinline__ void left(uint32_t (&a)[4], const bf16_t* tile, int row, int step, int lane) {
    simt::ldmatrix_x4(a, tile + at(row + lane % 16, 2 * step + lane / 16));
  }
  /// Rows [row, row + 16) transposed into the right operand: b[0..1] for the first eight of them, b[2..3] for the rest.
  static __device__ __forceinline__ void right_rows(uint32_t (&b)[4], const bf16_t* tile, int row, int step, int lane) {
    simt::ldmatrix_x4(b, tile + at(row + lane % 8 + lane / 16 * 8, 2 * step + lane / 8 % 2));
  }
  /// Columns [16 j, 16 j + 16) of rows [16 step, 16 step + 16) as the right operand.
  static __device__ __forceinline__ void right(uint32_t (&b)[4], const bf16_t* tile, int step, int j, int lane) {
    simt::ldmatrix_x4_trans(b, tile + at(16 * step + lane % 16, 2 * j + lane / 16));
  }
};

template <int width>
using Fragments = uint32_t[width / 16][4];  // 16 rows as the left operand

template <int width>
__device__ __forceinline__ void store_fragments(bf16_t* tile, const Fragments<width>& f, const Place& p) {
#pragma unroll
  for (int step = 0; step < width / 16; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      *reinterpret_cast<uint32_t*>(tile + Tile<width>::at(p.row(i % 2), 2 * step + i / 2) + 2 * p.t) = f[step][i];
}
template <int width>
__device__ __forceinline__ void left_fragments(Fragments<width>& f, const bf16_t* tile, const Place& p) {
#pragma unroll
  for (int step = 0; step < width / 16; ++step) Tile<width>::left(f[step], tile, 16 * p.warp, step, p.lane);
}

/// sum [16, 64] += left [16, width] times the transpose of the tile's 64 rows.
template <int width>
__device__ __forceinline__ void multiply_rows(float (&sum)[8][4], const Fragments<width>& left, const bf16_t* tile,
                                              const Place& p) {
#pragma unroll
  for (int step = 0; step < width / 16; ++step)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t b[4];
      Tile<width>::right_rows(b, tile, 16 * j, step, p.lane);
      simt::mma_bf16_16816(sum[2 * j], left[step], b[0], b[1]);
      simt::mma_bf16_16816(sum[2 * j + 1], left[step], b[2], b[3]);
    }
}
/// The same, the left operand being the warp's rows of another tile; only for 32 `sides` rows of the tile.
template <int width, int sides = 2>
__device__ __forceinline__ void multiply_rows(float (*sum)[4], const bf16_t* left_tile, const bf16_t* tile,
                                              const Place& p, int first_side = 0) {
#pragma unroll(width == 128 ? 1 : width / 16)
  for (int step = 0; step < width / 16; ++step) {
    uint32_t left[4];
    Tile<width>::left(left, left_tile, 16 * p.warp, step, p.lane);
#pragma unroll
    for (int j = 0; j < 2 * sides; ++j) {
      uint32_t b[4];
      Tile<width>::right_rows(b, tile, 32 * first_side + 16 * j, step, p.lane);
      simt::mma_bf16_16816(sum[2 * j], left, b[0], b[1]);
      simt::mma_bf16_16816(sum[2 * j + 1], left, b[2], b[3]);
    }
  }
}
/// sum [16, width] += left [16, 64] times the tile.
template <int width>
__device__ __forceinline__ void multiply(float (&sum)[width / 8][4], const uint32_t (&left)[4][4], const bf16_t* tile,
                                         const Place& p) {
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int j = 0; j < width / 16; ++j) {
      uint32_t b[4];
      Tile<width>::right(b, tile, step, j, p.lane);
      simt::mma_bf16_16816(sum[2 * j], left[step], b[0], b[1]);
      simt::mma_bf16_16816(sum[2 * j + 1], left[step], b[2], b[3]);
    }
}

/// Accumulators [16, 64], rounded, as a left operand: a thread holds the same rows and columns in both.
__device__ __forceinline__ void round_left(uint32_t (&left)[4][4], const float (&x)[8][4]) {
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i)
      left[step][i] = pack_bf16(x[2 * step + i / 2][2 * (i % 2)], x[2 * step + i / 2][2 * (i % 2) + 1]);
}

/// Two neighbours of a row, as floats, plus a bias, rounded.
__device__ __forceinline__ uint32_t add_pair(uint32_t pair, float2 bias) {
  return pack_bf16(__uint_as_float(pair << 16) + bias.x, __uint_as_float(pair & 0xffff0000u) + bias.y);
}

/// q + bias of the warp's 16 queries from `first` on, formed in fp32 and rounded once. Without a bias: the rows alone.
template <int width>
__device__ __forceinline__ void row_fragments(Fragments<width>& f, const Attention& a, const HeadRows& rows, int first,
                                              int lane, int head, const bf16_t* bias, const Place& p) {
#pragma unroll
  for (int step = 0; step < width / 16; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int query = first + p.row(i % 2), column = 16 * step + 2 * p.t + 8 * (i / 2);
      f[step][i] = 0;
      if (query >= a.queries || column >= a.width) continue;
      uint32_t pair = *reinterpret_cast<const uint32_t*>(rows.row<const bf16_t>(query, lane, head) + column);
      f[step][i] = bias ? add_pair(pair, {to_float(bias[column]), to_float(bias[column + 1])}) : pair;
    }
}

/// A warp's buffer of 16 x 64 values between the coordinates (query, distance) and (query, key). A value of query a (of
/// the block's 64) at place x on one axis belongs to place (a - x) mod 64 on the other; those with x > a lie in one
/// tile of the other axis, the rest in the tile beside it. Floats are read back as accumulators, bf16 as a left
/// operand.
template <class T>
struct Skew {
  T* buffer;

  static constexpr int elements = 16 * 64;
  /// The place of a row and column; the groups of eight columns of a row are permuted against conflicts of banks.
  static __device__ __forceinline__ int at(int row, int column) { return row * 64 + (column ^ (row % 8 * 8)); }

  /// Writes the values of one side of the diagonal, x > a or x <= a.
  __device__ __forceinline__ void write(const float (&x)[8][4], bool above, const Place& p) const {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int row = p.g + i / 2 * 8, place = 16 * p.warp + row - 2 * p.t - i % 2;  // of column 0 of eight
      T* to = buffer + row * 64 + (place & 7);
#pragma unroll
      for (int j = 0; j < 8; ++j)
        if ((j > place >> 3) == above) to[((((place >> 3) - j) & 7) ^ p.g) * 8] = from_float<T>(x[j][i]);
    }
  }
  __device__ __forceinline__ void read(float (&x)[8][4], const Place& p) const {
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float2 pair = *reinterpret_cast<const float2*>(buffer + at(p.g + 8 * half, 8 * j + 2 * p.t));
        x[j][2 * half] = pair.x, x[j][2 * half + 1] = pair.y;
      }
  }
  __device__ __forceinline__ void left(uint32_t (&a)[4][4], const Place& p) const {
#pragma unroll
    for (int step = 0; step < 4; ++step) Tile<64>::left(a[step], buffer, 0, step, p.lane);
  }
};

/// The products of the warp's 16 rows with those 80 rows of a window of 128 (two tiles, `low` and `high`) that meet
/// them on the skew: x [16, 64] with x[a, c] = left[a] . window[a + 64 - c].
template <int width>
__device__ __forceinline__ void multiply_band(float (&x)[8][4], const Fragments<width>& left, const bf16_t* low,
                                              const bf16_t* high, const Skew<float>& skew, const Place& p) {
#pragma unroll 1
  for (int m = 0; m < 5; ++m) {
    int first = 16 * (p.warp + m);
    const bf16_t* tile = first < 64 ? low : high;
    float sum[2][4] = {};
#pragma unroll
    for (int step = 0; step < width / 16; ++step) {
      uint32_t b[4];
      Tile<width>::right_rows(b, tile, first % 64, step, p.lane);
      simt::mma_bf16_16816(sum[0], left[step], b[0], b[1]);
      simt::mma_bf16_16816(sum[1], left[step], b[2], b[3]);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        int row = p.g + i / 2 * 8, c = row + 64 - 16 * m - 8 * n - 2 * p.t - i % 2;
        if (c >= 0 && c < 64) skew.buffer[Skew<float>::at(row, c)] = sum[n][i];
      }
  }
  __syncwarp();
  skew.read(x, p);
  __syncwarp();
}

/// One bit for each of the warp's 16 x 64 places, as a thread needs them for its accumulators. Lane l of the warp finds
/// the 32 bits of row l / 2, half l % 2. `reversed`: the bits run against the columns.
template <bool reversed, int sides = 2>
struct PlaceBits {
  uint32_t word[2][sides];

  __device__ __forceinline__ PlaceBits(uint32_t own, const Place& p, int first_side = 0) {
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int side = 0; side < sides; ++side) {
        uint32_t bits = __shfl_sync(all_lanes, own, 2 * (p.g + 8 * half) + first_side + side);
        word[half][side] = reversed ? bits << 2 * p.t : bits >> 2 * p.t;
      }
  }
  /// Of accumulator i of columns 8 j ... 8 j + 7.
  __device__ __forceinline__ bool test(int j, int i) const {
    int bit = 8 * (j % 4) + i % 2;
    return word[i / 2][j / 4] >> (reversed ? 31 - bit : bit) & 1;
  }
};

/// The masks of the warp's 16 queries by 64 keys, a word of each kind in the lane of a row's half. They are found
/// before the products, when many registers are free, and spread when they are needed.
template <bool reversed>
struct PairMask {
  int lane, head, row;                 // query of accumulator row g
  uint32_t seen, kept = 0, other = 0;  // visible and selected; of these kept by dropout; in another segment

  /// `first_query` is the warp's; `first` is the key of the lowest bit in this lane's word.
  __device__ __forceinline__ PairMask(const Attention& a, int lane, int head, int first_query, int first,
                                      const Place& p)
      : lane(lane), head(head), row(first_query + p.g), seen(0) {
    int query = first_query + p.lane / 2;
    if (query < a.queries) seen = a.visible_keys(lane, head, query, first);
    if (a.dropout.on && seen) kept = a.kept_by_dropout(lane, head, query, first, seen);
    if (a.segments() && seen) other = a.other_segment_keys(lane, query, first);
  }
  /// Adds the segments' terms of the warp's rows to the products behind the scores.
  template <int sides>
  __device__ __forceinline__ void add_segments(float (*x)[4], const Attention& a, const float2* terms, const Place& p,
                                               int first_side) const {
    PlaceBits<reversed, sides> bits(other, p, first_side);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int query = row + 8 * half;
      float2 term = query < a.queries ? terms[a.lane_head(lane, head) * a.queries + query] : make_float2(0, 0);
#pragma unroll
      for (int j = 0; j < 4 * sides; ++j)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) x[j][i] += bits.test(j, i) ? term.y : term.x;
    }
  }
  /// x times the dropout factors.
  template <int sides>
  static __device__ __forceinline__ void drop(float (*x)[4], const PlaceBits<reversed, sides>& kept,
                                              const Attention& a) {
#pragma unroll
    for (int j = 0; j < 4 * sides; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) x[j][i] = kept.test(j, i) ? x[j][i] * a.dropout.scale : 0.0f;
  }
};

/// Does any query of the tile see a key of [first, first + 64)? Every warp finds out by itself, all the same.
__device__ __forceinline__ bool tile_seen(const Attention& a, int lane, int head, int tile, int first) {
  int begin = tile * 64, end = begin + 64 < a.queries ? begin + 64 : a.queries;
  if (first > a.last_visible(end - 1) || first + 63 < begin + a.memory - a.max_distance) return false;
  if (!a.topk && !a.document_start) return true;
  uint32_t seen = 0;
#pragma unroll 1
  for (int n = static_cast<int>(threadIdx.x % 32); n < 128 && begin + n / 2 < end; n += 32)
    seen |= a.visible_keys(lane, head, begin + n / 2, first + n % 2 * 32);
  return __any_sync(all_lanes, seen != 0);
}

/// Key tiles: tile n holds the keys from 64 n - key_shift on. Pages keep their places; otherwise the last query of a
/// tile of queries sees exactly the last key of a tile of keys.
__host__ __device__ inline int key_shift(const Attention& a) {
  return a.paged ? a.page_shift : (64 - a.memory % 64) % 64;
}
__host__ __device__ inline int key_tiles(const Attention& a) { return (a.keys + key_shift(a) + 63) / 64; }

/// work(std::integral_constant<int, width>) with the least instantiated width that holds `width`.
template <class Work>
void for_width(int width, const Work& work) {
  if (width <= 32)
    work(std::integral_constant<int, 32>{});
  else if (width <= 64)
    work(std::integral_constant<int, 64>{});
  else
    work(std::integral_constant<int, 128>{});
}

}  // namespace longhand::LONGHAND_GPU
