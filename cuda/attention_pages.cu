// Block top-k of attention: the pages of keys that each tile of 64 queries keeps, chosen before any score is known.
//
// For all keys of a page, and all r of the distances it stands at,
//   (q + u) . k + (q + v) . r  <=  sum_c max((q+u)_c low_c, (q+u)_c high_c) + max over r's groups of the same sum
// with low and high the smallest and largest entries of k in the page, and of r in 64 neighbouring distances. A query
// meets one or two such groups in a page. A page's value is the largest bound over the tile's queries that see it; the
// page of the tile's last query and the one before it come first whatever their bound.
//
// 1. interval_kernel: low and high of every page of a head, and of every 64 distances. Reads k and r once.
// 2. bound_kernel: sums of 64 queries and 64 intervals, max(x low, x high) = max(x, 0) high + min(x, 0) low: two
// products
//    on the tiles of cuda/attention_tile.h; 1/32 of the scores' operations for k, as many for r.
// 3. choose_kernel: a block a tile: values, ranks by counting, mask.
#include <algorithm>

#include "cuda/attention_tile.h"
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {
namespace {

/// Runs of 64 rows whose extremes are wanted: pages of k, or groups of distances of r.
struct Intervals {
  HeadRows rows;
  int count, shift, limit;  // run n holds rows [64 n - shift, + 64), clipped to [0, limit), the last row at least
  int padded;               // width rounded up to whole steps; the rest is 0
  bool of_lanes;            // the rows differ between lanes
  float* extremes;          // [lanes or 1, heads, count, 2, padded]: low, high

  __device__ __forceinline__ float* low(int lane, int head, int heads, int run) const {
    return extremes + (((of_lanes ? lane : 0) * static_cast<int64_t>(heads) + head) * count + run) * 2 * padded;
  }
};

template <class T>
__global__ void __launch_bounds__(tile_threads) interval_kernel(const Attention a, const Intervals runs) {
  int run = blockIdx.x, head = blockIdx.y, lane = blockIdx.z;
  int begin = run * attention_page - runs.shift, end = min(begin + attention_page, runs.limit);
  begin = min(max(begin, 0), runs.limit - 1);
  float* low = runs.low(lane, head, a.heads, run);
  for (int c = threadIdx.x; c < runs.padded; c += tile_threads) {
    float least = 0, most = 0;
    if (c < a.width) {
      least = most = to_float(runs.rows.row<const T>(begin, lane, head)[c]);
      for (int row = begin + 1; row < end; ++row) {
        float x = to_float(runs.rows.row<const T>(row, lane, head)[c]);
        least = fminf(least, x), most = fmaxf(most, x);
      }
    }
    low[c] = least, low[runs.padded + c] = most;
  }
}

/// Splits q + bias of 64 queries into its positive and its negative part.
template <class T>
__device__ __forceinline__ void stage_signs(float* positive, float* negative, const RowsAt<T>& queries, const T* bias,
                                            int channel, const Attention& a) {
  constexpr int pieces = step_channels / 4;
  for (int item = threadIdx.x; item < tile_rows * pieces; item += tile_threads) {
    int row = item / pieces, piece = item % pieces * 4;
    const T* at = queries(row);
    float4 x = add(load_four(at, channel + piece, a), load_four(at ? bias : nullptr, channel + piece, a));
    four(positive + row * step_stride + piece) =
        make_float4(fmaxf(x.x, 0), fmaxf(x.y, 0), fmaxf(x.z, 0), fmaxf(x.w, 0));
    four(negative + row * step_stride + piece) =
        make_float4(fminf(x.x, 0), fminf(x.y, 0), fminf(x.z, 0), fminf(x.w, 0));
  }
}

/// Block (64 queries, 64 runs): bounds [lanes, heads, queries, runs] of (q + bias) . any row of the run.
template <class T>
__global__ void __launch_bounds__(tile_threads)
    bound_kernel(const Attention a, const Intervals runs, const HeadRows biases, float* bounds) {
  SIMT_SHARED_ALIGNED(16, float, stage, [4 * tile_rows * step_stride]);
  float *positive = stage, *negative = positive + tile_rows * step_stride, *low = negative + tile_rows * step_stride,
        *high = low + tile_rows * step_stride;
  int run_tiles = (runs.count + tile_rows - 1) / tile_rows;
  int query = static_cast<int>(blockIdx.x) / run_tiles * tile_rows, run = blockIdx.x % run_tiles * tile_rows;
  int head = blockIdx.y, lane = blockIdx.z;
  RowsAt<T> queries{a.q, lane, head, query, a.queries};
  const T* bias = biases.row<const T>(0, 0, head);
  float sum[4][8] = {};
  for (int channel = 0; channel < a.width; channel += step_channels) {
    __syncthreads();
    stage_signs(positive, negative, queries, bias, channel, a);
    for (int item = threadIdx.x; item < tile_rows * step_channels; item += tile_threads) {
      int row = item / step_channels, c = item % step_channels;
      const float* extremes = runs.low(lane, head, a.heads, min(run + row, runs.count - 1)) + channel + c;
      low[row * step_stride + c] = extremes[0], high[row * step_stride + c] = extremes[runs.padded];
    }
    __syncthreads();
    multiply_straight(sum, positive, high);
    multiply_straight(sum, negative, low);
  }
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      int row = query + y + 16 * i, column = run + x + 8 * j;
      if (row < a.queries && column < runs.count)
        bounds[(a.lane_head(lane, head) * a.queries + row) * runs.count + column] = sum[i][j];
    }
}

struct Bounds {
  const float *content, *position;  // [lanes, heads, queries, pages], [lanes, heads, queries, groups]
  const float2* segment;
  int groups;
};

/// The page's place in the order of choice, 0 when no query of the tile sees it.
__device__ uint32_t page_order(const Attention& a, const Bounds& b, int lane, int head, int tile, int page) {
  int begin = max(a.page_begin(page), 0), end = min(a.page_begin(page + 1), a.keys);
  int last = min(tile * 64 + 64, a.queries) - 1, own = a.page_of(a.last_visible(last));
  uint32_t best = 0;
  for (int query = tile * 64; query <= last; ++query) {
    int first_key = max(begin, a.first_visible(lane, query)), last_key = min(end - 1, a.last_visible(query));
    if (first_key > last_key) continue;
    if (page == own || page == own - 1) return 0xffffffffu;
    int64_t row = a.lane_head(lane, head) * a.queries + query;
    const float* position = b.position + row * b.groups;
    float bound = b.content[row * a.pages() + page] + fmaxf(position[a.distance(query, last_key) / attention_page],
                                                            position[a.distance(query, first_key) / attention_page]);
    if (a.segments()) bound += fmaxf(b.segment[row].x, b.segment[row].y);
    best = max(best, order_of(bound));
  }
  return best;
}

/// Block (tile, head, lane). `orders` [lanes, heads, tiles, pages] is scratch.
__global__ void __launch_bounds__(tile_threads)
    choose_kernel(const Attention a, const Bounds bounds, int64_t budget, uint32_t* orders) {
  int tile = blockIdx.x, head = blockIdx.y, lane = blockIdx.z, pages = a.pages();
  orders += (a.lane_head(lane, head) * a.tiles() + tile) * pages;
  for (int page = threadIdx.x; page < pages; page += tile_threads)
    orders[page] = page_order(a, bounds, lane, head, tile, page);
  __syncthreads();
  uint32_t* mask = reinterpret_cast<uint32_t*>(a.selected_row(lane, head, tile));
  for (int group = threadIdx.x / 32; group < 2 * a.words; group += tile_threads / 32) {
    int page = 32 * group + static_cast<int>(threadIdx.x % 32);
    uint32_t own = page < pages ? orders[page] : 0;
    int64_t rank = 0;  // pages that come before this one; the nearer of equals does
    if (own)
      for (int other = 0; other < pages; ++other) rank += orders[other] > own || (orders[other] == own && other > page);
    uint32_t kept = __ballot_sync(all_lanes, own && rank < budget);
    if (threadIdx.x % 32 == 0) mask[group] = kept;
  }
}

}  // namespace

void GpuDevice::attention_choose_pages(const Attention& a) {
  int padded = (a.width + step_channels - 1) / step_channels * step_channels, groups = (a.keys + 63) / 64;
  int64_t pairs = static_cast<int64_t>(a.lanes) * a.heads;
  unsigned heads = static_cast<unsigned>(a.heads), lanes = static_cast<unsigned>(a.lanes);
  Shape shape{a.queries, a.lanes, a.heads, a.width};
  Intervals keys{a.k, a.pages(), a.page_shift, a.keys, padded, true, scratch<float>(pairs * a.pages() * 2 * padded)};
  Intervals distances{
      a.r, groups, 0, a.distances, padded, false, scratch<float>(int64_t{a.heads} * groups * 2 * padded)};
  float* content = scratch<float>(pairs * a.queries * a.pages());
  float* position = scratch<float>(pairs * a.queries * groups);
  uint32_t* orders = scratch<uint32_t>(pairs * a.tiles() * a.pages());
  Bounds bounds{content, position, attention_segment_terms(a), groups};
  for_type(a.half ? Dtype::bf16 : Dtype::fp32, [&](auto zero) {
    using T = decltype(zero);
    for (const Intervals* runs : {&keys, &distances}) {
      launch({"attention_forward", dim3(static_cast<unsigned>(runs->count), heads, runs->of_lanes ? lanes : 1),
              dim3(tile_threads), 0, shape},
             interval_kernel<T>, a, *runs);
      bool of_keys = runs == &keys;
      launch(
          {"attention_forward", dim3(static_cast<unsigned>(a.tiles()) * ceil_div(runs->count, tile_rows), heads, lanes),
           dim3(tile_threads), 0, shape},
          bound_kernel<T>, a, *runs, of_keys ? a.u : a.v, of_keys ? content : position);
    }
  });
  int64_t budget = std::max<int64_t>((a.topk + attention_page - 1) / attention_page, 2);
  launch({"attention_forward", dim3(static_cast<unsigned>(a.tiles()), heads, lanes), dim3(tile_threads), 0, shape},
         choose_kernel, a, bounds, budget, orders);
}

}  // namespace longhand::LONGHAND_GPU
