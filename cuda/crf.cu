// Conditional random fields over chains of labels: loss and gradients by forward and backward recursion on logarithms,
// and the best labels.
//
//   alpha_t(j) = e_t(j) + log sum_i exp(alpha_t-1(i) + T_ij);   beta_t-1(i) = log sum_j exp(T_ij + g_t(j)),
//   g_t = e_t + beta_t;   p(y_t = j) = exp(alpha_t(j) + beta_t(j) - z_t)
//   p(y_t-1 = i, y_t = j) = exp(alpha_t-1(i) + T_ij + g_t(j) - z);   each row of alpha and beta relative to label 0
//
// A block walks one sequence, thread j holds label j; the last row stands in shared memory, and so do the transitions
// where they fit (rows of odd length: reading along a row and down a column are both free of bank conflicts). A step
// costs L^2 exponentials forward and as many backward. A second kernel sums the gradients of the transitions: block
// (i, stripe) adds up row i over every stripes-th sequence, then the stripes are added in order: the bits do not depend
// on scheduling. Moves 6·rows·L floats; limit: the latency of a step, which more sequences side by side hide.
#include <algorithm>

#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int most_threads = 256;
constexpr int64_t most_stripes = 32;

struct Chain {
  const float* transitions;  // [L, L], then begin, end
  const int32_t* starts;
  int labels;
  bool staged;  // transitions are copied to shared memory

  __device__ __forceinline__ const float* begin() const { return transitions + labels * labels; }
  __device__ __forceinline__ const float* end() const { return begin() + labels; }
};

/// The transitions where they are read from, and the distance of their rows.
struct Matrix {
  const float* at;
  int stride;
  __device__ __forceinline__ float operator()(int i, int j) const { return at[i * stride + j]; }
};

__device__ __forceinline__ Matrix stage(const Chain& c, float* shared) {
  if (!c.staged) return {c.transitions, c.labels};
  int stride = c.labels | 1;
  for (int e = threadIdx.x; e < c.labels * c.labels; e += blockDim.x)
    shared[e / c.labels * stride + e % c.labels] = c.transitions[e];
  __syncthreads();
  return {shared, stride};
}

/// log sum over k of exp(value(k)), k < n.
template <class Value>
__device__ __forceinline__ float log_sum(int n, Value value) {
  float largest = value(0), sum = 0;
  for (int k = 1; k < n; ++k) largest = fmaxf(largest, value(k));
  for (int k = 0; k < n; ++k) sum += __expf(value(k) - largest);
  return largest + logf(sum);
}

/// Shared memory: row [2][256], sums [256], then the transitions where they fit.
__global__ void __launch_bounds__(most_threads)
    crf_loss_kernel(float* emissions, float* alpha, float* g, float* loss, const int32_t* targets, const float* weights,
                    Chain chain, float scale, bool gradient, unsigned long long* fault) {
  SIMT_DYN_SHARED(float, shared);
  auto row = [&](int which) { return shared + which * most_threads; };
  float* sums = shared + 2 * most_threads;
  Matrix matrix = stage(chain, shared + 3 * most_threads);
  int n = chain.labels, j = threadIdx.x;
  bool on = j < n;
  int64_t first = chain.starts[blockIdx.x], end = chain.starts[blockIdx.x + 1];
  float weight = weights ? weights[blockIdx.x] : 1.0f, total = 0;
  if (end <= first) {
    if (j == 0) loss[blockIdx.x] = 0;
    return;
  }
  auto target = [&](int64_t t) {
    int y = targets[t];
    if (y < 0 || y >= n) report_fault(fault, t, y), y = 0;
    return y;
  };

  // Forward. Thread 0 adds up what label 0 was ahead by, every thread a part of the target's score.
  int now = 0;
  for (int64_t t = first; t < end; ++t, now ^= 1) {
    float a = 0;
    if (on && t == first) a = chain.begin()[j];
    if (on && t > first) {
      const float* before = row(now ^ 1);
      float ahead = before[0];
      a = log_sum(n, [&](int i) { return before[i] - ahead + matrix(i, j); });
    }
    if (on) a += emissions[t * n + j], row(now)[j] = a;
    if (j == 0) total += a;
    __syncthreads();
    if (on) alpha[t * n + j] = a - row(now)[0];
  }
  for (int64_t t = first + j; t < end; t += blockDim.x) {
    int y = target(t);
    total -= emissions[t * n + y] + (t > first ? matrix(target(t - 1), y) : chain.begin()[y]);
    if (t + 1 == end) total -= chain.end()[y];
  }
  sums[j] = total;
  __syncthreads();
  if (j == 0) {
    const float* last = row(now ^ 1);
    float sum = log_sum(n, [&](int k) { return last[k] - last[0] + chain.end()[k]; });
    for (int k = 0; k < static_cast<int>(blockDim.x); ++k) sum += sums[k];
    loss[blockIdx.x] = weight * sum;
  }
  if (!gradient) return;

  // Backward. Row 0 holds alpha + beta of the step, row 1 its g.
  float beta = on ? chain.end()[j] : 0.0f, factor = scale * weight;
  __syncthreads();
  for (int64_t t = end - 1; t >= first; --t) {
    float a = 0, next = 0;
    if (on) {
      a = alpha[t * n + j], next = emissions[t * n + j] + beta;
      row(0)[j] = a + beta, row(1)[j] = next;
    }
    __syncthreads();
    float shift = 0, before = 0;
    if (on) {
      float z = log_sum(n, [&](int k) { return row(0)[k]; });
      alpha[t * n + j] = a - z;
      emissions[t * n + j] = factor * (__expf(a + beta - z) - (target(t) == j ? 1.0f : 0.0f));
      before = t > first ? log_sum(n, [&](int k) { return matrix(j, k) + row(1)[k]; }) : 0.0f;
    }
    if (j == 0) sums[0] = before;  // what label 0 of the row before is ahead by
    __syncthreads();
    if (on) shift = sums[0], g[t * n + j] = next - shift, beta = before - shift;
  }
}

/// partials [stripe, i, j] += over the stripe's sequences; i = L: the first rows' gradients, L + 1: the last rows'.
__global__ void __launch_bounds__(most_threads)
    crf_transitions_kernel(float* partials, const float* d_emissions, const float* alpha, const float* g,
                           const int32_t* targets, const float* weights, Chain chain, int64_t sequences, float scale) {
  int n = chain.labels, i = blockIdx.x, j = threadIdx.x;
  if (j >= n) return;
  float total = 0, own = i < n ? chain.transitions[i * n + j] : 0.0f;
  for (int64_t s = blockIdx.y; s < sequences; s += gridDim.y) {
    int64_t first = chain.starts[s], end = chain.starts[s + 1];
    if (first >= end) continue;
    if (i >= n) {
      total += d_emissions[(i == n ? first : end - 1) * n + j];
      continue;
    }
    float sum = 0;
#pragma unroll 4
    for (int64_t t = first + 1; t < end; ++t) {
      float both = targets[t - 1] == i && targets[t] == j ? 1.0f : 0.0f;
      sum += __expf(alpha[(t - 1) * n + i] + own + g[t * n + j]) - both;
    }
    total += scale * (weights ? weights[s] : 1.0f) * sum;
  }
  partials[(static_cast<int64_t>(blockIdx.y) * gridDim.x + i) * n + j] = total;
}

/// Shared memory: row [2][256], then the transitions where they fit. from [rows, L]: the best label before.
__global__ void __launch_bounds__(most_threads)
    crf_decode_kernel(int32_t* labels, float* score, uint8_t* from, const float* emissions, Chain chain) {
  SIMT_DYN_SHARED(float, shared);
  auto row = [&](int which) { return shared + which * most_threads; };
  Matrix matrix = stage(chain, shared + 2 * most_threads);
  int n = chain.labels, j = threadIdx.x;
  bool on = j < n;
  int64_t first = chain.starts[blockIdx.x], end = chain.starts[blockIdx.x + 1];
  if (end <= first) {
    if (j == 0) score[blockIdx.x] = 0;
    return;
  }
  float base = 0;
  int now = 0;
  for (int64_t t = first; t < end; ++t, now ^= 1) {
    if (on) {
      float best = chain.begin()[j];
      if (t > first) {
        const float* before = row(now ^ 1);
        float ahead = before[0];
        int where = 0;
        best = before[0] - ahead + matrix(0, j);
        for (int i = 1; i < n; ++i) {
          float value = before[i] - ahead + matrix(i, j);
          if (value > best) best = value, where = i;
        }
        if (j == 0) base += ahead;
        from[t * n + j] = static_cast<uint8_t>(where);
      }
      row(now)[j] = best + emissions[t * n + j];
    }
    __syncthreads();
  }
  if (j > 0) return;
  const float* last = row(now ^ 1);
  int best = 0;
  for (int i = 1; i < n; ++i)
    if (last[i] + chain.end()[i] > last[best] + chain.end()[best]) best = i;
  score[blockIdx.x] = base + last[best] + chain.end()[best];
  for (int64_t t = end - 1; t >= first; --t) {
    labels[t] = best;
    if (t > first) best = from[t * n + best];
  }
}

/// The chain as a kernel takes it, and the dynamic shared memory behind `rows` rows of threads.
std::pair<Chain, size_t> chain_of(const ConstTensor& transitions, const ConstTensor& starts, int64_t labels, int rows) {
  size_t fixed = rows * most_threads * 4, matrix = labels * (labels | 1) * 4;
  bool staged = fixed + matrix <= 48 * 1024;
  return {{transitions.as<float>(), starts.as<int32_t>(), static_cast<int>(labels), staged},
          fixed + (staged ? matrix : 0)};
}

}  // namespace

void GpuDevice::crf_loss(const CrfLoss& a) {
  constexpr auto name = "crf_loss";
  check_crf_loss(a);
  int64_t rows = rows_of(a.emissions), labels = width_of(a.emissions), sequences = a.starts.elements() - 1;
  auto [chain, shared] = chain_of(a.transitions, a.starts, labels, 3);
  dim3 block(ceil_div(labels, 32) * 32);
  Operation operation(*this);
  float *alpha = scratch<float>(rows * labels), *g = scratch<float>(a.gradient ? rows * labels : 0);
  launch({name, dim3(static_cast<unsigned>(sequences)), block, shared, a.emissions.shape()}, crf_loss_kernel,
         a.emissions.as<float>(), alpha, g, a.loss.as<float>(), a.targets.as<int32_t>(), a.weights.as<float>(), chain,
         a.scale, a.gradient, fault(Fault::crf_target, labels));
  if (!a.gradient || a.d_transitions.empty() || sequences == 0) return;
  int64_t stripes = std::min(most_stripes, sequences);
  float* partials = scratch<float>(stripes * (labels + 2) * labels);
  launch({name, dim3(static_cast<unsigned>(labels + 2), static_cast<unsigned>(stripes)), block, 0, a.emissions.shape()},
         crf_transitions_kernel, partials, a.emissions.as<float>(), alpha, g, a.targets.as<int32_t>(),
         a.weights.as<float>(), chain, sequences, a.scale);
  add_partials(a.d_transitions, partials, stripes, name);
}

void GpuDevice::crf_decode(const CrfDecode& a) {
  constexpr auto name = "crf_decode";
  check_crf_decode(a);
  int64_t rows = rows_of(a.emissions), labels = width_of(a.emissions), sequences = a.starts.elements() - 1;
  auto [chain, shared] = chain_of(a.transitions, a.starts, labels, 2);
  Operation operation(*this);
  uint8_t* from = scratch<uint8_t>(rows * labels);
  launch({name, dim3(static_cast<unsigned>(sequences)), dim3(ceil_div(labels, 32) * 32), shared, a.emissions.shape()},
         crf_decode_kernel, a.labels.as<int32_t>(), a.score.as<float>(), from, a.emissions.as<float>(), chain);
}

}  // namespace longhand::LONGHAND_GPU
