// Cross-entropy with its gradient in place, and log-probabilities.
//
//   q = (1 - smoothing) onehot(target) + smoothing / V;   ce = -sum_c q_c log p_c
//   loss = weight (1 - p_target)^gamma ce
//
// One block of 512 threads a row; thread t takes the 16-byte pieces t, t + 512, ... from the row's first 16-byte
// boundary on, whatever the vocabulary. The first pass keeps a running maximum and the sum of exponentials relative to
// it; the sum leaves the target out, so that 1 - p_target is exact also where p is all but 1. The second pass writes
// the gradient. Moves 2·rows·V elements: two blocks a multiprocessor keep their rows in the L2 cache for the second
// pass (128 KB a row of 65,536 in bf16). Log-probabilities read once. Limit: memory bandwidth; two exponentials an
// element stay below it.
#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int row_threads = 512;

struct RowSoftmax {
  float largest;
  float total;   // of exp(z - largest)
  float log_p;   // of the target
  float others;  // 1 - p of the target
  float sum;     // of z, where it is wanted
};

/// The running maximum and the sum of exponentials relative to it.
struct Running {
  float largest, sum = 0;

  __device__ __forceinline__ static float exponential(float x, float relative_to) {
    return __expf(x - (relative_to == -INFINITY ? 0.0f : relative_to));
  }
  template <int n>
  __device__ __forceinline__ void add(const float (&x)[n]) {
    float here = x[0];
#pragma unroll
    for (int i = 1; i < n; ++i) here = fmaxf(here, x[i]);
    if (here > largest) {
      sum *= exponential(largest, here);
      largest = here;
    }
#pragma unroll
    for (int i = 0; i < n; ++i) sum += exponential(x[i], largest);
  }
};

/// Every thread gets the row's softmax. NaN comes through the sum; a row of -infinity alone has no softmax: NaN.
template <class T>
__device__ __forceinline__ RowSoftmax row_softmax(const RowPieces<T>& row, int32_t target, bool with_sum,
                                                  float* shared) {
  float at_target = to_float(row.row[target]), plain = 0;
  Running running{at_target};
  float x[piece<T>], next[piece<T>];
  if (threadIdx.x < row.count) row.load(next, threadIdx.x, -INFINITY);
  for (int64_t p = threadIdx.x; p < row.count; p += row_threads) {
#pragma unroll
    for (int i = 0; i < piece<T>; ++i) x[i] = next[i];
    if (p + row_threads < row.count) row.load(next, p + row_threads, -INFINITY);  // on its way meanwhile
    int64_t first = row.column(p);
    if (with_sum) {
#pragma unroll
      for (int i = 0; i < piece<T>; ++i) plain += first + i >= 0 && first + i < row.width ? x[i] : 0.0f;
    }
    if (target >= first && target < first + piece<T>) {
#pragma unroll
      for (int i = 0; i < piece<T>; ++i)
        if (first + i == target) x[i] = -INFINITY;
    }
    running.add(x);
  }
  RowSoftmax s;
  s.largest = block_max<row_threads>(running.largest, shared);
  s.others = block_sum<row_threads>(running.sum * Running::exponential(running.largest, s.largest), shared);
  s.sum = with_sum ? block_sum<row_threads>(plain, shared) : 0.0f;
  float own = expf(at_target - s.largest);  // NaN where both are infinite
  s.total = own + s.others;
  s.log_p = own > s.others ? -log1pf(s.others / own) : at_target - s.largest - logf(s.total);
  s.others /= s.total;
  return s;
}

struct Loss {
  float smoothing, gamma, scale;
  bool gradient;
};

/// With p the target's probability, q the smoothed target and f = (1 - p)^gamma:
///   d(f ce) / dz_c = f (p_c - q_c) + g (p_c - [c = target]),   g = gamma (1 - p)^(gamma - 1) p ce.
/// Every entry is thus factor exp(z_c - largest) + shift, the target's own is `own`.
struct RowGradient {
  float loss, factor, shift, own;
};

__device__ __forceinline__ RowGradient row_gradient(const RowSoftmax& s, const Loss& a, float weight,
                                                    float vocabulary) {
  float entropy = -s.log_p, f = 1, g = 0;
  if (a.smoothing > 0) {
    float mean_log_p = s.sum / vocabulary - s.largest - logf(s.total);
    entropy = -(1 - a.smoothing) * s.log_p - a.smoothing * mean_log_p;
  }
  if (a.gamma > 0) {
    f = powf(s.others, a.gamma);
    g = s.others > 0 ? a.gamma * powf(s.others, a.gamma - 1) * (1 - s.others) * entropy : 0.0f;
  }
  float scale = weight * a.scale;
  return {weight * f * entropy, scale * (f + g) / s.total, -scale * f * a.smoothing / vocabulary,
          scale * (f * a.smoothing * (1 - 1 / vocabulary) - (f + g) * s.others)};
}

template <class T>
__global__ void __launch_bounds__(row_threads, 2)
    cross_entropy_kernel(T* logits, float* loss, const int32_t* targets, const float* weights, int64_t vocabulary,
                         Loss a, unsigned long long* fault) {
  SIMT_SHARED(float, shared, [row_threads / 32]);
  RowPieces<T> row(logits + blockIdx.x * vocabulary, vocabulary);
  int32_t target = targets[blockIdx.x];
  bool counts = target >= 0 && target < vocabulary;
  if (!counts && target != -1 && threadIdx.x == 0) report_fault(fault, blockIdx.x, target);
  RowSoftmax s{};
  RowGradient g{};
  if (counts) {
    s = row_softmax(row, target, a.smoothing > 0, shared);
    g = row_gradient(s, a, weights ? weights[blockIdx.x] : 1.0f, static_cast<float>(vocabulary));
  }
  if (threadIdx.x == 0) loss[blockIdx.x] = g.loss;
  if (!a.gradient) return;
  float x[piece<T>], next[piece<T>];
  if (threadIdx.x < row.count) row.load(next, threadIdx.x, 0);
  for (int64_t p = threadIdx.x; p < row.count; p += row_threads) {
#pragma unroll
    for (int i = 0; i < piece<T>; ++i) x[i] = next[i];
    if (p + row_threads < row.count) row.load(next, p + row_threads, 0);
    int64_t first = row.column(p);
#pragma unroll
    for (int i = 0; i < piece<T>; ++i) {
      x[i] = counts ? g.factor * __expf(x[i] - s.largest) + g.shift : 0.0f;
      if (counts && first + i == target) x[i] = g.own;
    }
    row.store(p, x);
  }
}

template <class T>
__global__ void __launch_bounds__(row_threads, 2)
    log_probability_kernel(float* logprob, const T* logits, const int32_t* tokens, int64_t vocabulary,
                           unsigned long long* fault) {
  SIMT_SHARED(float, shared, [row_threads / 32]);
  int32_t token = tokens[blockIdx.x];
  if (token < 0 || token >= vocabulary) {
    if (threadIdx.x == 0) report_fault(fault, blockIdx.x, token), logprob[blockIdx.x] = 0;
    return;
  }
  RowPieces<const T> row(logits + blockIdx.x * vocabulary, vocabulary);
  RowSoftmax s = row_softmax(row, token, false, shared);
  if (threadIdx.x == 0) logprob[blockIdx.x] = s.log_p;
}

}  // namespace

void GpuDevice::cross_entropy(const CrossEntropy& a) {
  constexpr auto name = "cross_entropy";
  check_cross_entropy(a);
  int64_t rows = rows_of(a.logits), vocabulary = width_of(a.logits);
  for_type(a.logits.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({name, dim3(static_cast<unsigned>(rows)), dim3(row_threads), 0, a.logits.shape()}, cross_entropy_kernel<T>,
           static_cast<T*>(a.logits.data()), a.loss.as<float>(), a.targets.as<int32_t>(), a.weights.as<float>(),
           vocabulary, Loss{a.smoothing, a.gamma, a.scale, a.gradient}, fault(Fault::cross_entropy_token, vocabulary));
  });
}

void GpuDevice::log_probability(const LogProbability& a) {
  constexpr auto name = "log_probability";
  check_log_probability(a);
  int64_t rows = rows_of(a.logits), vocabulary = width_of(a.logits);
  for_type(a.logits.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({name, dim3(static_cast<unsigned>(rows)), dim3(row_threads), 0, a.logits.shape()}, log_probability_kernel<T>,
           a.logprob.as<float>(), static_cast<const T*>(a.logits.data()), a.tokens.as<int32_t>(), vocabulary,
           fault(Fault::log_probability_token, vocabulary));
  });
}

}  // namespace longhand::LONGHAND_GPU
