// Relative attention on tensor cores, backward: d_r, d_v. Equations and counts: attention_mma_backward.h.
//
// A block owns 64 distances of one head, their r in shared memory, and walks over the lanes of its split and the query
// tiles that reach them. In the coordinates (query, distance) the position term is a plain product; q k^T and
// dO value^T come in the coordinates (query, key), where 64 queries at 64 distances meet 127 keys and a warp's 16 meet
// 79: a window of two key tiles that moves on by one with each query tile, its products brought over the skew.
// dA of all 64 queries then gives d_r of the warp's own 16 distances. Distances beyond the last row of r add to that
// row when the splits' partials are summed. Shared memory at widths of 32, 64, 128: 49, 81, 145 KB.
#include <algorithm>

#include "cuda/attention_mma_backward.h"

namespace longhand::LONGHAND_GPU {
namespace {

template <int width>
struct DistancesShared {
  static constexpr int tile = Tile<width>::elements;
  bf16_t *r, *q, *d_out, *k, *value;  // q, k and value: two tiles each
  float *skew, *u, *v, *sums;

  __device__ explicit DistancesShared(bf16_t* at)
      : r(at),
        q(r + tile),
        d_out(q + 2 * tile),
        k(d_out + tile),
        value(k + 2 * tile),
        skew(reinterpret_cast<float*>(value + 2 * tile)),
        u(skew + 4 * Skew<float>::elements),
        v(u + width),
        sums(u) {}  // after the last tile
  static constexpr size_t bytes =
      8 * Tile<width>::bytes + 4 * Skew<float>::elements * 4 + (2 * width > 64 ? 2 * width : 64) * 4;
};

/// Does a query of the tile see a key at a distance of [first, first + 64)? Every warp finds out by itself.
__device__ __forceinline__ bool distances_seen(const Attention& a, int lane, int head, int tile, int first) {
  int begin = tile * 64, end = begin + 64 < a.queries ? begin + 64 : a.queries;
  if (first > a.max_distance || a.last_visible(end - 1) < first) return false;
  if (!a.topk && !a.document_start) return true;
  uint32_t seen = 0;
  for (int query = begin + static_cast<int>(threadIdx.x % 32); query < end; query += 32) {
    int nearest = a.last_visible(query) - first;  // the key at distance `first`
    if (nearest < 0) continue;
    seen |= a.visible_keys(lane, head, query, nearest - 31) | a.visible_keys(lane, head, query, nearest - 63);
  }
  return __any_sync(all_lanes, seen != 0);
}

/// The sums over the queries to rows of partials, [64 blocks, heads, width] from this block's first distance on.
template <int width>
__device__ __forceinline__ void store_distances(float* rows, const float (&d_r)[width / 8][4], const Attention& a,
                                                const Place& p) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int n = 0; n < width / 8; ++n)
      if (8 * n < a.width)
        *reinterpret_cast<float2*>(rows + static_cast<int64_t>(p.row(half)) * a.heads * a.width + 8 * n + 2 * p.t) =
            make_float2(d_r[n][2 * half], d_r[n][2 * half + 1]);
}

/// Block (split * heads + head) * blocks + n: distances [64 n, 64 n + 64), lanes of `split`. Partials: d_r [splits,
/// 64 blocks, heads, width], d_v [splits, blocks, heads, width].
template <int width>
__global__ void __launch_bounds__(mma_threads, width == 128 ? 1 : 2)
    distances_kernel(const MmaBackward b, int blocks, int splits, float* d_r_partials, float* d_v_partials) {
  SIMT_DYN_SHARED(bf16_t, shared);
  const Attention& a = b.a;
  constexpr int elements = Tile<width>::elements;
  DistancesShared<width> s(shared);
  Place p;
  Skew<float> skew{s.skew + p.warp * Skew<float>::elements};
  PairTiles pairs{reinterpret_cast<bf16_t*>(s.skew)};

  int n = static_cast<int>(blockIdx.x % blocks), head = static_cast<int>(blockIdx.x / blocks % a.heads);
  int split = static_cast<int>(blockIdx.x / blocks / a.heads), tiles = a.tiles();
  int64_t item = static_cast<int64_t>(split) * a.lanes / splits * tiles;  // item: lane * tiles + query tile
  int64_t end = static_cast<int64_t>(split + 1) * a.lanes / splits * tiles;
  auto next = [&](int64_t at) {
    while (at < end && !distances_seen(a, static_cast<int>(at / tiles), head, static_cast<int>(at % tiles), 64 * n))
      ++at;
    return at;
  };
  auto load_keys = [&](int64_t at, int half) {  // half 1 of the window: the nearer keys
    int lane = static_cast<int>(at / tiles), tile = static_cast<int>(at % tiles), slot = (tile + half) % 2 * elements;
    int first = 64 * (tile - n - 1 + half) + a.memory;
    Tile<width>::load_rows(s.k + slot, a, a.k, first, a.keys, lane, head);
    Tile<width>::load_rows(s.value + slot, a, a.value, first, a.keys, lane, head);
  };
  auto load_queries = [&](int64_t at, int stage) {
    int lane = static_cast<int>(at / tiles), first = static_cast<int>(at % tiles) * 64;
    Tile<width>::load_rows(s.q + stage * elements, a, a.q, first, a.queries, lane, head);
    Tile<width>::load_rows(s.d_out, a, a.d_out, first, a.queries, lane, head);
  };

  item = next(item);
  load_biases<width>(s.u, s.v, a, head);
  Tile<width>::load_distances(s.r, a, 64 * n, head);
  if (item < end) load_queries(item, 0), load_keys(item, 0), load_keys(item, 1);
  simt::cp_async_commit();

  float d_r[width / 8][4] = {}, sums[2] = {};
  int64_t following;
  for (int stage = 0; item < end; item = following, stage ^= 1) {
    int lane = static_cast<int>(item / tiles), tile = static_cast<int>(item % tiles);
    int low = tile % 2 * elements, high = elements - low;
    bf16_t* q = s.q + stage * elements;
    following = next(item + 1);
    simt::cp_async_wait<0>();
    __syncthreads();

    int first_query = 64 * tile + 16 * p.warp, nearest = a.last_visible(first_query + p.lane / 2) - 64 * n;
    PairMask<true> mask(a, lane, head, first_query, nearest - 32 * (p.lane % 2) - 31, p);
    float x[8][4], d[8][4];
    {
      Fragments<width> left;
      split_queries<width>(left, q, s.u, s.v, p);
      multiply_band<width>(x, left, s.k + low, s.k + high, skew, p);
      left_fragments<width>(left, s.d_out, p);
      multiply_band<width>(d, left, s.value + low, s.value + high, skew, p);
    }
    p.renew();
    multiply_rows<width>(x, q, s.r, p);
    score_gradients<2>(x, d, mask, b, p);
    pairs.write<2>(1, d, p);
    __syncthreads();
    if (following < end) {
      load_queries(following, stage ^ 1);
      if (following != item + 1 || following % tiles == 0) load_keys(following, 0);
      load_keys(following, 1);
    }
    simt::cp_async_commit();
    multiply_columns<width>(d_r, pairs, 1, q, sums, p);
  }
  simt::cp_async_wait<0>();
  __syncthreads();

  int64_t part = static_cast<int64_t>(split) * blocks + n;
  store_distances<width>(d_r_partials + (part * 64 * a.heads + head) * a.width, d_r, a, p);
  weighted_rows<width>(d_v_partials + (part * a.heads + head) * a.width, sums, s.sums, s.r, a.width, p);
}

}  // namespace

static_assert(DistancesShared<128>::bytes <= wide_backward_shared);

void GpuDevice::attention_backward_mma_distances(const MmaBackward& b, const AttentionBackward& call) {
  const Attention& a = b.a;
  constexpr int64_t enough_blocks = 512;
  int64_t blocks = (a.keys + 63) / 64;
  int64_t splits = std::clamp<int64_t>(enough_blocks / (blocks * a.heads), 1, a.lanes);
  float* d_r = scratch<float>(splits * blocks * 64 * a.heads * a.width);
  float* d_v = scratch<float>(splits * blocks * a.heads * a.width);
  for_width(a.width, [&](auto width) {
    launch({"attention_backward (distances)", dim3(static_cast<unsigned>(splits * a.heads * blocks)), dim3(mma_threads),
            DistancesShared<width()>::bytes, Shape{a.distances, a.heads, a.width}},
           distances_kernel<width()>, b, static_cast<int>(blocks), static_cast<int>(splits), d_r, d_v);
  });
  attention_sum(call.d_r, d_r, splits, blocks * 64, false);
  attention_sum(call.d_v, d_v, splits * blocks, 1, true);
}

}  // namespace longhand::LONGHAND_GPU
