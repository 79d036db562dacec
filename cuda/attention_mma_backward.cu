// Relative attention on tensor cores, backward: d_k, d_value, d_u. Equations and counts: attention_mma_backward.h.
//
// A block owns 64 keys of one lane and head, their k and value in shared memory, and walks over the query tiles that
// see them. A warp computes the scores and dA of 16 queries by 64 keys and leaves P Z and dA rounded in shared memory;
// then it adds to d_value and d_k of its own 16 keys from all 64 queries. The position term needs the distances of 64
// queries to 64 keys, 127 of them, and a warp 79: the window of two tiles of R moves on by one with each tile of
// queries. The next tile's q and dO are copied while this one is computed. Shared memory at widths of 32, 64, 128: 49,
// 81, 145 KB; 2 blocks an SM on sm_80 up to 64.
#include "cuda/attention_mma_backward.h"

namespace longhand::LONGHAND_GPU {
namespace {

/// The block's 64 keys, from `first` on. In shared memory, read again in every round: it spares the registers of all
/// that follows from it.
struct KeyTile {
  int lane, head, number, first;

  __device__ KeyTile(const Attention& a, int block) {
    int tiles = key_tiles(a), pair = block / tiles;
    lane = pair / a.heads, head = pair % a.heads, number = block % tiles, first = 64 * number - key_shift(a);
  }
};

template <int width>
struct KeysShared {
  static constexpr int tile = Tile<width>::elements;
  bf16_t *k, *value, *q, *d_out, *r;  // q, d_out and r: two tiles each
  float *skew, *u, *v, *sums;
  KeyTile* keys;

  __device__ explicit KeysShared(bf16_t* at)
      : k(at),
        value(k + tile),
        q(value + tile),
        d_out(q + 2 * tile),
        r(d_out + 2 * tile),
        skew(reinterpret_cast<float*>(r + 2 * tile)),
        u(skew + 4 * Skew<float>::elements),
        v(u + width),
        sums(u),  // after the last tile
        keys(reinterpret_cast<KeyTile*>(v + width)) {}
  static constexpr size_t bytes =
      8 * Tile<width>::bytes + 4 * Skew<float>::elements * 4 + 2 * width * 4 + sizeof(KeyTile);
};

/// The warp's rows of accumulators [16, width] to rows of keys.
template <int width>
__device__ __forceinline__ void store_keys(const HeadRows& to, const float (&x)[width / 8][4], const Attention& a,
                                           const KeyTile& keys, const Place& p) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int key = keys.first + p.row(half);
    if (key < 0 || key >= a.keys) continue;
    bf16_t* row = to.row<bf16_t>(key, keys.lane, keys.head);
#pragma unroll
    for (int n = 0; n < width / 8; ++n)
      if (8 * n < a.width)
        *reinterpret_cast<uint32_t*>(row + 8 * n + 2 * p.t) = pack_bf16(x[n][2 * half], x[n][2 * half + 1]);
  }
}

/// Block n: key tile n % tiles of pair n / tiles; the first keys are seen most. d_u_partials [lanes, tiles, heads,
/// width].
template <int width>
__global__ void __launch_bounds__(mma_threads, width == 128 ? 1 : 2)
    keys_kernel(const MmaBackward b, float* d_u_partials) {
  SIMT_DYN_SHARED(bf16_t, shared);
  const Attention& a = b.a;
  constexpr int elements = Tile<width>::elements;
  KeysShared<width> s(shared);
  Place p;
  Skew<float> skew{s.skew + p.warp * Skew<float>::elements};
  PairTiles pairs{reinterpret_cast<bf16_t*>(s.skew)};

  auto next = [&](int tile, const KeyTile& keys) {
    while (tile < a.tiles() && !tile_seen(a, keys.lane, keys.head, tile, keys.first)) ++tile;
    return tile;
  };
  auto load_queries = [&](int tile, int stage, const KeyTile& keys) {
    Tile<width>::load_rows(s.q + stage * elements, a, a.q, 64 * tile, a.queries, keys.lane, keys.head);
    Tile<width>::load_rows(s.d_out + stage * elements, a, a.d_out, 64 * tile, a.queries, keys.lane, keys.head);
  };
  // Half n of the window of `tile`: n = 0 the nearer distances.
  auto load_r = [&](int n, int tile, const KeyTile& keys) {
    Tile<width>::load_distances(s.r + (tile + n) % 2 * elements, a, 64 * (tile + n - 1) + a.memory - keys.first,
                                keys.head);
  };

  int tile;
  bool any;
  {
    const KeyTile keys(a, static_cast<int>(blockIdx.x));
    tile = next(keys.first > a.memory ? (keys.first - a.memory) / 64 : 0, keys);
    any = tile < a.tiles();
    load_biases<width>(s.u, s.v, a, keys.head);
    if (threadIdx.x == 0) *s.keys = keys;
    if (any) {
      Tile<width>::load_rows(s.k, a, a.k, keys.first, a.keys, keys.lane, keys.head);
      Tile<width>::load_rows(s.value, a, a.value, keys.first, a.keys, keys.lane, keys.head);
      load_queries(tile, 0, keys);
      load_r(0, tile, keys), load_r(1, tile, keys);
    }
  }
  simt::cp_async_commit();

  float d_k[width / 8][4] = {}, d_value[width / 8][4] = {}, sums[2] = {}, unused[2] = {};
  for (int stage = 0, following; tile < a.tiles(); tile = following, stage ^= 1) {
    bf16_t *q = s.q + stage * elements, *d_out = s.d_out + stage * elements;
    simt::cp_async_wait<0>();
    __syncthreads();
    const KeyTile keys = *s.keys;
    following = next(tile + 1, keys);
    if (following < a.tiles()) load_queries(following, stage ^ 1, keys);
    simt::cp_async_commit();

    PairMask<false> mask(a, keys.lane, keys.head, 64 * tile + 16 * p.warp, keys.first + 32 * (p.lane % 2), p);
    float x[8][4];
    {
      Fragments<width> position;
      split_queries<width>(position, q, s.v, s.u, p);
      multiply_band<width>(x, position, s.r + tile % 2 * elements, s.r + (tile + 1) % 2 * elements, skew, p);
    }
    __syncthreads();
    if (following < a.tiles()) {
      if (following > tile + 1) load_r(0, following, keys);
      load_r(1, following, keys);
    }
    simt::cp_async_commit();
    multiply_rows<width>(x, q, s.k, p);
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      float d[4][4] = {};
      multiply_rows<width, 1>(d, d_out, s.value, p, side);
      score_gradients<1>(x + 4 * side, d, mask, b, p, side);
      pairs.write<1>(0, x + 4 * side, p, side);
      pairs.write<1>(1, d, p, side);
    }
    __syncthreads();
    p.renew();
    multiply_columns<width>(d_value, pairs, 0, d_out, unused, p);
    multiply_columns<width>(d_k, pairs, 1, q, sums, p);
  }

  __syncthreads();
  const KeyTile keys = *s.keys;
  store_keys<width>(a.d_k, d_k, a, keys, p);
  store_keys<width>(a.d_value, d_value, a, keys, p);
  float* d_u =
      d_u_partials + ((static_cast<int64_t>(keys.lane) * key_tiles(a) + keys.number) * a.heads + keys.head) * a.width;
  if (any)
    weighted_rows<width>(d_u, sums, s.sums, s.k, a.width, p);
  else
    for (int x = threadIdx.x; x < a.width; x += mma_threads) d_u[x] = 0;
}

}  // namespace

static_assert(KeysShared<128>::bytes <= wide_backward_shared);

bool attention_backward_mma_takes(const Attention& a) {
  static const size_t given = [] {
    int card = 0, bytes = 0;
    cudaGetDevice(&card);
    cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, card);
    return static_cast<size_t>(bytes);
  }();
  return attention_mma_takes(a) && (a.width <= 64 || given >= wide_backward_shared);
}

void GpuDevice::attention_backward_mma_keys(const MmaBackward& b, const AttentionBackward& call) {
  const Attention& a = b.a;
  int64_t tiles = key_tiles(a), count = a.lanes * tiles;
  float* d_u = scratch<float>(count * a.heads * a.width);
  for_width(a.width, [&](auto width) {
    launch({"attention_backward (keys)", dim3(static_cast<unsigned>(count * a.heads)), dim3(mma_threads),
            KeysShared<width()>::bytes, Shape{a.keys, a.lanes, a.heads, a.width}},
           keys_kernel<width()>, b, d_u);
  });
  attention_sum(call.d_u, d_u, count, 1, true);
}

void GpuDevice::attention_backward_mma(const Attention& a, const AttentionBackward& call) {
  MmaBackward b{a, attention_deltas(a), attention_segment_terms(a)};
  attention_backward_mma_keys(b, call);
  attention_backward_mma_queries(b, call);
  attention_backward_mma_distances(b, call);
}

}  // namespace longhand::LONGHAND_GPU
