// Layer normalisation backward. With n = (sum - mean) rstd and g = d_out gain,
//
//   d_sum += rstd (g - mean(g) - n mean(g n));   d_x = d_sum * dropout mask
//   d_gain += sum_r d_out n;   d_bias += sum_r d_out
//
// A block walks down a stripe of rows. Its threads own columns (thread t the 16-byte pieces t, t + threads, ...), so
// that the sums over rows stay in registers until the stripe ends; the two means of a row are one reduction over the
// block. The stripes' partial sums are added in order (bias.cu); the stripes depend on the number of rows alone, so the
// bits do not depend on scheduling. Up to 8192 columns everything of a row is held; wider rows are read twice and their
// partial sums stand in memory. Moves (3 to 5)·rows·D elements and 4·stripes·D floats, which stay in L2; limit: memory
// bandwidth. Without `d_out`, d_x = d_sum * mask alone: one thread a piece.
#include <algorithm>

#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int wide_threads = 256;
constexpr int64_t most_stripes = 1024, least_rows = 8;

template <class T>
struct Gradients {
  T *d_sum, *d_x;
  const T *d_out, *sum, *gain;
  const float *mean, *rstd;
  float *gains, *biases;  // partial sums [stripes, width]
  int64_t rows, width, each;
  bool aligned;
  DropoutKey dropout;
};

struct Means {
  float g, g_normal;
};

/// Both sums over the block. Rows take turns between two halves of `shared`, so that one barrier a row is enough.
template <int threads>
__device__ __forceinline__ Means row_means(float g, float g_normal, int64_t width, float (&shared)[2][threads / 32]) {
  g = warp_sum(g), g_normal = warp_sum(g_normal);
  if constexpr (threads > 32) {
    if (threadIdx.x % 32 == 0) shared[0][threadIdx.x / 32] = g, shared[1][threadIdx.x / 32] = g_normal;
    __syncthreads();
    g = 0, g_normal = 0;
#pragma unroll
    for (int warp = 0; warp < threads / 32; ++warp) g += shared[0][warp], g_normal += shared[1][warp];
  }
  return {g / static_cast<float>(width), g_normal / static_cast<float>(width)};
}

/// What a row gives to a thread: sums of g and g n over a piece, and d_out, n themselves.
template <class T>
__device__ __forceinline__ void read_piece(float (&d)[piece<T>], float (&normal)[piece<T>], Means& total,
                                           const Gradients<T>& a, int64_t row, int64_t column) {
  int64_t at = row * a.width + column, count = a.width - column;
  float gain[piece<T>], mean = a.mean[row], rstd = a.rstd[row];
  load_part(d, a.d_out + at, count, a.aligned);
  load_part(normal, a.sum + at, count, a.aligned);
  load_part(gain, a.gain + column, count, a.aligned);
#pragma unroll
  for (int i = 0; i < piece<T>; ++i) {
    normal[i] = (normal[i] - mean) * rstd;
    float g = d[i] * gain[i];
    total.g += g, total.g_normal += g * normal[i];
  }
}

/// value becomes d_sum, and d_x follows from what d_sum holds.
template <class T>
__device__ __forceinline__ void write_piece(float (&value)[piece<T>], const Gradients<T>& a, int64_t at,
                                            int64_t count) {
  if (a.d_out) {
    store_part(a.d_sum + at, value, count, a.aligned);
#pragma unroll
    for (int i = 0; i < piece<T>; ++i) value[i] = to_float(from_float<T>(value[i]));
  }
  if (!a.d_x) return;
  if (a.dropout.on) drop(value, a.dropout, at);
  store_part(a.d_x + at, value, count, a.aligned);
}

template <class T>
__device__ __forceinline__ void change_sum(float (&d_sum)[piece<T>], const float (&d)[piece<T>],
                                           const float (&normal)[piece<T>], Means means, const Gradients<T>& a,
                                           int64_t row, int64_t column) {
  float gain[piece<T>], rstd = a.rstd[row];
  load_part(gain, a.gain + column, a.width - column, a.aligned);
#pragma unroll
  for (int i = 0; i < piece<T>; ++i) d_sum[i] += rstd * (d[i] * gain[i] - means.g - normal[i] * means.g_normal);
  write_piece<T>(d_sum, a, row * a.width + column, a.width - column);
}

/// One stripe a block; a thread holds `values` columns.
template <class T, int threads, int values>
__global__ void __launch_bounds__(threads) layernorm_backward_kernel(Gradients<T> a) {
  constexpr int n = piece<T>, held = values / n;
  SIMT_SHARED(float, shared, [2][2][threads / 32]);
  int64_t first = static_cast<int64_t>(threadIdx.x) * n, begin = blockIdx.x * a.each;
  int64_t end = begin + a.each < a.rows ? begin + a.each : a.rows;
  float gains[held][n] = {}, biases[held][n] = {};
  for (int64_t row = begin; row < end; ++row) {
    float d[held][n], normal[held][n], d_sum[held][n];
    Means total{};
#pragma unroll
    for (int p = 0; p < held; ++p) {
      int64_t column = first + p * threads * n;
      if (column >= a.width) break;
      if (a.d_sum) load_part(d_sum[p], a.d_sum + row * a.width + column, a.width - column, a.aligned);
      read_piece<T>(d[p], normal[p], total, a, row, column);
#pragma unroll
      for (int i = 0; i < n; ++i) gains[p][i] += d[p][i] * normal[p][i], biases[p][i] += d[p][i];
    }
    if (!a.d_sum) continue;
    Means means = row_means<threads>(total.g, total.g_normal, a.width, shared[row & 1]);
#pragma unroll
    for (int p = 0; p < held; ++p) {
      int64_t column = first + p * threads * n;
      if (column >= a.width) break;
      change_sum<T>(d_sum[p], d[p], normal[p], means, a, row, column);
    }
  }
#pragma unroll
  for (int p = 0; p < held; ++p) {
#pragma unroll
    for (int i = 0; i < n; ++i) {
      int64_t column = first + p * threads * n + i;
      if (column >= a.width) break;
      if (a.gains) a.gains[blockIdx.x * a.width + column] = gains[p][i];
      if (a.biases) a.biases[blockIdx.x * a.width + column] = biases[p][i];
    }
  }
}

/// partial [column ..] = (first row of the stripe: 0) + d * factor, column by column.
template <int n>
__device__ __forceinline__ void add_to_partial(float* partial, const float (&term)[n], int64_t count, bool start) {
#pragma unroll
  for (int i = 0; i < n; ++i)
    if (i < count) partial[i] = start ? term[i] : partial[i] + term[i];
}

template <class T>
__global__ void __launch_bounds__(wide_threads) layernorm_backward_wide_kernel(Gradients<T> a) {
  constexpr int n = piece<T>;
  SIMT_SHARED(float, shared, [2][2][wide_threads / 32]);
  int64_t first = static_cast<int64_t>(threadIdx.x) * n, begin = blockIdx.x * a.each;
  int64_t end = begin + a.each < a.rows ? begin + a.each : a.rows;
  for (int64_t row = begin; row < end; ++row) {
    float d[n], normal[n], d_sum[n];
    Means total{}, unused{};
    for (int64_t column = first; column < a.width; column += wide_threads * n) {
      int64_t at = blockIdx.x * a.width + column, count = a.width - column;
      read_piece<T>(d, normal, total, a, row, column);
      if (a.biases) add_to_partial(a.biases + at, d, count, row == begin);
#pragma unroll
      for (int i = 0; i < n; ++i) d[i] *= normal[i];
      if (a.gains) add_to_partial(a.gains + at, d, count, row == begin);
    }
    if (!a.d_sum) continue;
    Means means = row_means<wide_threads>(total.g, total.g_normal, a.width, shared[row & 1]);
    for (int64_t column = first; column < a.width; column += wide_threads * n) {
      load_part(d_sum, a.d_sum + row * a.width + column, a.width - column, a.aligned);
      read_piece<T>(d, normal, unused, a, row, column);
      change_sum<T>(d_sum, d, normal, means, a, row, column);
    }
  }
}

/// d_x = d_sum * mask; the whole tensor is one row here.
template <class T>
__global__ void __launch_bounds__(256) dropout_backward_kernel(Gradients<T> a) {
  int64_t column = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * piece<T>;
  if (column >= a.width) return;
  float value[piece<T>];
  load_part(value, a.d_sum + column, a.width - column, a.aligned);
  write_piece<T>(value, a, column, a.width - column);
}

/// The common shape of the tensors, checked.
}  // namespace

void GpuDevice::layernorm_backward(const LayerNormBackward& a) {
  constexpr auto name = "layernorm_backward";
  ConstTensor shape = check_layernorm(a);
  int64_t rows = rows_of(shape), width = width_of(shape);
  DropoutKey dropout = dropout_key(a.dropout, name);
  bool normalised = !a.d_out.empty();
  if (rows == 0 || (!normalised && a.d_x.empty())) return;
  int64_t each = std::max(least_rows, (rows + most_stripes - 1) / most_stripes), stripes = (rows + each - 1) / each;
  Operation operation(*this);
  float* gains = normalised && a.d_gain ? scratch<float>(stripes * width) : nullptr;
  float* biases = normalised && a.d_bias ? scratch<float>(stripes * width) : nullptr;
  for_type(shape.type(), [&](auto zero) {
    using T = decltype(zero);
    bool aligned = !normalised || width % piece<T> == 0;
    for (const ConstTensor& t : {a.d_out, a.sum, a.gain, ConstTensor(a.d_sum), ConstTensor(a.d_x)})
      aligned = aligned && aligned16(t.data());
    Gradients<T> all{static_cast<T*>(a.d_sum.data()),
                     static_cast<T*>(a.d_x.data()),
                     static_cast<const T*>(a.d_out.data()),
                     static_cast<const T*>(a.sum.data()),
                     static_cast<const T*>(a.gain.data()),
                     a.mean.as<float>(),
                     a.rstd.as<float>(),
                     gains,
                     biases,
                     rows,
                     width,
                     each,
                     aligned,
                     dropout};
    if (!normalised) {
      all.width = rows * width;
      launch({name, dim3(ceil_div(all.width, 256 * piece<T>)), dim3(256), 0, shape.shape()}, dropout_backward_kernel<T>,
             all);
      return;
    }
    auto start = [&](auto kernel, int threads) {
      launch({name, dim3(static_cast<unsigned>(stripes)), dim3(threads), 0, shape.shape()}, kernel, all);
    };
    if (width <= 256)
      start(layernorm_backward_kernel<T, 32, 8>, 32);
    else if (width <= 1024)
      start(layernorm_backward_kernel<T, 128, 8>, 128);
    else if (width <= 2048)
      start(layernorm_backward_kernel<T, 256, 8>, 256);
    else if (width <= 4096)
      start(layernorm_backward_kernel<T, 256, 16>, 256);
    else if (width <= 8192)
      start(layernorm_backward_kernel<T, 256, 32>, 256);
    else
      start(layernorm_backward_wide_kernel<T>, wide_threads);
  });
  if (gains) add_partials(a.d_gain, gains, stripes, name);
  if (biases) add_partials(a.d_bias, biases, stripes, name);
}

}  // namespace longhand::LONGHAND_GPU
