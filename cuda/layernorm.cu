// Layer normalisation with the dropout and the residual before it, forward.
//
//   sum = dropout(x) + residual;   out = (sum - mean) rstd gain + bias;   rstd = 1 / sqrt(var + eps)
//
// A row belongs to a warp (up to 1024 columns), to 128 threads (up to 4096) or to 256 (up to 8192), which hold it in
// registers, 32 values each: thread t has the 16-byte pieces t, t + threads, ... Wider rows are read again for the
// variance and for the result. Moves (2 to 4)·rows·D elements; limit: memory bandwidth. Without `out`, dropout and the
// residual alone: one thread a piece, 3·rows·D elements.
#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int held_values = 32, wide_threads = 256;

template <class T>
struct Rows {
  T *out, *sum;
  float *mean, *rstd;
  const T *x, *residual, *gain, *bias;
  int64_t rows, width;
  float eps;
  bool aligned;
  DropoutKey dropout;
};

/// A piece of dropout(x) + residual, as `sum` holds it.
template <class T>
__device__ __forceinline__ void form_sum(float (&s)[piece<T>], const Rows<T>& a, int64_t row, int64_t column) {
  int64_t at = row * a.width + column, count = a.width - column;
  load_part(s, a.x + at, count, a.aligned);
  if (a.dropout.on) drop(s, a.dropout, at);
  if (a.residual) {
    float r[piece<T>];
    load_part(r, a.residual + at, count, a.aligned);
#pragma unroll
    for (int i = 0; i < piece<T>; ++i) s[i] += r[i];
  }
  if (!a.sum) return;
  store_part(a.sum + at, s, count, a.aligned);
#pragma unroll
  for (int i = 0; i < piece<T>; ++i) s[i] = to_float(from_float<T>(s[i]));
}

template <class T>
__device__ __forceinline__ float squares(const float (&s)[piece<T>], float mean, int64_t count) {
  float total = 0;
#pragma unroll
  for (int i = 0; i < piece<T>; ++i) {
    float deviation = i < count ? s[i] - mean : 0.0f;
    total += deviation * deviation;
  }
  return total;
}

template <class T>
__device__ __forceinline__ void normalise(const float (&s)[piece<T>], float mean, float rstd, const Rows<T>& a,
                                          int64_t row, int64_t column) {
  float gain[piece<T>], bias[piece<T>];
  load_part(gain, a.gain + column, a.width - column, a.aligned);
  load_part(bias, a.bias + column, a.width - column, a.aligned);
#pragma unroll
  for (int i = 0; i < piece<T>; ++i) gain[i] = (s[i] - mean) * rstd * gain[i] + bias[i];
  store_part(a.out + row * a.width + column, gain, a.width - column, a.aligned);
}

template <int threads>
__device__ __forceinline__ float row_sum(float x, float* shared) {
  if constexpr (threads == 32)
    return warp_sum(x);
  else
    return block_sum<threads>(x, shared);
}

template <class T>
__device__ __forceinline__ float row_rstd(float squares, const Rows<T>& a) {
  return 1.0f / sqrtf(squares / static_cast<float>(a.width) + a.eps);
}

template <class T>
__device__ __forceinline__ void keep_statistics(const Rows<T>& a, int64_t row, float mean, float rstd) {
  if (a.mean) a.mean[row] = mean;
  if (a.rstd) a.rstd[row] = rstd;
}

/// Blocks of at least 128 threads; a block has several rows where a row is a warp's.
__host__ __device__ constexpr int block_of(int threads) { return threads < 128 ? 128 : threads; }

template <class T, int threads>
__global__ void __launch_bounds__(block_of(threads)) layernorm_forward_kernel(Rows<T> a) {
  constexpr int n = piece<T>, held = held_values / n;
  SIMT_SHARED(float, shared, [block_of(threads) / 32]);
  int64_t row = static_cast<int64_t>(blockIdx.x) * (block_of(threads) / threads) + threadIdx.x / threads;
  if (row >= a.rows) return;  // whole warps
  int64_t first = static_cast<int64_t>(threadIdx.x % threads) * n;
  float s[held][n], total = 0;
#pragma unroll
  for (int p = 0; p < held; ++p) {
    int64_t column = first + p * threads * n;
    if (column >= a.width) break;
    form_sum(s[p], a, row, column);
#pragma unroll
    for (int i = 0; i < n; ++i) total += s[p][i];
  }
  float mean = row_sum<threads>(total, shared) / static_cast<float>(a.width);
  total = 0;
#pragma unroll
  for (int p = 0; p < held; ++p) {
    int64_t column = first + p * threads * n;
    if (column >= a.width) break;
    total += squares<T>(s[p], mean, a.width - column);
  }
  float rstd = row_rstd(row_sum<threads>(total, shared), a);
#pragma unroll
  for (int p = 0; p < held; ++p) {
    int64_t column = first + p * threads * n;
    if (column >= a.width) break;
    normalise<T>(s[p], mean, rstd, a, row, column);
  }
  if (threadIdx.x % threads == 0) keep_statistics(a, row, mean, rstd);
}

/// Rows of any width, one a block. What form_sum has stored in `sum` is read from there: x or the residual may lie in
/// it.
template <class T>
__global__ void __launch_bounds__(wide_threads) layernorm_forward_wide_kernel(Rows<T> a) {
  constexpr int n = piece<T>;
  SIMT_SHARED(float, shared, [wide_threads / 32]);
  int64_t row = blockIdx.x, first = static_cast<int64_t>(threadIdx.x) * n;
  auto again = [&](float(&s)[n], int64_t column) {
    if (a.sum)
      load_part(s, a.sum + row * a.width + column, a.width - column, a.aligned);
    else
      form_sum(s, a, row, column);
  };
  float s[n], total = 0;
  for (int64_t column = first; column < a.width; column += wide_threads * n) {
    form_sum(s, a, row, column);
#pragma unroll
    for (int i = 0; i < n; ++i) total += s[i];
  }
  float mean = block_sum<wide_threads>(total, shared) / static_cast<float>(a.width);
  total = 0;
  for (int64_t column = first; column < a.width; column += wide_threads * n) {
    again(s, column);
    total += squares<T>(s, mean, a.width - column);
  }
  float rstd = row_rstd(block_sum<wide_threads>(total, shared), a);
  for (int64_t column = first; column < a.width; column += wide_threads * n) {
    again(s, column);
    normalise<T>(s, mean, rstd, a, row, column);
  }
  if (threadIdx.x == 0) keep_statistics(a, row, mean, rstd);
}

/// sum = dropout(x) + residual; the whole tensor is one row here.
template <class T>
__global__ void __launch_bounds__(256) residual_kernel(Rows<T> a) {
  int64_t column = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * piece<T>;
  float s[piece<T>];
  if (column < a.width) form_sum(s, a, 0, column);
}

}  // namespace

void GpuDevice::layernorm_forward(const LayerNormForward& a) {
  check_layernorm(a);
  constexpr auto name = "layernorm_forward";
  int64_t rows = rows_of(a.x), width = width_of(a.x);
  DropoutKey dropout = dropout_key(a.dropout, name);
  for_type(a.x.type(), [&](auto zero) {
    using T = decltype(zero);
    bool aligned = a.out.empty() || width % piece<T> == 0;
    for (const ConstTensor& t : {a.x, a.residual, a.gain, a.bias, ConstTensor(a.out), ConstTensor(a.sum)})
      aligned = aligned && aligned16(t.data());
    Rows<T> all{static_cast<T*>(a.out.data()),
                static_cast<T*>(a.sum.data()),
                a.mean.as<float>(),
                a.rstd.as<float>(),
                static_cast<const T*>(a.x.data()),
                static_cast<const T*>(a.residual.data()),
                static_cast<const T*>(a.gain.data()),
                static_cast<const T*>(a.bias.data()),
                rows,
                width,
                a.eps,
                aligned,
                dropout};
    if (a.out.empty()) {
      all.width = rows * width;
      launch({name, dim3(ceil_div(all.width, 256 * piece<T>)), dim3(256), 0, a.x.shape()}, residual_kernel<T>, all);
      return;
    }
    auto start = [&](auto kernel, int threads) {
      int block = block_of(threads);
      launch({name, dim3(ceil_div(rows, block / threads)), dim3(block), 0, a.x.shape()}, kernel, all);
    };
    if (width <= 32 * held_values)
      start(layernorm_forward_kernel<T, 32>, 32);
    else if (width <= 128 * held_values)
      start(layernorm_forward_kernel<T, 128>, 128);
    else if (width <= 256 * held_values)
      start(layernorm_forward_kernel<T, 256>, 256);
    else
      start(layernorm_forward_wide_kernel<T>, wide_threads);
  });
}

}  // namespace longhand::LONGHAND_GPU
