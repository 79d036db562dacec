// Page-selected decoding: the pages of 64 keys that each query keeps (Tang et al. 2024, "Quest", with a term for R).
//
//   value(page) = sum_c max((q+u)_c low_c, (q+u)_c high_c) + max over the groups of distances that it straddles of
//                 sum_c max((q+v)_c low_c, (q+v)_c high_c)   >=   every score of the page
//
// with low and high the extremes of the page's keys, and of r in 64 neighbouring distances. The query's own page and
// the one before it come first, then the largest values, the nearer of equals.
//
// A block takes a query and head. Its warps take four pages or groups at a time, neighbouring lanes neighbouring
// columns; then a thread takes a page and counts those that come before it, which is the page's place in the list.
// Moves 2·dh floats a page and a group, 1/32 of an fp32 ring's keys and of r; limit: latency of a few rows at a time.
#include <algorithm>

#include "cuda/attention.h"
#include "cuda/attention_decode.h"
#include "cuda/gpu_device.h"
#include "src/device/ring_checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int choose_threads = 512, rows_at_once = 4;

/// out[j] = sum_c max(q_c low_c, q_c high_c), j < count; row_of(j) gives the row of the minima.
template <class RowOf>
__device__ __forceinline__ void bound_rows(const float* query, const float* extremes, int64_t row, int width, int count,
                                           const RowOf& row_of, float* out) {
  int lane = threadIdx.x % 32;
  for (int first = static_cast<int>(threadIdx.x) / 32 * rows_at_once; first < count;
       first += choose_threads / 32 * rows_at_once) {
    const float* low[rows_at_once];
    float sum[rows_at_once] = {};
#pragma unroll
    for (int i = 0; i < rows_at_once; ++i) low[i] = extremes + row_of(min(first + i, count - 1)) * row;
#pragma unroll 2
    for (int c = lane; c < width; c += 32)
#pragma unroll
      for (int i = 0; i < rows_at_once; ++i) sum[i] += fmaxf(query[c] * low[i][c], query[c] * low[i][row + c]);
#pragma unroll
    for (int i = 0; i < rows_at_once; ++i) {
      sum[i] = warp_sum(sum[i]);
      if (lane == 0 && first + i < count) out[first + i] = sum[i];
    }
  }
}

/// Block (row, head). Page j is counted from the newest one.
__global__ void __launch_bounds__(choose_threads) decode_pages_kernel(const Decode a) {
  SIMT_DYN_SHARED(float, query);
  DecodePlace at(a, blockIdx.x, blockIdx.y);
  if (at.visible == 0) return;
  load_query(a, at, query, a.width);
  __syncthreads();
  constexpr int rows = page_rows;
  int64_t pair = at.pair(a);
  int ring_pages = a.slots / rows, newest = at.newest_slot / rows, newest_rows = at.newest_slot % rows;
  int pages = static_cast<int>(at.pages()), groups = (at.visible - 1) / rows + 1;
  float *by_page = a.bounds + pair * 2 * a.most_pages, *by_group = by_page + a.most_pages;
  bound_rows(
      query, a.key_bounds.of<float>(at.sequence, at.head), a.key_bounds.row, a.width, pages,
      [&](int j) { return 2 * (newest - j + (newest < j ? ring_pages : 0)); }, by_page);
  bound_rows(
      query + a.width, a.r_bounds.of<float>(0, at.head), a.r_bounds.row, a.width, groups,
      [&](int e) { return 2 * (e < a.groups ? e : a.groups - 1); }, by_group);
  __syncthreads();
  // Distances of page j's keys: [first, last], those within the window.
  auto first_of = [&](int j) { return max(newest_rows + j * rows - (rows - 1), 0); };
  auto last_of = [&](int j) { return min(newest_rows + j * rows, at.visible - 1); };
  for (int j = threadIdx.x; j < pages; j += choose_threads)
    by_page[j] += fmaxf(by_group[first_of(j) / rows], by_group[last_of(j) / rows]);
  __syncthreads();
  for (int j = threadIdx.x; j < pages; j += choose_threads) {
    int place = j;
    if (j > 1) {
      uint32_t own = order_of(by_page[j]);
      place = 2;
      for (int other = 2; other < pages; ++other) {
        uint32_t value = order_of(by_page[other]);
        place += value > own || (value == own && other < j);
      }
    }
    if (place < a.splits) a.runs[pair * a.splits + place] = {first_of(j), last_of(j) - first_of(j) + 1};
  }
}

}  // namespace

void GpuDevice::decode_choose_pages(Decode& d, int64_t n) {
  int64_t pairs = n * d.heads;
  d.runs = scratch<DecodeRun>(pairs * d.splits), d.bounds = scratch<float>(pairs * 2 * d.most_pages);
  launch({"attention_decode", dim3(static_cast<unsigned>(n), static_cast<unsigned>(d.heads)), dim3(choose_threads),
          2 * d.width * sizeof(float), Shape{n, d.heads, d.width}},
         decode_pages_kernel, d);
}

}  // namespace longhand::LONGHAND_GPU
