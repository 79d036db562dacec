// Relative attention on tensor cores, forward.
//
//   a_ij = ((q_i + u) . k_j + (q_i + v) . r[i + M - j] + segment_ij) / sqrt(width);   out = dropout(softmax(a)) value
//
// A block takes 64 queries of one lane and head and walks over the key tiles that they see, its q + u in
// registers and its q + v in shared memory as left operands, the softmax online. The position term: with a key tile
// comes one new 64 x 64 block of products of q + v with 64 distances. Its values above the diagonal complete this
// tile's scores, the rest belong to the next tile (Skew); so the term costs 2 units of width a pair, as q k^T and P V
// do. k and r of the next tile are copied while softmax and P V run, value while the scores are computed (cp.async).
//
// Operations: 6 width a visible pair (in whole tiles). Bytes: q and out once; k, value and r once for each tile of
// queries, mostly out of the L2 cache; nothing of size queries x keys. Limit: mma and the shared memory that feeds it,
// 52 ldmatrix.x4 and 96 mma a warp and tile at width 64. Shared memory: 4 tiles + 16 KB: 32, 48, 80 KB for widths of
// 32, 64, 128, so 2 blocks an SM on sm_80 at 64 and 128 (registers), 3 at 32.
//
// Top-k by keys needs the scores before the softmax: the same kernel then writes them to scratch, a bounded number of
// tiles of queries at a time, and attention_select_keys goes on from there.
#include <algorithm>

#include "cuda/attention_mma.h"

namespace longhand::LONGHAND_GPU {
namespace {

/// out and the online softmax of a warp's rows. The largest score and the sum are in units of log 2.
template <int width>
struct OnlineSoftmax {
  float out[width / 8][4] = {}, largest[2] = {-INFINITY, -INFINITY}, sum[2] = {};

  /// Takes a tile's scores, -infinity where they are not seen, and leaves exp2(score - largest).
  __device__ __forceinline__ void add(float (&x)[8][4]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = -INFINITY;
#pragma unroll
      for (int j = 0; j < 8; ++j) top = fmaxf(top, fmaxf(x[j][2 * half], x[j][2 * half + 1]));
      top = fmaxf(top, __shfl_xor_sync(all_lanes, top, 1));
      top = fmaxf(top, __shfl_xor_sync(all_lanes, top, 2));
      top = fmaxf(top, largest[half]);
      float base = top == -INFINITY ? 0.0f : top, shrink = exp2f(largest[half] - base), part = 0;
      largest[half] = top;
#pragma unroll
      for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) x[j][i] = exp2f(x[j][i] - base), part += x[j][i];
      part += __shfl_xor_sync(all_lanes, part, 1);
      part += __shfl_xor_sync(all_lanes, part, 2);
      sum[half] = sum[half] * shrink + part;
#pragma unroll
      for (int n = 0; n < width / 8; ++n) out[n][2 * half] *= shrink, out[n][2 * half + 1] *= shrink;
    }
  }

  __device__ __forceinline__ void store(const Attention& a, int lane, int head, int tile, const Place& p) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      int query = tile * 64 + p.row(half);
      if (query >= a.queries) continue;
      float scale = 1.0f / sum[half];
      bf16_t* to = a.out.row<bf16_t>(query, lane, head);
#pragma unroll
      for (int n = 0; n < width / 8; ++n)
        if (8 * n < a.width)
          *reinterpret_cast<uint32_t*>(to + 8 * n + 2 * p.t) =
              pack_bf16(out[n][2 * half] * scale, out[n][2 * half + 1] * scale);
      if (p.t == 0) a.lse_row(lane, head)[query] = (largest[half] + log2f(sum[half])) / log2_of_e;
    }
  }
};

/// Scores from the products: segments, masks and scale; -infinity where a key is not seen.
__device__ __forceinline__ void finish_scores(float (&x)[8][4], const PairMask<false>& mask, const Attention& a,
                                              const float2* segment_terms, float scale, const Place& p) {
  if (segment_terms) mask.add_segments<2>(x, a, segment_terms, p, 0);
  bool all_seen = __all_sync(all_lanes, mask.seen == 0xffffffffu);
  PlaceBits<false> seen(mask.seen, p);
#pragma unroll
  for (int j = 0; j < 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) x[j][i] = all_seen || seen.test(j, i) ? x[j][i] * scale : -INFINITY;
}

/// The scores of the warp's rows to rows of `keys` floats.
__device__ __forceinline__ void write_scores(const float (&x)[8][4], float* rows, const Attention& a, int tile,
                                             int first, const Place& p) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (tile * 64 + p.row(i / 2) >= a.queries) continue;
    float* row = rows + static_cast<int64_t>(p.row(i / 2)) * a.keys;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      int key = first + 8 * j + 2 * p.t + i % 2;
      if (key >= 0 && key < a.keys) row[key] = x[j][i];
    }
  }
}

/// Block n takes query tile `first_tile` + n, numbered (lane * heads + head) * tiles + tile; the tiles of a head that
/// see most come first. With `scores` the tile's scores go there instead.
template <int width, bool scores_wanted>
__global__ void __launch_bounds__(mma_threads, 2)
    forward_kernel(const Attention a, const float2* segment_terms, float* scores, int64_t first_tile) {
  SIMT_DYN_SHARED(bf16_t, shared);
  bf16_t *const k_tile = shared, *const r_tile = k_tile + Tile<width>::elements;
  bf16_t *const value_tile = r_tile + Tile<width>::elements, *const position = value_tile + Tile<width>::elements;
  Place p;
  Skew<float> skew{reinterpret_cast<float*>(position + Tile<width>::elements) + p.warp * Skew<float>::elements};

  int64_t number = first_tile + blockIdx.x, pair = number / a.tiles();
  int tile = static_cast<int>(number % a.tiles()), lane = static_cast<int>(pair / a.heads);
  int head = static_cast<int>(pair % a.heads), shift = key_shift(a);
  if (!scores_wanted) tile = a.tiles() - 1 - tile;
  int first_query = tile * 64, last_query = first_query + 64 < a.queries ? first_query + 63 : a.queries - 1;
  int end = (a.last_visible(last_query) + shift) / 64 + 1;
  auto next = [&](int n) {
    while (n < end && !tile_seen(a, lane, head, tile, 64 * n - shift)) ++n;
    return n;
  };
  auto load_k_r = [&](int n) {  // and the distances above those of tile n
    Tile<width>::load_rows(k_tile, a, a.k, 64 * n - shift, a.keys, lane, head);
    Tile<width>::load_distances(r_tile, a, first_query + a.memory - (64 * n - shift) - 64, head);
  };

  Fragments<width> content;
  row_fragments<width>(content, a, a.q, first_query, lane, head, a.v.row<const bf16_t>(0, 0, head), p);
  store_fragments<width>(position, content, p);
  row_fragments<width>(content, a, a.q, first_query, lane, head, a.u.row<const bf16_t>(0, 0, head), p);
  __syncwarp();
  OnlineSoftmax<width> softmax;

  bool connected = false;  // the buffer holds what the tile before has left for this one
  for (int n = next(0), following; n < end; n = following) {
    int first_key = 64 * n - shift, apart = first_query + a.memory - first_key;
    float x[8][4] = {};
    if (!connected) {
      Tile<width>::load_distances(r_tile, a, apart, head);
      simt::cp_async_commit();
      simt::cp_async_wait<0>();
      __syncthreads();
      multiply_rows<width>(x, position, r_tile, p);
      skew.write(x, false, p);
      __syncthreads();
      load_k_r(n);
      simt::cp_async_commit();
    }
    if (!scores_wanted) Tile<width>::load_rows(value_tile, a, a.value, first_key, a.keys, lane, head);
    simt::cp_async_commit();
    simt::cp_async_wait<1>();
    __syncthreads();

    PairMask<false> mask(a, lane, head, first_query + 16 * p.warp, first_key + 32 * (p.lane % 2), p);
    float beyond[8][4] = {};
    multiply_rows<width>(beyond, position, r_tile, p);
    skew.write(beyond, true, p);
    __syncwarp();
    skew.read(x, p);
    __syncwarp();
    skew.write(beyond, false, p);
    multiply_rows<width>(x, content, k_tile, p);
    following = next(n + 1);
    connected = following == n + 1;
    __syncthreads();
    if (connected && following < end) load_k_r(following);
    simt::cp_async_commit();

    finish_scores(x, mask, a, segment_terms, scores_wanted ? a.sigma : a.sigma * log2_of_e, p);
    if constexpr (scores_wanted) {
      write_scores(x, scores + static_cast<int64_t>(blockIdx.x) * 64 * a.keys, a, tile, first_key, p);
      continue;
    }
    softmax.add(x);
    if (a.dropout.on) mask.drop(x, PlaceBits<false>(mask.kept, p), a);
    uint32_t probability[4][4];
    round_left(probability, x);
    simt::cp_async_wait<1>();
    __syncthreads();
    multiply<width>(softmax.out, probability, value_tile, p);
    __syncthreads();
  }
  if (!scores_wanted) softmax.store(a, lane, head, tile, p);
}

template <int width>
constexpr size_t forward_shared = 4 * Tile<width>::bytes + 4 * Skew<float>::elements * 4;

}  // namespace

bool attention_mma_takes(const Attention& a) { return a.half && a.aligned && a.width <= 128; }

void GpuDevice::attention_forward_mma(const Attention& a) {
  const float2* terms = attention_segment_terms(a);
  int64_t tiles = static_cast<int64_t>(a.lanes) * a.heads * a.tiles();
  Shape shape{a.queries, a.lanes, a.heads, a.width};
  bool by_keys = a.topk > 0 && !a.paged;
  Attention dense = a;
  float* scores = nullptr;
  int64_t at_once = tiles;
  if (by_keys) {
    constexpr int64_t scratch_floats = 64 << 20;  // 256 MB at most, and at least one tile
    dense.topk = 0;
    at_once = std::clamp<int64_t>(scratch_floats / (64 * static_cast<int64_t>(a.keys)), 1, tiles);
    scores = scratch<float>(at_once * 64 * a.keys);
  }
  for (int64_t first = 0; first < tiles; first += at_once) {
    int64_t count = std::min(at_once, tiles - first);
    for_width(a.width, [&](auto width) {
      launch(
          {"attention_forward", dim3(static_cast<unsigned>(count)), dim3(mma_threads), forward_shared<width()>, shape},
          by_keys ? forward_kernel<width(), true> : forward_kernel<width(), false>, dense, terms, scores, first);
    });
    if (by_keys) attention_select_keys(a, scores, first, count);
  }
}

}  // namespace longhand::LONGHAND_GPU
