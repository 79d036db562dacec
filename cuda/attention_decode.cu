// Relative attention over rings, one query at a time, without gradients.
//
//   a_d = ((q + u) . key[p - d] + (q + v) . r[min(d, distances - 1)]) / sqrt(dh),   0 <= d < min(window, p + 1)
//   out = softmax(a) . value, over all d or over the topk largest a_d (the nearer d among equals)
//
// The distances are cut into splits of fixed length, which depends on the window alone; a block takes one split of one
// query and head, and a query's bits do not depend on its neighbours. Within a block a group of lanes takes a row of
// keys, each lane 16 bytes of it at once (one element where rows are not aligned), four rows in flight.
//   Dense: every split leaves its largest score, its sum and its weighted values; a second kernel adds them in order.
//   Pages: the same, a split being a page that the query keeps (cuda/attention_decode_pages.cu chooses them).
//   Top-k: the first kernel leaves the scores, the second finds the topk-th largest by radix selection, lists the kept
//   distances in rising order and adds their values.
// Integers of 8 bits become floats as they are loaded; a row's scale multiplies its sum, or its weight. Moves
// N·H·window·dh elements of keys and as many of values (top-k: topk of them; pages: 64 a page of both); r is shared by
// all queries and comes from the second-level cache. Limit: memory bandwidth.
#include <algorithm>
#include <cmath>
#include <type_traits>

#include "cuda/attention_decode.h"
#include "cuda/gpu_device.h"
#include "cuda/ring.h"
#include "src/device/ring_checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int split_threads = 128, select_threads = 256, combine_threads = 128;
constexpr int longest_split = 512, rows_in_flight = 4, most_columns = 256;

/// Keys, values and r of a block's sequence and head.
template <class T>
struct Place : DecodePlace {
  const T *keys, *values, *r;
  const float *key_scales, *value_scales, *r_scales;

  __device__ __forceinline__ Place(const Decode& a, int row, int head) : DecodePlace(a, row, head) {
    keys = a.keys.of<T>(sequence, head), values = a.values.of<T>(sequence, head), r = a.r.of<T>(0, head);
    if constexpr (sizeof(T) == 1) {
      key_scales = a.key_scales.of<float>(sequence, head), value_scales = a.value_scales.of<float>(sequence, head);
      r_scales = a.r_scales.of<float>(0, head);
    }
  }
};

/// P neighbouring elements of a row as floats, zeros beyond its end.
template <int P, class T>
__device__ __forceinline__ void load_columns(float (&x)[P], const T* row, int column, int width) {
  if constexpr (P == 1) {
    x[0] = column < width ? to_float(row[column]) : 0.0f;
  } else if (column < width) {
    load_piece(x, row + column);
  } else {
#pragma unroll
    for (int i = 0; i < P; ++i) x[i] = 0.0f;
  }
}

template <int P>
__device__ __forceinline__ void add_products(float (&sum)[rows_in_flight], const float* query,
                                             const float (&x)[rows_in_flight][P]) {
#pragma unroll
  for (int c = 0; c < P; ++c) {
    float q = query[c];
#pragma unroll
    for (int i = 0; i < rows_in_flight; ++i) sum[i] += q * x[i][c];
  }
}

/// scores[j] = the score at distance first + j, j < count.
template <int P, class T>
__device__ __forceinline__ void score_rows(const Decode& a, const Place<T>& at, const float* query, int padded,
                                           int first, int count, float* scores) {
  int lane = threadIdx.x % a.group, group = threadIdx.x / a.group, groups = split_threads / a.group;
  for (int base = 0; base < count; base += groups * rows_in_flight) {
    const T *key[rows_in_flight], *r[rows_in_flight];
    float sum[rows_in_flight], position_sum[rows_in_flight], scale[2][rows_in_flight];
#pragma unroll
    for (int i = 0; i < rows_in_flight; ++i) {
      int j = base + i * groups + group;
      int distance = first + (j < count ? j : count - 1), slot = at.slot(a, distance);
      int r_row = distance < a.distances ? distance : a.distances - 1;
      key[i] = at.keys + slot * a.keys.row, r[i] = at.r + r_row * a.r.row;
      sum[i] = position_sum[i] = 0.0f;
      if constexpr (sizeof(T) == 1)
        scale[0][i] = at.key_scales[slot * a.key_scales.row], scale[1][i] = at.r_scales[r_row * a.r_scales.row];
    }
    for (int column = lane * P; column < padded; column += a.group * P) {
      float x[rows_in_flight][P];
#pragma unroll
      for (int i = 0; i < rows_in_flight; ++i) load_columns(x[i], key[i], column, a.width);
      add_products(sum, query + column, x);
#pragma unroll
      for (int i = 0; i < rows_in_flight; ++i) load_columns(x[i], r[i], column, a.width);
      add_products(sizeof(T) == 1 ? position_sum : sum, query + padded + column, x);
    }
#pragma unroll
    for (int i = 0; i < rows_in_flight; ++i) {
      if constexpr (sizeof(T) == 1) sum[i] = sum[i] * scale[0][i] + position_sum[i] * scale[1][i];
      for (int step = a.group / 2; step > 0; step /= 2) sum[i] += __shfl_xor_sync(all_lanes, sum[i], step);
      int j = base + i * groups + group;
      if (lane == 0 && j < count) scores[j] = sum[i];
    }
  }
}

/// store(c, sum over j of weight(j) * value(row at distance_of(j))[c]) for every column c; `sums` has
/// [threads / 32][most_columns] floats. Groups of lanes take every groups-th row; lanes, then warps add in a fixed
/// order.
template <int P, int threads, class T, class Weight, class Distance, class Store>
__device__ __forceinline__ void add_values(const Decode& a, const Place<T>& at, int count, float* sums,
                                           const Weight& weight, const Distance& distance_of, const Store& store) {
  int lane = threadIdx.x % a.group, group = threadIdx.x / a.group, groups = threads / a.group;
  int columns = a.group * P;
  for (int first = 0; first < a.width; first += columns) {
    float sum[P] = {};
    for (int base = 0; base < count; base += groups * rows_in_flight) {
      float x[rows_in_flight][P], w[rows_in_flight];
#pragma unroll
      for (int i = 0; i < rows_in_flight; ++i) {
        int j = base + i * groups + group, valid = j < count ? j : count - 1;
        int slot = at.slot(a, distance_of(valid));
        w[i] = j < count ? weight(valid) : 0.0f;
        if constexpr (sizeof(T) == 1) w[i] *= at.value_scales[slot * a.value_scales.row];
        load_columns(x[i], at.values + slot * a.values.row, first + lane * P, a.width);
      }
#pragma unroll
      for (int i = 0; i < rows_in_flight; ++i)
#pragma unroll
        for (int c = 0; c < P; ++c) sum[c] += w[i] * x[i][c];
    }
#pragma unroll
    for (int c = 0; c < P; ++c) {
      for (int step = a.group; step < 32; step *= 2) sum[c] += __shfl_xor_sync(all_lanes, sum[c], step);
      if (static_cast<int>(threadIdx.x % 32) < a.group) sums[threadIdx.x / 32 * most_columns + lane * P + c] = sum[c];
    }
    __syncthreads();
    for (int c = threadIdx.x; c < columns && first + c < a.width; c += threads) {
      float total = 0;
#pragma unroll
      for (int warp = 0; warp < threads / 32; ++warp) total += sums[warp * most_columns + c];
      store(first + c, total);
    }
    __syncthreads();
  }
}

/// scores[j] becomes exp(scores[j] - largest), in place; returns their sum in every thread.
template <int threads>
__device__ __forceinline__ float exponentials(float* scores, int count, float largest, float* shared) {
  float sum = 0;
  for (int j = threadIdx.x; j < count; j += threads) sum += scores[j] = expf(scores[j] - largest);
  return block_sum<threads>(sum, shared);
}

/// How many splits a query's keys take.
__device__ __forceinline__ int splits_of(const Decode& a, const DecodePlace& at) {
  if (!a.pages || at.visible == 0) return (at.visible + a.split - 1) / a.split;
  return at.pages() < a.splits ? static_cast<int>(at.pages()) : a.splits;
}

/// Block (row * splits + split, head). Dense, pages: the split's partial result. Top-k: its scores.
template <int P, class T>
__global__ void __launch_bounds__(split_threads, 4) decode_split_kernel(const Decode a) {
  SIMT_SHARED(float, scores, [longest_split]);
  SIMT_SHARED(float, sums, [split_threads / 32 * most_columns]);
  SIMT_SHARED(float, warps, [split_threads / 32]);
  SIMT_DYN_SHARED(float, query);
  Place<T> at(a, blockIdx.x / a.splits, blockIdx.y);
  int split = static_cast<int>(blockIdx.x % a.splits), first = split * a.split;
  int64_t pair = at.pair(a);
  if (at.visible == 0 && split == 0 && threadIdx.x == 0) report_fault(a.fault, at.row, a.sequence[at.row]);
  if (split >= splits_of(a, at)) return;
  int count = at.visible - first < a.split ? at.visible - first : a.split;
  if (a.pages) first = a.runs[pair * a.splits + split].first, count = a.runs[pair * a.splits + split].count;
  int padded = (a.width + P - 1) / P * P;
  load_query(a, at, query, padded);
  __syncthreads();
  if (a.topk > 0 && !a.pages) {
    score_rows<P>(a, at, query, padded, first, count, a.scores + pair * a.window + first);
    return;
  }
  score_rows<P>(a, at, query, padded, first, count, scores);
  __syncthreads();
  float largest = scores[0];
  for (int j = threadIdx.x; j < count; j += split_threads) largest = fmaxf(largest, scores[j]);
  largest = block_max<split_threads>(largest, warps);
  float sum = exponentials<split_threads>(scores, count, largest, warps);
  float* partial = a.partial + (pair * a.splits + split) * (2 + a.width);
  if (threadIdx.x == 0) partial[0] = largest, partial[1] = sum;
  add_values<P, split_threads>(
      a, at, count, sums, [&](int j) { return scores[j]; }, [&](int j) { return first + j; },
      [&](int c, float x) { partial[2 + c] = x; });
}

/// Block (row, head): the splits' partial results, added in order.
__global__ void __launch_bounds__(combine_threads) decode_combine_kernel(const Decode a) {
  DecodePlace at(a, blockIdx.x, blockIdx.y);
  if (at.visible == 0) return;
  int splits = splits_of(a, at), step = 2 + a.width;
  const float* partial = a.partial + at.pair(a) * a.splits * step;
  float largest = partial[0];
  for (int s = 1; s < splits; ++s) largest = fmaxf(largest, partial[s * step]);
  for (int c = threadIdx.x; c < a.width; c += combine_threads) {
    float sum = 0, total = 0;
    for (int s = 0; s < splits; ++s) {
      float scale = expf(partial[s * step] - largest);
      total += scale * partial[s * step + 1], sum += scale * partial[s * step + 2 + c];
    }
    a.store(at.row * a.out_row + at.head * a.out_head + c, sum / total);
  }
}

/// An integer of the same order; -0 counts as 0.
__device__ __forceinline__ uint32_t ordered(float x) {
  uint32_t bits = __float_as_uint(x + 0.0f);
  return bits >> 31 ? ~bits : bits | 0x80000000u;
}

struct Threshold {
  uint32_t key;  // entries above it are kept, of those that equal it the first `equal`
  int equal;
};

/// The keep-th largest of `count` scores, by its bytes from the top: a histogram of those that share the bytes found.
__device__ __forceinline__ Threshold find_threshold(const float* scores, int count, int keep, int* histogram,
                                                    Threshold* shared) {
  Threshold found{0, keep};
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int bin = threadIdx.x; bin < 256; bin += select_threads) histogram[bin] = 0;
    __syncthreads();
    for (int j = threadIdx.x; j < count; j += select_threads) {
      uint32_t key = ordered(scores[j]);
      if (shift == 24 || (key ^ found.key) >> (shift + 8) == 0) atomicAdd(&histogram[key >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
      // Lane l has the eight bins down from 255 - 8 l; it finds the byte when the sum passes `equal` among them.
      int top = 255 - 8 * static_cast<int>(threadIdx.x), own = 0;
#pragma unroll
      for (int i = 0; i < 8; ++i) own += histogram[top - i];
      int before = own;
#pragma unroll
      for (int step = 1; step < 32; step *= 2) {
        int other = __shfl_up_sync(all_lanes, before, step);
        if (threadIdx.x >= static_cast<unsigned>(step)) before += other;
      }
      before -= own;
      if (before < found.equal && before + own >= found.equal) {
        int bin = top;
        for (; before + histogram[bin] < found.equal; --bin) before += histogram[bin];
        *shared = {found.key | static_cast<uint32_t>(bin) << shift, found.equal - before};
      }
    }
    __syncthreads();
    found = *shared;
  }
  return found;
}

/// The sum of x over the threads before this one.
__device__ __forceinline__ int sum_before(int x, int* warps) {
  int sum = x, lane = threadIdx.x % 32;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    int other = __shfl_up_sync(all_lanes, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) warps[threadIdx.x / 32] = sum;
  __syncthreads();
  for (int warp = 0; warp < static_cast<int>(threadIdx.x) / 32; ++warp) sum += warps[warp];
  __syncthreads();
  return sum - x;
}

/// Block (row, head): lists the topk largest scores in the order of their distances, then their softmax and values.
/// Every thread looks through one stretch of neighbouring distances.
template <int P, class T>
__global__ void __launch_bounds__(select_threads, P == 1 ? 6 : 0) decode_select_kernel(const Decode a) {
  SIMT_SHARED(int, histogram, [256]);
  SIMT_SHARED(Threshold, threshold, [1]);
  SIMT_SHARED(int, counts, [select_threads / 32]);
  SIMT_SHARED(float, sums, [select_threads / 32 * most_columns]);
  SIMT_SHARED(float, warps, [select_threads / 32]);
  Place<T> at(a, blockIdx.x, blockIdx.y);
  if (at.visible == 0) return;
  int64_t pair = at.pair(a);
  const float* scores = a.scores + pair * a.window;
  float* weights = a.weights + pair * a.topk;
  int32_t* chosen = a.chosen + pair * a.topk;
  int visible = at.visible, keep = a.topk < visible ? a.topk : visible;

  Threshold least = find_threshold(scores, visible, keep, histogram, threshold);
  int each = (visible + select_threads - 1) / select_threads, begin = each * static_cast<int>(threadIdx.x);
  int end = begin + each < visible ? begin + each : visible, above = 0, equal = 0;
  float largest = scores[0];
  for (int j = begin; j < end; ++j) {
    uint32_t key = ordered(scores[j]);
    above += key > least.key, equal += key == least.key, largest = fmaxf(largest, scores[j]);
  }
  int equal_before = sum_before(equal, counts), place = sum_before(above, counts);
  place += equal_before < least.equal ? equal_before : least.equal;
  for (int j = begin; j < end; ++j) {
    uint32_t key = ordered(scores[j]);
    if (key > least.key || (key == least.key && equal_before++ < least.equal))
      chosen[place] = j, weights[place++] = scores[j];
  }
  largest = block_max<select_threads>(largest, warps);
  float sum = exponentials<select_threads>(weights, keep, largest, warps);
  add_values<P, select_threads>(
      a, at, keep, sums, [&](int j) { return weights[j]; }, [&](int j) { return chosen[j]; },
      [&](int c, float x) { a.store(at.row * a.out_row + at.head * a.out_head + c, x / sum); });
}

/// Rows of keys, values and r all begin at multiples of 16 bytes.
bool rows_aligned(const AttentionDecode& a) {
  int64_t piece = 16 / dtype_bytes(a.keys.type());
  auto aligned = [&](const ConstTensor& t) {
    bool strides = t.size(t.rank() - 1) % piece == 0;
    for (int axis = 0; axis + 1 < t.rank(); ++axis)
      strides = strides && (t.size(axis) == 1 || t.stride(axis) % piece == 0);
    return strides && aligned16(t.data());
  };
  return aligned(a.keys) && aligned(a.values) && aligned(a.r);
}

DecodeRows ring_rows(const ConstTensor& t) { return {t.data(), t.stride(0), t.stride(1), t.stride(2)}; }
DecodeRows table_rows(const ConstTensor& t) { return {t.data(), 0, t.stride(0), t.stride(1)}; }

Decode arguments(const AttentionDecode& a) {
  Decode d{.q = a.q.data(), .u = a.u.data(), .v = a.v.data(), .out = a.out.data(), .half = a.q.type() == Dtype::bf16};
  d.keys = ring_rows(a.keys), d.values = ring_rows(a.values), d.r = table_rows(a.r);
  d.key_scales = ring_rows(a.key_scales), d.value_scales = ring_rows(a.value_scales);
  d.r_scales = table_rows(a.r_scales);
  d.position = static_cast<const int64_t*>(a.position.data()),
  d.sequence = static_cast<const int32_t*>(a.sequence.data());
  d.out_row = a.out.stride(0), d.out_head = a.out.stride(1), d.q_row = a.q.stride(0), d.q_head = a.q.stride(1);
  d.u_head = a.u.stride(0), d.v_head = a.v.stride(0);
  auto count = [](int64_t n) { return static_cast<int>(n); };
  d.sequences = a.keys.size(0), d.slots = count(a.keys.size(1));
  d.window = count(a.window), d.distances = count(a.r.size(0));
  d.heads = count(a.q.size(1)), d.width = count(a.q.size(2));
  d.sigma = static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.q.size(2))));
  d.most_pages = (a.window + 2 * page_rows - 2) / page_rows;
  if (a.topk > 0 && a.topk_mode == TopkMode::block && pages_kept(a.topk) < d.most_pages) {
    d.pages = true, d.topk = count(a.topk), d.split = page_rows, d.splits = count(pages_kept(a.topk));
    d.key_bounds = ring_rows(a.key_bounds), d.r_bounds = table_rows(a.r_bounds);
    d.groups = count(a.r_bounds.size(0) / 2);
    return d;
  }
  if (a.topk_mode == TopkMode::exact && a.topk < a.window) d.topk = count(a.topk);
  // About 32 splits a head, so that a single query fills the card; none shorter than 64 keys.
  d.split = std::clamp((d.window + 32 * 64 - 1) / (32 * 64) * 64, 64, longest_split);
  d.splits = (d.window + d.split - 1) / d.split;
  return d;
}

}  // namespace

void GpuDevice::attention_decode(const AttentionDecode& a) {
  check_attention_decode(a);
  Operation operation(*this);
  int64_t n = a.q.size(0), heads = a.q.size(1), width = a.q.size(2);
  if (n * heads * width == 0) return;
  Decode d = arguments(a);
  d.fault = fault(Fault::decode_sequence, d.sequences);
  if (d.pages) decode_choose_pages(d, n);
  if (d.topk == 0 || d.pages) {
    d.partial = scratch<float>(n * heads * d.splits * (2 + width));
  } else {
    d.scores = scratch<float>(n * heads * d.window);
    d.weights = scratch<float>(n * heads * d.topk), d.chosen = scratch<int32_t>(n * heads * d.topk);
  }
  for_ring_type(a.keys.type(), [&](auto zero) {
    using T = decltype(zero);
    auto run = [&]<int P>(std::integral_constant<int, P>) {
      for (d.group = 1; d.group < 32 && d.group * P < std::min<int64_t>(width, most_columns);) d.group *= 2;
      size_t query = (width + P - 1) / P * P * 2 * sizeof(float);  // padded, twice
      dim3 rows(static_cast<unsigned>(n), static_cast<unsigned>(heads));
      dim3 splits(static_cast<unsigned>(n * d.splits), static_cast<unsigned>(heads));
      launch({"attention_decode", splits, dim3(split_threads), query, a.q.shape()}, decode_split_kernel<P, T>, d);
      if (d.partial)
        launch({"attention_decode", rows, dim3(combine_threads), 0, a.q.shape()}, decode_combine_kernel, d);
      else
        launch({"attention_decode", rows, dim3(select_threads), 0, a.q.shape()}, decode_select_kernel<P, T>, d);
    };
    if (rows_aligned(a))
      run(std::integral_constant<int, piece<T>>{});
    else
      run(std::integral_constant<int, 1>{});
  });
}

}  // namespace longhand::LONGHAND_GPU
