// Exact top-k of attention: which keys a query keeps, and the attention over them.
//
//   kept = the min(topk, visible) largest scores, the nearer key among equals;   out_i = sum over kept of P Z value
//
// A block takes one query. The scores, as integers in the order of the floats (-0 is 0, a NaN comes first), fall into
// the bins of three histograms of 11, 11 and 10 bits: each finds one digit of the smallest score that is kept and how
// many of the scores equal in the digits so far are wanted. Counts are integers, so the order of the atomic additions
// does not matter. Eleven bits, not eight: the first digit then holds two bits of the fraction, and scores of one size
// spread. Each warp then walks every fourth group of 32 keys, writes its half of the mask's words, and sums its kept
// rows of value; the four sums meet in a fixed order.
//
// The row of scores is read 5 times: for three histograms, the largest, and the sum (once more for every further 256
// channels, and from the nearest key to the farthest equal that is kept where too many are equal); 2 times where all
// keys are kept. Moves: these (the first from L2, the others mostly from L1), topk rows of value; limit: L2 bandwidth.
#include <algorithm>

#include "cuda/attention.h"
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int block_threads = 128, warps = block_threads / 32;
constexpr int bins = 2048, bins_of_thread = bins / block_threads;
constexpr int widest = 8;  // groups of 32 channels that a slice of a row takes: 256

struct SelectShared {
  int count[bins_of_thread * (block_threads + 1)];
  float out[warps][32 * widest];
  float sum[warps];
  int above[warps], digit, wanted, farthest_equal;
};

/// A bin's counter: 16 neighbouring bins belong to one thread and lie in different banks.
__device__ __forceinline__ int place_of(int bin) {
  return bin % bins_of_thread * (block_threads + 1) + bin / bins_of_thread;
}

/// The bin in which the `wanted`-th largest lies; `wanted` becomes its rank among those of that bin, and `inside` how
/// many the bin has. The counts of `s` are complete and visible.
__device__ int find_digit(SelectShared& s, int& wanted, int& inside) {
  const int* count = s.count + (block_threads - 1 - threadIdx.x);  // thread 0 takes the highest bins
  int own = 0;
#pragma unroll
  for (int i = 0; i < bins_of_thread; ++i) own += count[i * (block_threads + 1)];
  int before = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    int other = __shfl_up_sync(all_lanes, before, step);
    if (static_cast<int>(threadIdx.x % 32) >= step) before += other;
  }
  if (threadIdx.x % 32 == 31) s.above[threadIdx.x / 32] = before;
  __syncthreads();
  for (unsigned warp = 0; warp < threadIdx.x / 32; ++warp) before += s.above[warp];
  before -= own;  // scores in the bins above this thread's
  if (before < wanted && wanted <= before + own) {
    int bin = bins_of_thread - 1;
    while (before + count[bin * (block_threads + 1)] < wanted) before += count[bin-- * (block_threads + 1)];
    s.digit = static_cast<int>(block_threads - 1 - threadIdx.x) * bins_of_thread + bin, s.wanted = wanted - before;
  }
  __syncthreads();
  wanted = s.wanted, inside = s.count[place_of(s.digit)];
  return s.digit;
}

/// What is kept: orders above `least`, and those equal to it from key `from` on.
struct Threshold {
  uint32_t least;
  int from;
};

/// The threshold of the `wanted` largest of scores [first, last]. 1 <= wanted <= last - first + 1.
__device__ Threshold find_threshold(SelectShared& s, const float* scores, int first, int last, int wanted) {
  uint32_t prefix = 0, known = 0;  // digits found so far, and their bits
  int inside = 0;
#pragma unroll 1
  for (int shift = 21; shift >= 0; shift = shift == 21 ? 10 : shift - 10) {
    for (int i = threadIdx.x; i < bins_of_thread * (block_threads + 1); i += block_threads) s.count[i] = 0;
    __syncthreads();
    uint32_t mask = shift == 0 ? 1023u : 2047u;
    for (int key = first + threadIdx.x; key <= last; key += block_threads) {
      uint32_t order = order_of(scores[key]);
      if ((order & known) == prefix) atomicAdd(&s.count[place_of(order >> shift & mask)], 1);
    }
    __syncthreads();
    prefix |= static_cast<uint32_t>(find_digit(s, wanted, inside)) << shift, known |= mask << shift;
    __syncthreads();
  }
  if (inside == wanted) return {prefix, first};
  // More equals than are wanted: the first warp counts them from the nearest key on.
  if (threadIdx.x < 32) {
    int from = last + 1, rest = wanted;
    for (int base = last; rest > 0 && base >= first; base -= 32) {
      int key = base - static_cast<int>(threadIdx.x);
      unsigned equal = __ballot_sync(all_lanes, key >= first && order_of(scores[key < first ? first : key]) == prefix);
      int found = __popc(equal);
      for (; found > rest; --found) equal &= ~(0x80000000u >> __clz(static_cast<int>(equal)));
      rest -= found;
      if (rest == 0) from = base - (31 - __clz(static_cast<int>(equal)));
    }
    if (threadIdx.x == 0) s.farthest_equal = from;
  }
  __syncthreads();
  return {prefix, s.farthest_equal};
}

/// The largest score, in every thread.
__device__ float largest_of(SelectShared& s, const float* scores, int first, int last) {
  float largest = -INFINITY;
  for (int key = first + threadIdx.x; key <= last; key += block_threads) largest = fmaxf(largest, scores[key]);
  return block_max<block_threads>(largest, s.sum);
}

/// Adds this warp's share of the kept keys to `out` and returns its share of the softmax's sum; writes the mask.
template <class T>
__device__ float sum_kept(float (&out)[widest], const Attention& a, const float* scores, int lane, int head, int query,
                          Threshold threshold, float largest, int channel) {
  int first = a.first_visible(lane, query), last = a.last_visible(query), thread = threadIdx.x % 32;
  uint32_t* mask = reinterpret_cast<uint32_t*>(a.selected_row(lane, head, query));
  float base = largest == -INFINITY ? 0.0f : largest, sum = 0;
  for (int group = threadIdx.x / 32; group < 2 * a.words; group += warps) {
    int key = 32 * group + thread;
    bool keep = false;
    float p = 0;
    if (key >= first && key <= last) {
      float score = scores[key];
      uint32_t order = order_of(score);
      keep = order > threshold.least || (order == threshold.least && key >= threshold.from);
      if (keep) p = expf(score - base);
    }
    uint32_t kept = __ballot_sync(all_lanes, keep);
    if (thread == 0) mask[group] = kept;
    sum += p;
    if (kept == 0) continue;
    if (a.dropout.on) p *= keep ? a.dropout.factor(a.dropout_element(lane, head, query, key)) : 0.0f;
    for (; kept; kept &= kept - 1) {
      int place = __ffs(static_cast<int>(kept)) - 1;
      float weight = __shfl_sync(all_lanes, p, place);
      const T* value = a.value.row<const T>(32 * group + place, lane, head) + channel;
#pragma unroll
      for (int i = 0; i < widest; ++i)
        if (channel + thread + 32 * i < a.width) out[i] = fmaf(weight, to_float(value[thread + 32 * i]), out[i]);
    }
  }
  return warp_sum(sum);
}

/// Block (query of the 64, tile): selected, lse and out of one query, from its row of scores.
template <class T>
__global__ void __launch_bounds__(block_threads)
    select_kernel(const Attention a, const float* all_scores, int64_t first_tile) {
  SIMT_SHARED_ALIGNED(16, SelectShared, s);
  int64_t place = first_tile + blockIdx.y;
  int query = static_cast<int>(place % a.tiles()) * 64 + static_cast<int>(blockIdx.x);
  int pair = static_cast<int>(place / a.tiles()), head = pair % a.heads, lane = pair / a.heads;
  if (query >= a.queries) return;
  const float* scores = all_scores + (static_cast<int64_t>(blockIdx.y) * 64 + blockIdx.x) * a.keys;
  int first = a.first_visible(lane, query), last = a.last_visible(query), visible = last - first + 1;
  Threshold threshold{0, first};
  if (a.topk < visible) threshold = find_threshold(s, scores, first, last, static_cast<int>(a.topk));
  float largest = largest_of(s, scores, first, last);
  int warp = threadIdx.x / 32;
  for (int channel = 0; channel < a.width; channel += 32 * widest) {
    float out[widest] = {};
    float sum = sum_kept<T>(out, a, scores, lane, head, query, threshold, largest, channel);
    if (threadIdx.x % 32 == 0) s.sum[warp] = sum;
#pragma unroll
    for (int i = 0; i < widest; ++i) s.out[warp][threadIdx.x % 32 + 32 * i] = out[i];
    __syncthreads();
    float whole = 0;
    for (int part = 0; part < warps; ++part) whole += s.sum[part];
    if (channel == 0 && threadIdx.x == 0) a.lse_row(lane, head)[query] = largest + logf(whole);
    for (int c = threadIdx.x; c < 32 * widest && channel + c < a.width; c += block_threads) {
      float x = 0;
      for (int part = 0; part < warps; ++part) x += s.out[part][c];
      a.out.row<T>(query, lane, head)[channel + c] = from_float<T>(x / whole);
    }
    __syncthreads();
  }
}

}  // namespace

void GpuDevice::attention_select_keys(const Attention& a, const float* scores, int64_t first, int64_t count) {
  for_type(a.half ? Dtype::bf16 : Dtype::fp32, [&](auto zero) {
    launch({"attention_forward",
            dim3(64, static_cast<unsigned>(count)),
            dim3(block_threads),
            0,
            {a.queries, a.lanes, a.heads, a.width}},
           select_kernel<decltype(zero)>, a, scores, first);
  });
}

}  // namespace longhand::LONGHAND_GPU
