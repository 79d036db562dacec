// Relative attention on tensor cores, backward: d_q and the segments' gradients. Equations and counts:
// attention_mma_backward.h.
//
//   dq_i = sum_j dA_ij k_j + sum_d dA_{i, i + M - d} r[d] + Y_i0 table[0] + Y_i1 table[1],  Y_ie = sum_{j in e} dA_ij
//   d_table[e] = sum_i Y_ie (q_i + bias),   d_bias = sum_ie Y_ie table[e]
//
// A block owns 64 queries of one lane and head and walks over the key tiles as the forward kernel does. The position
// term's products reach the scores over the skew, and dA goes the way back: what a tile has above the diagonal waits
// for the next tile, with which it completes 64 queries by 64 distances, a left operand for the product with their r.
// So three tiles of R are held: of the distances completed, of those begun, and the next. Shared memory at widths of
// 32, 64, 128: 52, 80, 152 KB; 2 blocks an SM on sm_80 up to 64.
#include "cuda/attention_mma_backward.h"

namespace longhand::LONGHAND_GPU {
namespace {

/// A left operand that stays, in registers or in shared memory.
template <int width, bool in_registers>
struct Operand {
  Fragments<in_registers ? width : 16> fragments;
  bf16_t* tile;

  __device__ __forceinline__ void take(const Attention& a, const HeadRows& rows, int first, int lane, int head,
                                       const bf16_t* bias, const Place& p) {
    if constexpr (in_registers) {
      row_fragments<width>(fragments, a, rows, first, lane, head, bias, p);
    } else {
      Fragments<width> f;
      row_fragments<width>(f, a, rows, first, lane, head, bias, p);
      store_fragments<width>(tile, f, p);
      __syncwarp();
    }
  }
  /// sum [16, 64] += this times the transpose of the tile's 64 rows.
  __device__ __forceinline__ void multiply(float (&sum)[8][4], const bf16_t* right, const Place& p) const {
    if constexpr (in_registers)
      multiply_rows<width>(sum, fragments, right, p);
    else
      multiply_rows<width>(sum, tile, right, p);
  }
};

template <int width>
struct QueriesShared {
  static constexpr int tile = Tile<width>::elements, kept = width < 128 ? 0 : tile;
  bf16_t *k, *value, *r, *position, *d_out, *carry;  // two tiles of k, three of r
  float *skew, *sums;
  int* place;  // lane, head

  __device__ explicit QueriesShared(bf16_t* at)
      : k(at),
        value(k + 2 * tile),
        r(value + tile),
        position(r + 3 * tile),
        d_out(position + kept),
        carry(d_out + tile),
        skew(reinterpret_cast<float*>(carry + 4 * Skew<bf16_t>::elements)),
        sums(skew),  // after the last tile: [64 queries, 2]
        place(reinterpret_cast<int*>(skew + 4 * Skew<float>::elements)) {}
  static constexpr size_t bytes = (7 * tile + kept) * 2 + 4 * Skew<float>::elements * 6 + 8;
};

/// Y of the warp's rows, summed over the lanes that share them.
__device__ __forceinline__ void finish_segments(float (&y)[2][2]) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      y[half][e] += __shfl_xor_sync(all_lanes, y[half][e], 1);
      y[half][e] += __shfl_xor_sync(all_lanes, y[half][e], 2);
    }
}

/// d_q of the warp's rows, with the segments' part.
template <int width>
__device__ __forceinline__ void store_queries(const float (&d_q)[width / 8][4], const float (&y)[2][2],
                                              const Attention& a, int first_query, int lane, int head, const Place& p) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    int query = first_query + p.row(half);
    if (query >= a.queries) continue;
    bf16_t* row = a.d_q.row<bf16_t>(query, lane, head);
#pragma unroll
    for (int n = 0; n < width / 8; ++n) {
      int column = 8 * n + 2 * p.t;
      if (column >= a.width) continue;
      float sum[2] = {d_q[n][2 * half], d_q[n][2 * half + 1]};
      for (int e = 0; e < 2 && a.segments(); ++e)
        for (int i = 0; i < 2; ++i)
          sum[i] += y[half][e] * to_float(a.segment_table.row<const bf16_t>(e, 0, head)[column + i]);
      *reinterpret_cast<uint32_t*>(row + column) = pack_bf16(sum[0], sum[1]);
    }
  }
}

/// The block's part of the segments' gradients: d_table [2, heads, width], d_bias [heads, width] at this head.
__device__ __forceinline__ void segment_partials(float* d_table, float* d_bias, const float* y, const Attention& a,
                                                 int first_query, int lane, int head) {
  int count = a.queries - first_query < 64 ? a.queries - first_query : 64;
  for (int x = threadIdx.x; x < a.width; x += mma_threads) {
    float bias = to_float(a.segment_bias.row<const bf16_t>(0, 0, head)[x]), table[2] = {}, all[2] = {};
    for (int row = 0; row < count; ++row) {
      float q = to_float(a.q.row<const bf16_t>(first_query + row, lane, head)[x]) + bias;
      for (int e = 0; e < 2; ++e) table[e] += y[2 * row + e] * q, all[e] += y[2 * row + e];
    }
    d_bias[x] = 0;
    for (int e = 0; e < 2; ++e) {
      d_table[e * a.heads * a.width + x] = table[e];
      d_bias[x] += all[e] * to_float(a.segment_table.row<const bf16_t>(e, 0, head)[x]);
    }
  }
}

/// Block n: query tile tiles - 1 - n % tiles of pair n / tiles. Partials, with segments: d_table [lanes, tiles, 2,
/// heads, width], d_bias [lanes, tiles, heads, width].
template <int width>
__global__ void __launch_bounds__(mma_threads, width == 128 ? 1 : 2)
    queries_kernel(const MmaBackward b, float* d_table, float* d_bias) {
  SIMT_DYN_SHARED(bf16_t, shared);
  const Attention& a = b.a;
  constexpr int elements = Tile<width>::elements;
  QueriesShared<width> s(shared);
  Place p;
  Skew<float> skew{s.skew + p.warp * Skew<float>::elements};
  Skew<bf16_t> carry{s.carry + p.warp * Skew<bf16_t>::elements};

  int pair = static_cast<int>(blockIdx.x / a.tiles()), tile = a.tiles() - 1 - static_cast<int>(blockIdx.x % a.tiles());
  int lane = pair / a.heads, head = pair % a.heads, shift = key_shift(a);
  int first_query = tile * 64, last_query = first_query + 64 < a.queries ? first_query + 63 : a.queries - 1;
  int end = (a.last_visible(last_query) + shift) / 64 + 1;
  auto next = [&](int n, int lane, int head) {
    while (n < end && !tile_seen(a, lane, head, tile, 64 * n - shift)) ++n;
    return n;
  };
  auto load_rows = [&](bf16_t* to, const HeadRows& rows, int n, int lane, int head) {
    Tile<width>::load_rows(to, a, rows, 64 * n - shift, a.keys, lane, head);
  };

  Fragments<width> content;
  row_fragments<width>(content, a, a.q, first_query, lane, head, a.u.row<const bf16_t>(0, 0, head), p);
  Operand < width, width<128> position;
  Operand<width, false> d_out;
  position.tile = s.position, d_out.tile = s.d_out;
  position.take(a, a.q, first_query, lane, head, a.v.row<const bf16_t>(0, 0, head), p);
  d_out.take(a, a.d_out, first_query, lane, head, nullptr, p);

  float d_q[width / 8][4] = {}, y[2][2] = {};
  bf16_t *r_done = s.r, *r_begun = r_done + elements,
         *r_next = r_begun + elements;  // distances: completed, begun, next
  int apart = 0;                        // of the tile: the distance of its first query to its first key
  // What the last tile has left for distances of which nothing more comes.
  auto flush = [&] {
    float zero[8][4] = {};
    uint32_t left[4][4];
    carry.write(zero, false, p);
    __syncwarp();
    carry.left(left, p);
    __syncwarp();
    multiply<width>(d_q, left, r_begun, p);
  };

  if (threadIdx.x == 0) s.place[0] = lane, s.place[1] = head;
  bool connected = false, begun = false;
  int stage = 0;
  for (int n = next(0, lane, head), following; n < end; n = following, stage ^= 1) {
    bf16_t* k = s.k + stage * elements;
    apart = first_query + a.memory - (64 * n - shift);
    float x[8][4] = {}, d[8][4] = {};
    if (!connected) {
      if (begun) flush();
      carry.write(x, true, p);
      __syncthreads();
      Tile<width>::load_distances(r_done, a, apart, head);
      Tile<width>::load_distances(r_begun, a, apart - 64, head);
      load_rows(k, a.k, n, lane, head), load_rows(s.value, a.value, n, lane, head);
      simt::cp_async_commit();
    } else {
      bf16_t* free = r_done;
      r_done = r_begun, r_begun = r_next, r_next = free;
    }
    simt::cp_async_wait<0>();
    __syncthreads();
    const int lane = s.place[0], head = s.place[1];  // spares the registers of all that follows from them
    if (!connected) {
      position.multiply(x, r_done, p);
      skew.write(x, false, p);
    }
    following = next(n + 1, lane, head);
    connected = following == n + 1, begun = true;
    bool more = connected && following < end;
    if (more) {
      load_rows(s.k + (stage ^ 1) * elements, a.k, following, lane, head);
      Tile<width>::load_distances(r_next, a, apart - 128, head);
    }

    PairMask<false> mask(a, lane, head, first_query + 16 * p.warp, 64 * n - shift + 32 * (p.lane % 2), p);
    position.multiply(d, r_begun, p);
    skew.write(d, true, p);
    __syncwarp();
    skew.read(x, p);
    __syncwarp();
    skew.write(d, false, p);
    multiply_rows<width>(x, content, k, p);
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) d[j][i] = 0;
    d_out.multiply(d, s.value, p);
    __syncthreads();
    if (more) load_rows(s.value, a.value, following, lane, head);
    simt::cp_async_commit();

    score_gradients<2>(x, d, mask, b, p);
    if (a.segments()) {
      PlaceBits<false> others(mask.other, p);
#pragma unroll
      for (int j = 0; j < 8; ++j)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          bool other = others.test(j, i);
          y[i / 2][0] += other ? 0.0f : d[j][i], y[i / 2][1] += other ? d[j][i] : 0.0f;
        }
    }
    uint32_t left[4][4];
    round_left(left, d);
    multiply<width>(d_q, left, k, p);
    carry.write(d, false, p);
    __syncwarp();
    carry.left(left, p);
    __syncwarp();
    carry.write(d, true, p);
    multiply<width>(d_q, left, r_done, p);
  }
  if (begun && apart > 0) flush();

  finish_segments(y);
  store_queries<width>(d_q, y, a, first_query, lane, head, p);
  if (!a.segments()) return;
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half)
    if (p.t < 2) s.sums[2 * p.row(half) + p.t] = p.t ? y[half][1] : y[half][0];
  __syncthreads();
  int64_t part = static_cast<int64_t>(lane) * a.tiles() + tile;
  segment_partials(d_table + (part * 2 * a.heads + head) * a.width, d_bias + (part * a.heads + head) * a.width, s.sums,
                   a, first_query, lane, head);
}

}  // namespace

static_assert(QueriesShared<128>::bytes <= wide_backward_shared);

void GpuDevice::attention_backward_mma_queries(const MmaBackward& b, const AttentionBackward& call) {
  const Attention& a = b.a;
  int64_t parts = static_cast<int64_t>(a.lanes) * a.tiles(), floats = a.segments() ? parts * a.heads * a.width : 0;
  float *d_table = scratch<float>(2 * floats), *d_bias = scratch<float>(floats);
  for_width(a.width, [&](auto width) {
    launch({"attention_backward (queries)", dim3(static_cast<unsigned>(parts * a.heads)), dim3(mma_threads),
            QueriesShared<width()>::bytes, Shape{a.queries, a.lanes, a.heads, a.width}},
           queries_kernel<width()>, b, d_table, d_bias);
  });
  if (!a.segments()) return;
  attention_sum(call.d_segment_embedding, d_table, parts, 2, true);
  attention_sum(call.d_segment_bias, d_bias, parts, 1, true);
}

}  // namespace longhand::LONGHAND_GPU
