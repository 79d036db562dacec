// Relative attention on tensor cores, backward: what its three kernels share.
//
//   P = exp(a - lse),  dP = (dO value^T) Z,  dA = sigma P (dP - delta),  delta_i = dO_i . out_i
//   d_value = (P Z)^T dO,   dk = dA^T (q + u),   dq_i = sum_j dA_ij (k_j + r[i + M - j]) + segments
//   d_r[d] = sum_{lane, i} dA_{i, i + M - d} (q_i + v),   d_u = sum_{ij} dA_ij k_j,   d_v = sum_d (sum_i dA_{i, d})
//   r[d]
//
// Every gradient is a sum along another axis, so each has a kernel of its own that owns the results of 64 keys, 64
// queries or 64 distances and computes P and dA again: all sums run in a fixed order and no partial result of the large
// gradients passes through memory. In units of width a pair (2 for one product):
//
//   keys       q k 2, (q + v) r 2.5, dO value 2, d_value 2, dk 2                10.5
//   queries    q k 2, (q + v) r 2,   dO value 2, dq of keys 2, of distances 2   10
//   distances  q k 2.5, (q + v) r 2, dO value 2.5, d_r 2                         9
//
// 29.5 against the 16 that are needed. The choices that would save units cost more in bytes: d_r as partial sums of the
// query tiles is 32 KB of fp32 written and read a 64 x 64 tile at width 64, about 2,700 cycles of an SM's share of an
// A100's memory, where the 7 units saved are 900 cycles of mma. Beside q, k, value, out and their gradients, nothing
// but d_r's partials (splits x keys x heads x width floats), one row of d_u, d_v and the segments' gradients a block
// move. Limit: mma and the shared memory that feeds it.
#pragma once

#include "cuda/attention_mma.h"

namespace longhand::LONGHAND_GPU {

/// Bytes of shared memory that none of the three kernels exceeds at width 128.
constexpr size_t wide_backward_shared = 160 << 10;

struct MmaBackward {
  Attention a;
  const float* deltas;          // [lanes, heads, queries]
  const float2* segment_terms;  // likewise, null without segments
};

/// From the products behind the scores and dO value^T: x becomes P Z, d becomes dA. Zero where a key is not seen.
/// For the 32 `sides` places from side `first_side` on.
template <int sides, bool reversed>
__device__ __forceinline__ void score_gradients(float (*x)[4], float (*d)[4], const PairMask<reversed>& mask,
                                                const MmaBackward& b, const Place& p, int first_side = 0) {
  const Attention& a = b.a;
  if (b.segment_terms) mask.template add_segments<sides>(x, a, b.segment_terms, p, first_side);
  PlaceBits<reversed, sides> kept(mask.kept, p, first_side), seen(mask.seen, p, first_side);
  if (a.dropout.on) mask.drop(d, kept, a);
  bool all_seen = __all_sync(all_lanes, mask.seen == 0xffffffffu);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int query = mask.row + 8 * half;
    int64_t at = a.lane_head(mask.lane, mask.head) * a.queries + query;
    float lse = query < a.queries ? a.lse[at] * log2_of_e : 0.0f, delta = query < a.queries ? b.deltas[at] : 0.0f;
#pragma unroll
    for (int j = 0; j < 4 * sides; ++j)
#pragma unroll
      for (int i = 2 * half; i < 2 * half + 2; ++i) {
        x[j][i] = all_seen || seen.test(j, i) ? exp2f(x[j][i] * (a.sigma * log2_of_e) - lse) : 0.0f;
        d[j][i] = a.sigma * x[j][i] * (d[j][i] - delta);
      }
  }
  if (a.dropout.on) mask.drop(x, kept, a);
}

/// Two matrices of 64 queries by 64 places, rounded to bf16, in the four warps' skew buffers once these are read: a
/// warp writes its 16 rows of both, all warps read columns.
struct PairTiles {
  bf16_t* base;

  template <int sides>
  __device__ __forceinline__ void write(int which, const float (*x)[4], const Place& p, int first_side = 0) const {
    bf16_t* rows = base + (2 * p.warp + which) * 1024;
#pragma unroll
    for (int j = 0; j < 4 * sides; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        *reinterpret_cast<uint32_t*>(rows + Tile<64>::at(p.g + 8 * half, 4 * first_side + j) + 2 * p.t) =
            pack_bf16(x[j][2 * half], x[j][2 * half + 1]);
  }
  /// Columns [16 warp, 16 warp + 16) of rows [16 step, 16 step + 16), transposed: a left operand.
  __device__ __forceinline__ void left(uint32_t (&a)[4], int which, int step, const Place& p) const {
    int row = p.lane % 8 + p.lane / 16 * 8, piece = 2 * p.warp + p.lane / 8 % 2;
    simt::ldmatrix_x4_trans(a, base + (2 * step + which) * 1024 + Tile<64>::at(row, piece));
  }
};

/// sum [16, width] += the transpose of a matrix's columns of this warp [64, 16] times the tile; `sums` += its columns.
template <int width>
__device__ __forceinline__ void multiply_columns(float (&sum)[width / 8][4], const PairTiles& pairs, int which,
                                                 const bf16_t* tile, float (&sums)[2], const Place& p) {
#pragma unroll(width == 128 ? 1 : 4)
  for (int step = 0; step < 4; ++step) {
    uint32_t left[4];
    pairs.left(left, which, step, p);
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[i % 2] += __uint_as_float(left[i] << 16) + __uint_as_float(left[i] & 0xffff0000u);
#pragma unroll
    for (int j = 0; j < width / 16; ++j) {
      uint32_t b[4];
      Tile<width>::right(b, tile, step, j, p.lane);
      simt::mma_bf16_16816(sum[2 * j], left, b[0], b[1]);
      simt::mma_bf16_16816(sum[2 * j + 1], left, b[2], b[3]);
    }
  }
}

/// u and v as floats in shared memory.
template <int width>
__device__ __forceinline__ void load_biases(float* u, float* v, const Attention& a, int head) {
  for (int x = threadIdx.x; x < width; x += mma_threads) {
    u[x] = x < a.width ? to_float(a.u.row<const bf16_t>(0, 0, head)[x]) : 0.0f;
    v[x] = x < a.width ? to_float(a.v.row<const bf16_t>(0, 0, head)[x]) : 0.0f;
  }
}

/// The warp's rows of a tile of q: left operands q + taken, while the tile itself becomes q + left_there.
template <int width>
__device__ __forceinline__ void split_queries(Fragments<width>& f, bf16_t* tile, const float* taken,
                                              const float* left_there, const Place& p) {
  left_fragments<width>(f, tile, p);
  __syncwarp();
#pragma unroll
  for (int step = 0; step < width / 16; ++step)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      int column = 16 * step + i / 2 * 8 + 2 * p.t;
      *reinterpret_cast<uint32_t*>(tile + Tile<width>::at(p.row(i % 2), 2 * step + i / 2) + 2 * p.t) =
          add_pair(f[step][i], *reinterpret_cast<const float2*>(left_there + column));
      f[step][i] = add_pair(f[step][i], *reinterpret_cast<const float2*>(taken + column));
    }
}

/// to [width] = the sum over the tile's 64 rows of weight[row] times the row; `weights` are the warps' sums, row
/// 16 warp + g + 8 half in the lanes of t = 0..3, and pass through `shared` (64 floats).
template <int width>
__device__ __forceinline__ void weighted_rows(float* to, float (&weights)[2], float* shared, const bf16_t* tile,
                                              int used, const Place& p) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    weights[half] += __shfl_xor_sync(all_lanes, weights[half], 1);
    weights[half] += __shfl_xor_sync(all_lanes, weights[half], 2);
    if (p.t == 0) shared[p.row(half)] = weights[half];
  }
  __syncthreads();
  for (int x = threadIdx.x; x < used; x += mma_threads) {
    float sum = 0;
    for (int row = 0; row < 64; ++row) sum += shared[row] * to_float(tile[Tile<width>::at(row, x / 8) + x % 8]);
    to[x] = sum;
  }
}

}  // namespace longhand::LONGHAND_GPU
