// Relative attention, forward, on plain fp32 arithmetic: every type, width, stride and mask.
//
//   a_ij = ((q_i + u) . k_j + (q_i + v) . r[min(d, distances - 1)] + segment_ij) sigma,   d = i + M - j
//   out_i = sum_j dropout(softmax_j(a))_ij value_j,   lse_i = log sum_j exp(a_ij)
//
// A block takes 64 queries of a head and walks the key tiles that they see, with the running maximum and sum of an
// online softmax (Milakov & Gimelshein 2018): nothing of size T x K leaves the multiprocessor. Rows wider than 128 are
// cut into slices of 128 output channels, each of which computes the scores anew.
// Exact top-k needs all scores of a row before the first product with value: a second kernel writes them for a bounded
// number of query tiles, and attention_topk.cu selects and sums.
//
// Operations: 6 width a pair (4 for the scores); a tile reads 320 + 64 rows for 4,096 pairs, mostly from L2; limit:
// fp32 arithmetic.
#include <algorithm>

#include "cuda/attention_tile.h"
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int64_t score_bytes = 32 << 20;  // of scores held at once, so that they stay in the second-level cache

/// The scores of the tile in place of its sums, -infinity where the mask is 0.
__device__ __forceinline__ void finish_scores(float (&score)[4][8], const TileShared& s, const Attention& a) {
  int y = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      int row = y + 16 * i;
      if (!column_bit<Columns::keys>(s.visible[row], j)) {
        score[i][j] = -INFINITY;
        continue;
      }
      if (a.segments())
        score[i][j] += column_bit<Columns::keys>(s.other_segment[row], j) ? s.segment[row].y : s.segment[row].x;
      score[i][j] *= a.sigma;
    }
}

__device__ __forceinline__ void load_segment_terms(TileShared& s, const Attention& a, const float2* terms, int lane,
                                                   int head, int query) {
  int row = threadIdx.x;
  if (a.segments() && row < tile_rows && query + row < a.queries)
    s.segment[row] = terms[a.lane_head(lane, head) * a.queries + query + row];
}

/// One step of the online softmax: scores become probabilities under the new maximum; returns the factor of the old
/// sums in `shrink`. `sum` is this thread's part of a row's sum.
__device__ __forceinline__ void softmax_step(float (&score)[4][8], float (&largest)[4], float (&sum)[4],
                                             float (&shrink)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float top = score[i][0];
#pragma unroll
    for (int j = 1; j < 8; ++j) top = fmaxf(top, score[i][j]);
#pragma unroll
    for (int step = 1; step < 8; step *= 2) top = fmaxf(top, __shfl_xor_sync(all_lanes, top, step));
    top = fmaxf(top, largest[i]);
    float base = top == -INFINITY ? 0.0f : top;
    shrink[i] = expf(largest[i] - base);
    largest[i] = top, sum[i] *= shrink[i];
#pragma unroll
    for (int j = 0; j < 8; ++j) score[i][j] = expf(score[i][j] - base), sum[i] += score[i][j];
  }
}

__device__ __forceinline__ void write_pairs(TileShared& s, const float (&p)[4][8], const Attention& a) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float kept = p[i][j];
      if (a.dropout.on) kept = column_bit<Columns::keys>(s.kept[y + 16 * i], j) ? kept * a.dropout.scale : 0.0f;
      s.pairs[(y + 16 * i) * pair_stride + x + 8 * j] = kept;
    }
}

template <class T, int chunks>
__global__ void __launch_bounds__(tile_threads, chunks == 1 ? 3 : 2)
    forward_kernel(const Attention a, const float2* segment_terms, int slices) {
  SIMT_SHARED_ALIGNED(16, TileShared, s);
  // The last tiles see most keys and start first.
  int tile = a.tiles() - 1 - static_cast<int>(blockIdx.x) / slices, slice = blockIdx.x % slices;
  int head = blockIdx.y, lane = blockIdx.z, y = threadIdx.x / 8;
  TilePlace<Columns::keys> at{lane, head, tile * tile_rows, 0};
  load_segment_terms(s, a, segment_terms, lane, head, at.query);
  float out[chunks][4][8] = {}, largest[4], sum[4] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) largest[i] = -INFINITY;

  int last = min(at.query + tile_rows, a.queries) - 1;
  int nearest = a.page_of(a.last_visible(last)), farthest = a.page_of(max(at.query + a.memory - a.max_distance, 0));
  for (int page = nearest; page >= farthest; --page) {
    if (a.paged && !a.page_selected(lane, head, tile, page)) continue;
    at.column = a.page_begin(page);
    if (!mask_tile(s, a, at)) continue;
    float score[4][8] = {}, shrink[4];
    score_tile<T>(score, s, a, at);
    finish_scores(score, s, a);
    softmax_step(score, largest, sum, shrink);
    write_pairs(s, score, a);
#pragma unroll
    for (int chunk = 0; chunk < chunks; ++chunk) {
      int channel = (slice * chunks + chunk) * chunk_channels;
      if (channel >= a.width) break;
      __syncthreads();
      stage_rows<tile_rows, chunk_channels, chunk_channels>(s.stage, RowsAt<T>{a.value, lane, head, at.column, a.keys},
                                                            channel, a);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int e = 0; e < 8; ++e) out[chunk][i][e] *= shrink[i];
      multiply_rows(out[chunk], s.pairs, s.stage);
    }
  }

  auto out_row = [&](int row) {
    return at.query + row < a.queries ? a.out.row<T>(at.query + row, lane, head) : nullptr;
  };
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int step = 1; step < 8; step *= 2) sum[i] += __shfl_xor_sync(all_lanes, sum[i], step);
    int query = at.query + y + 16 * i;
    if (slice == 0 && threadIdx.x % 8 == 0 && query < a.queries)
      a.lse_row(lane, head)[query] = largest[i] + logf(sum[i]);
    float whole = sum[i] > 0 ? 1 / sum[i] : sum[i];  // NaN stays NaN
#pragma unroll
    for (int chunk = 0; chunk < chunks; ++chunk)
#pragma unroll
      for (int e = 0; e < 8; ++e) out[chunk][i][e] *= whole;
  }
#pragma unroll
  for (int chunk = 0; chunk < chunks; ++chunk)
    store_chunk<false>(out[chunk], out_row, (slice * chunks + chunk) * chunk_channels, a);
}

/// Scores of query tile first + blockIdx.y and key tile blockIdx.x: row (blockIdx.y 64 + i), `keys` floats a row. The
/// call's selection is off.
template <class T>
__global__ void __launch_bounds__(tile_threads, 3)
    score_kernel(const Attention a, const float2* segment_terms, int64_t first, float* scores) {
  SIMT_SHARED_ALIGNED(16, TileShared, s);
  int64_t place = first + blockIdx.y;
  int tile = static_cast<int>(place % a.tiles()), pair = static_cast<int>(place / a.tiles());
  int head = pair % a.heads, lane = pair / a.heads;
  TilePlace<Columns::keys> at{lane, head, tile * tile_rows, static_cast<int>(blockIdx.x) * tile_rows};
  if (at.column > a.last_visible(at.query + tile_rows - 1)) return;
  load_segment_terms(s, a, segment_terms, lane, head, at.query);
  if (!mask_tile(s, a, at)) return;
  float score[4][8] = {};
  score_tile<T>(score, s, a, at);
  finish_scores(score, s, a);
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      int64_t row = static_cast<int64_t>(blockIdx.y) * tile_rows + y + 16 * i;
      if (column_bit<Columns::keys>(s.visible[y + 16 * i], j))
        scores[row * a.keys + at.column + x + 8 * j] = score[i][j];
    }
}

}  // namespace

void GpuDevice::attention_forward_general(const Attention& a) {
  const float2* terms = attention_segment_terms(a);
  Shape shape{a.queries, a.lanes, a.heads, a.width};
  for_type(a.half ? Dtype::bf16 : Dtype::fp32, [&](auto zero) {
    using T = decltype(zero);
    if (a.topk > 0 && !a.paged) {
      Attention dense = a;
      dense.topk = 0;
      int64_t tiles = static_cast<int64_t>(a.lanes) * a.heads * a.tiles();
      int64_t row_bytes = static_cast<int64_t>(a.keys) * 4 * tile_rows;
      int64_t at_once = std::min({tiles, std::max<int64_t>(1, score_bytes / row_bytes), int64_t{65535}});
      float* scores = scratch<float>(at_once * tile_rows * a.keys);
      for (int64_t first = 0; first < tiles; first += at_once) {
        int64_t count = std::min(at_once, tiles - first);
        launch({"attention_forward", dim3(ceil_div(a.keys, tile_rows), static_cast<unsigned>(count)),
                dim3(tile_threads), 0, shape},
               score_kernel<T>, dense, terms, first, scores);
        attention_select_keys(a, scores, first, count);
      }
      return;
    }
    int chunks = a.width <= chunk_channels ? 1 : 2,
        slices = static_cast<int>(ceil_div(a.width, chunks * chunk_channels));
    dim3 grid(static_cast<unsigned>(a.tiles() * slices), static_cast<unsigned>(a.heads),
              static_cast<unsigned>(a.lanes));
    launch({"attention_forward", grid, dim3(tile_threads), 0, shape},
           chunks == 1 ? forward_kernel<T, 1> : forward_kernel<T, 2>, a, terms, slices);
  });
}

}  // namespace longhand::LONGHAND_GPU
