// Exact top-k of rows of scores: sort -> radix selection by 8 bits -> by 11 bits, as the engine's attention_topk.cu has
// it. Kept are the `keep` largest; of equal scores the later place (the nearer key). The result is a bit a score.
//
// Only the set is wanted, not its order, and the set needs one number: the smallest score that is kept. A sort passes
// over the whole row once for each of its (log2 n)(log2 n + 1) / 2 stages, 78 for 4,096 scores, in shared memory, which
// bounds n; radix selection reads the row four or five times, from cache after the first, whatever n and `keep` are.
#include <algorithm>
#include <numeric>

#include "bench/progression/harness.h"

namespace longhand::progression {
namespace {

constexpr int threads = 128;

struct Sizes {
  int rows, columns, keep;  // columns is a power of two, up to 4096: a row fits shared memory
};

/// An integer of the float's order; -0 is 0.
__device__ uint32_t order_of(float score) {
  uint32_t bits = __float_as_uint(score + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// Step 1. Bitonic sort of (order, place) in shared memory; the first `keep` places are marked.

template <int columns>
__global__ void __launch_bounds__(threads) sort_kernel(const float* scores, uint32_t* mask, int keep) {
  SIMT_SHARED(unsigned long long, key, [columns]);
  const float* row = scores + static_cast<int64_t>(blockIdx.x) * columns;
  for (int i = threadIdx.x; i < columns; i += threads)
    key[i] = static_cast<unsigned long long>(order_of(row[i])) << 32 | static_cast<uint32_t>(i);
  for (int run = 2; run <= columns; run *= 2)
    for (int apart = run / 2; apart > 0; apart /= 2) {
      __syncthreads();
      for (int i = threadIdx.x; i < columns; i += threads) {
        int other = i ^ apart;
        if (other < i) continue;
        bool falling = (i & run) == 0;
        if (falling != (key[i] > key[other])) {
          unsigned long long swapped = key[i];
          key[i] = key[other], key[other] = swapped;
        }
      }
    }
  __syncthreads();
  mask += static_cast<int64_t>(blockIdx.x) * (columns / 32);
  for (int i = threadIdx.x; i < columns / 32; i += threads) mask[i] = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < keep; i += threads) {
    auto place = static_cast<uint32_t>(key[i]);
    atomicOr(&mask[place / 32], 1u << place % 32);  // a bit each: the order does not show
  }
}

// Steps 2 and 3. Digit by digit from the top: a histogram of the scores that share the digits found so far says in
// which bin the last score to be kept lies. Wider digits need fewer passes and spread scores of one size over more
// bins, so that fewer threads meet in one counter.

template <int bits>
__global__ void __launch_bounds__(threads) radix_kernel(const float* scores, uint32_t* mask, int columns, int keep) {
  constexpr int bins = 1 << bits, each = bins / threads;
  SIMT_SHARED(int, count, [bins]);
  SIMT_SHARED(int, above, [threads / 32]);
  SIMT_SHARED(int, found, [2]);
  const float* row = scores + static_cast<int64_t>(blockIdx.x) * columns;
  uint32_t prefix = 0, known = 0;  // the digits found so far, and their bits
  int wanted = keep, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int shift = 32; shift > 0;) {
    int digit_bits = min(bits, shift);
    shift -= digit_bits;
    uint32_t digit_mask = (1u << digit_bits) - 1;
    for (int bin = threadIdx.x; bin < bins; bin += threads) count[bin] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < columns; i += threads) {
      uint32_t order = order_of(row[i]);
      if ((order & known) == prefix) atomicAdd(&count[order >> shift & digit_mask], 1);
    }
    __syncthreads();
    // Thread 0 has the highest bins; `before` is how many scores lie above a thread's.
    int top = bins - 1 - static_cast<int>(threadIdx.x) * each, own = 0;
    for (int i = 0; i < each; ++i) own += count[top - i];
    int before = own;
    for (int step = 1; step < 32; step *= 2) {
      int other = __shfl_up_sync(all_lanes, before, step);
      if (lane >= step) before += other;
    }
    if (lane == 31) above[warp] = before;
    __syncthreads();
    for (int w = 0; w < warp; ++w) before += above[w];
    before -= own;
    if (before < wanted && wanted <= before + own) {
      int bin = top;
      for (; before + count[bin] < wanted; --bin) before += count[bin];
      found[0] = bin, found[1] = wanted - before;
    }
    __syncthreads();
    prefix |= static_cast<uint32_t>(found[0]) << shift, known |= digit_mask << shift, wanted = found[1];
    __syncthreads();
  }
  // Above the threshold all are kept; of those equal to it the last `wanted`. One warp walks from the end.
  if (warp > 0) return;
  mask += static_cast<int64_t>(blockIdx.x) * (columns / 32);
  for (int base = columns - 32; base >= 0; base -= 32) {
    uint32_t order = order_of(row[base + lane]);
    unsigned equal = __ballot_sync(all_lanes, order == prefix), larger = __ballot_sync(all_lanes, order > prefix);
    for (int surplus = __popc(equal) - wanted; surplus > 0; --surplus) equal &= equal - 1;
    wanted -= __popc(equal);
    if (lane == 0) mask[base / 32] = equal | larger;
  }
}

std::vector<double> plain(const std::vector<float>& scores, Sizes s) {
  std::vector<double> kept(scores.size());
  for (int row = 0; row < s.rows; ++row) {
    const float* at = scores.data() + static_cast<int64_t>(row) * s.columns;
    std::vector<int> places(s.columns);
    std::iota(places.begin(), places.end(), 0);
    std::sort(places.begin(), places.end(), [&](int a, int b) { return at[a] != at[b] ? at[a] > at[b] : a > b; });
    for (int i = 0; i < s.keep; ++i) kept[static_cast<int64_t>(row) * s.columns + places[i]] = 1;
  }
  return kept;
}

}  // namespace

Exercise topk(Memory& memory, bool full) {
  Sizes s = full ? Sizes{4096, 4096, 256} : Sizes{6, 256, 37};
  int64_t entries = int64_t{s.rows} * s.columns, words = entries / 32;
  std::vector<float> scores = memory.random(entries);
  for (size_t i = 0; i < scores.size(); i += 3) scores[i] = std::round(scores[i] * 8) / 8;  // many equals, 0 and -0
  const float* there = scores.empty() ? memory.array<float>(entries) : memory.upload(scores);
  uint32_t* mask = memory.array<uint32_t>(words);
  double row_bytes = 4.0 * static_cast<double>(entries), mask_bytes = 4.0 * static_cast<double>(words);
  dim3 rows(s.rows), block(threads);
  std::vector<Step> steps = {
      {"sort in shared memory", row_bytes + 3 * mask_bytes + 8.0 * s.rows * s.keep,
       [=] { start(full ? sort_kernel<4096> : sort_kernel<256>, rows, block, there, mask, s.keep); }},
      {"radix, 8 bits", 5 * row_bytes + mask_bytes,
       [=] { start(radix_kernel<8>, rows, block, there, mask, s.columns, s.keep); }},
      {"radix, 11 bits", 4 * row_bytes + mask_bytes,
       [=] { start(radix_kernel<11>, rows, block, there, mask, s.columns, s.keep); }}};
  auto result = [=, &memory] {
    std::vector<uint32_t> found = memory.download(mask, words);
    std::vector<float> bits;
    for (int64_t i = 0; i < entries; ++i) bits.push_back(static_cast<float>(found[i / 32] >> i % 32 & 1));
    return bits;
  };
  return {fmt::format("exact top-k: rows={} columns={} k={}", s.rows, s.columns, s.keep),
          steps,
          [=, &memory] { memory.write(mask, std::vector<uint32_t>(words, 0xa5a5a5a5u)); },
          result,
          [=] { return plain(scores, s); },
          0};
}

}  // namespace longhand::progression
