// Choosing the next token of a row, by the rules in their order: repetition penalty, temperature, top-k, top-p, min-p.
//
// One block a row. The row goes to scratch in fp32, where the penalty changes it and tokens that are not allowed become
// -infinite, of weight 0. Weights are exp((z - largest) / T),
// in fixed point of 40 bits below 1 wherever they are added: integer sums have the same bits in every order. A token's
// key is its logit as an ordered word with its inverted id below, so that the larger key is the better token and the
// smaller id wins among equal logits. Top-k and top-p are both a cut of the keys: the best tokens until their number
// reaches k, or their weight the share p of the total. The cut is found by radix selection, 8 bits a pass: a histogram
// of the tokens that share the digits so far, the digit at which the goal is reached, and so on until that digit's
// tokens are all wanted. The draw walks the kept tokens in order of their ids: warps sum their part of the row, and the
// warp in which the goal lies walks through its part. Reads the row from memory once and 6 to 15 times from the L2
// cache; limit: one multiprocessor's share of the L2 cache a row.
#include <vector>

#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int most_threads = 1024, digits = 256;
constexpr int64_t wide_row = 4096;  // narrower rows are walked by fewer threads

/// A row's rule as the kernel takes it.
struct Rule {
  float temperature, top_p, min_p, penalty, uniform;
  int32_t top_k;
};

struct Row {
  const float* logits;
  int64_t vocabulary;
  Rule rule;
  float largest;

  __device__ __forceinline__ float weight(float logit) const { return expf((logit - largest) / rule.temperature); }
  __device__ __forceinline__ static uint64_t mass(float weight) {
    return static_cast<uint64_t>(weight * 1099511627776.0f);
  }
  /// Ascending with the logit, -0 as 0; among equal logits descending with the id.
  __device__ __forceinline__ uint64_t key(int64_t token) const {
    uint32_t word = __float_as_uint(logits[token] + 0.0f);
    word = word & 0x80000000u ? ~word : word | 0x80000000u;
    return static_cast<uint64_t>(word) << 32 | static_cast<uint32_t>(~static_cast<uint32_t>(token));
  }
};

struct Shared {
  unsigned long long histogram[digits];
  unsigned long long part[most_threads / 32];
  float word[most_threads / 32];
  unsigned long long prefix, goal;
  int done;
};

__device__ __forceinline__ int warps() { return static_cast<int>(blockDim.x) / 32; }

__device__ __forceinline__ uint64_t warp_total(uint64_t x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(all_lanes, x, step);
  return x;
}

__device__ __forceinline__ uint64_t block_total(uint64_t x, Shared& shared) {
  x = warp_total(x);
  if (threadIdx.x % 32 == 0) shared.part[threadIdx.x / 32] = x;
  __syncthreads();
  uint64_t total = 0;
  for (int warp = 0; warp < warps(); ++warp) total += shared.part[warp];
  __syncthreads();
  return total;
}

/// Warp 0: the digit at which the counts, from the best digit down, reach the goal. What lies above it is subtracted
/// from the goal; done when everything of the digit is wanted.
__device__ __forceinline__ void choose_digit(Shared& shared, int shift) {
  int lane = threadIdx.x;
  uint64_t counts[digits / 32], mine = 0;  // lane 0 has the best digits
#pragma unroll
  for (int i = 0; i < digits / 32; ++i) mine += counts[i] = shared.histogram[digits - 1 - (lane * (digits / 32) + i)];
  uint64_t through = mine, goal = shared.goal;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    uint64_t other = __shfl_up_sync(all_lanes, through, step);
    if (lane >= step) through += other;
  }
  uint64_t above = through - mine;
  __syncwarp();
  if (above >= goal || through < goal) return;  // one lane remains
#pragma unroll
  for (int i = 0; i < digits / 32; ++i) {
    if (above < goal && above + counts[i] >= goal) {
      shared.prefix |= static_cast<unsigned long long>(digits - 1 - (lane * (digits / 32) + i)) << shift;
      shared.goal = goal - above;
      shared.done = above + counts[i] == goal;
    }
    above += counts[i];
  }
}

/// The smallest key kept: the best tokens with at least the key `least`, until measure(token) adds up to `goal`, which
/// is above 0 and at most the total.
template <class Measure>
__device__ uint64_t cut(const Row& row, uint64_t least, uint64_t goal, Shared& shared, Measure measure) {
  if (threadIdx.x == 0) shared.prefix = 0, shared.goal = goal, shared.done = 0;
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int digit = threadIdx.x; digit < digits; digit += blockDim.x) shared.histogram[digit] = 0;
    __syncthreads();
    uint64_t prefix = shared.prefix;
    for (int64_t token = threadIdx.x; token < row.vocabulary; token += blockDim.x) {
      uint64_t key = row.key(token);
      bool shares = shift == 56 || key >> (shift + 8) == prefix >> (shift + 8);
      if (!shares || key < least) continue;
      unsigned long long amount = measure(token);
      if (amount) atomicAdd(&shared.histogram[key >> shift & (digits - 1)], amount);
    }
    __syncthreads();
    if (threadIdx.x < 32) choose_digit(shared, shift);
    __syncthreads();
    if (shared.done) break;
  }
  uint64_t found = shared.prefix;
  __syncthreads();
  return found > least ? found : least;
}

/// The token at which the running sum of kept(token), in order of ids, passes `uniform` times the total.
template <class Kept>
__device__ void draw(const Row& row, int32_t* token, Shared& shared, Kept kept) {
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t each = (row.vocabulary + warps() - 1) / warps(), first = warp * each;
  int64_t end = first + each < row.vocabulary ? first + each : row.vocabulary;
  uint64_t mine = 0;
  for (int64_t t = first + lane; t < end; t += 32) mine += kept(t);
  mine = warp_total(mine);
  if (lane == 0) shared.part[warp] = mine;
  __syncthreads();
  uint64_t total = 0, before = 0;
  for (int w = 0; w < warps(); ++w) {
    if (w == warp) before = total;
    total += shared.part[w];
  }
  uint64_t goal = static_cast<uint64_t>(static_cast<double>(row.rule.uniform) * static_cast<double>(total));
  if (before > goal || before + mine <= goal) return;
  for (int64_t base = first; base < end; base += 32) {
    uint64_t through = base + lane < end ? kept(base + lane) : 0;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      uint64_t other = __shfl_up_sync(all_lanes, through, step);
      if (lane >= step) through += other;
    }
    unsigned beyond = __ballot_sync(all_lanes, before + through > goal);
    if (beyond) {
      if (lane == 0) *token = static_cast<int32_t>(base + __ffs(static_cast<int>(beyond)) - 1);
      return;
    }
    before += __shfl_sync(all_lanes, through, 31);
  }
}

__device__ __forceinline__ void choose(const Row& row, int32_t* token, Shared& shared) {
  uint64_t least = 0;
  if (row.rule.top_k > 0 && row.rule.top_k < row.vocabulary)
    least = cut(row, 0, row.rule.top_k, shared, [](int64_t) { return 1ull; });
  if (row.rule.top_p < 1) {
    auto mass = [&](int64_t t) -> unsigned long long { return Row::mass(row.weight(row.logits[t])); };
    uint64_t mine = 0;
    for (int64_t t = threadIdx.x; t < row.vocabulary; t += blockDim.x)
      if (row.key(t) >= least) mine += mass(t);
    double share = static_cast<double>(row.rule.top_p) * static_cast<double>(block_total(mine, shared));
    uint64_t goal = static_cast<uint64_t>(ceil(share));
    least = cut(row, least, goal > 0 ? goal : 1, shared, mass);
  }
  draw(row, token, shared, [&](int64_t t) -> uint64_t {
    float weight = row.weight(row.logits[t]);
    return weight >= row.rule.min_p && row.key(t) >= least ? Row::mass(weight) : 0;
  });
}

__device__ __forceinline__ bool may(const uint64_t* allowed, int64_t token) {
  return !allowed || (allowed[token / 64] >> (token % 64) & 1);
}

/// The row in fp32 with the penalty: a token counts once however often it stands in the history. What is not allowed is
/// -infinite.
template <class T>
__device__ __forceinline__ void widen_and_penalise(float* to, const T* logits, int64_t vocabulary, float penalty,
                                                   const int32_t* history, int64_t length, const uint64_t* allowed,
                                                   unsigned long long* fault) {
  for (int64_t t = threadIdx.x; t < vocabulary; t += blockDim.x)
    to[t] = may(allowed, t) ? to_float(logits[t]) : -INFINITY;
  __syncthreads();
  for (int64_t i = threadIdx.x; i < length; i += blockDim.x) {
    int32_t token = history[i];
    if (token < -1 || token >= vocabulary) report_fault(fault, blockIdx.x, token);
    if (token < 0 || token >= vocabulary || penalty == 1 || !may(allowed, token)) continue;
    float raw = to_float(logits[token]);
    atomicExch(&to[token], raw > 0 ? raw / penalty : raw * penalty);  // the same value from every occurrence
  }
  __syncthreads();
}

/// The largest logit; NaN when one is.
__device__ __forceinline__ float largest_of(const float* logits, int64_t vocabulary, Shared& shared) {
  float largest = -INFINITY;
  bool strange = false;
  for (int64_t t = threadIdx.x; t < vocabulary; t += blockDim.x) {
    largest = fmaxf(largest, logits[t]);
    strange = strange || logits[t] != logits[t];
  }
  largest = warp_max(largest);
  if (threadIdx.x % 32 == 0) shared.word[threadIdx.x / 32] = largest;
  strange = __syncthreads_or(strange);
  for (int warp = 0; warp < warps(); ++warp) largest = fmaxf(largest, shared.word[warp]);
  return strange ? NAN : largest;
}

__device__ __forceinline__ void choose_largest(const Row& row, int32_t* token, Shared& shared) {
  uint64_t best = ~0ull;  // the smallest id
  for (int64_t t = threadIdx.x; t < row.vocabulary; t += blockDim.x)
    if (row.logits[t] == row.largest && static_cast<uint64_t>(t) < best) best = t;
  unsigned id = __reduce_min_sync(all_lanes, static_cast<unsigned>(best));
  if (threadIdx.x % 32 == 0) shared.part[threadIdx.x / 32] = id;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < warps(); ++warp)
    if (shared.part[warp] < id) id = static_cast<unsigned>(shared.part[warp]);
  *token = static_cast<int32_t>(id);
}

struct SampleRows {
  float* widened;
  const int32_t* history;
  const uint64_t* allowed;  // null = all
  int64_t vocabulary, length;
  const Rule* rules;
  unsigned long long *history_fault, *logits_fault;
};

template <class T>
__global__ void __launch_bounds__(most_threads) sample_kernel(int32_t* tokens, const T* logits, SampleRows a) {
  SIMT_SHARED(Shared, shared, );
  int64_t at = blockIdx.x;
  float* widened = a.widened + at * a.vocabulary;
  Rule rule = a.rules[at];
  const uint64_t* allowed = a.allowed ? a.allowed + at * ((a.vocabulary + 63) / 64) : nullptr;
  widen_and_penalise(widened, logits + at * a.vocabulary, a.vocabulary, rule.penalty, a.history + at * a.length,
                     a.length, allowed, a.history_fault);
  Row row{widened, a.vocabulary, rule, largest_of(widened, a.vocabulary, shared)};
  if (!(row.largest > -INFINITY && row.largest < INFINITY)) {
    if (threadIdx.x == 0) tokens[at] = 0, report_fault(a.logits_fault, at, 0);
    return;
  }
  if (rule.temperature == 0)
    choose_largest(row, tokens + at, shared);
  else
    choose(row, tokens + at, shared);
}

}  // namespace

void GpuDevice::sample(const Sample& a) {
  constexpr auto name = "sample";
  check_sample(a);
  int64_t rows = rows_of(a.logits), vocabulary = width_of(a.logits), length = width_of(a.history);
  if (rows == 0) return;
  std::vector<Rule> rules;
  for (int64_t r = 0; r < rows; ++r) {
    const SamplingParameters& rule = a.rules[r];
    rules.push_back({rule.temperature, rule.top_p, rule.min_p, rule.repetition_penalty,
                     uniform(rule.stream.bits(rule.element)), rule.top_k});
  }
  Operation operation(*this);
  SampleRows all{scratch<float>(rows * vocabulary),
                 a.history.as<int32_t>(),
                 a.allowed.as<uint64_t>(),
                 vocabulary,
                 length,
                 upload_table(rules),
                 fault(Fault::sample_history, vocabulary),
                 fault(Fault::sample_logits, vocabulary)};
  int block = vocabulary > wide_row ? most_threads : vocabulary > 8 * 32 ? 128 : 32;
  for_type(a.logits.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({name, dim3(static_cast<unsigned>(rows)), dim3(block), 0, a.logits.shape()}, sample_kernel<T>,
           a.tokens.as<int32_t>(), static_cast<const T*>(a.logits.data()), all);
  });
  if (a.logprob) log_probability({.logprob = a.logprob, .logits = a.logits, .tokens = a.tokens});
}

}  // namespace longhand::LONGHAND_GPU
