// Column sums in a fixed order, and the gradient of a bias.
//
//   d_bias_j += sum_r d_out_rj
//
// Two stages. A block sums a stripe of rows over 32 pieces of columns: lane l of each of its 8 warps holds piece l,
// warp w takes rows w, w + 8, ...; the warps' sums are added in order. Then 16 warps add the stripes' partial sums,
// warp w the stripes w, w + 16, ... The stripes depend on the number of rows alone, so the bits do not depend on
// scheduling. Moves rows·n elements and 2·stripes·n floats (through L2); limit: memory bandwidth.
#include <algorithm>

#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int sum_warps = 8, add_warps = 16;
constexpr int64_t most_stripes = 64, least_rows = 32;

template <class T>
__global__ void __launch_bounds__(32 * sum_warps)
    column_sums_kernel(float* partials, const T* values, int64_t rows, int64_t each, int64_t width, int64_t stride,
                       bool aligned) {
  constexpr int n = piece<T>;
  SIMT_SHARED(float, shared, [sum_warps][n][32]);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t column = (static_cast<int64_t>(blockIdx.x) * 32 + lane) * n, count = width - column;
  int64_t first = blockIdx.y * each, end = first + each < rows ? first + each : rows;
  float total[n] = {};
  if (count > 0) {
#pragma unroll 4
    for (int64_t row = first + warp; row < end; row += sum_warps) {
      float x[n];
      load_part(x, values + row * stride + column, count, aligned);
#pragma unroll
      for (int i = 0; i < n; ++i) total[i] += x[i];
    }
  }
#pragma unroll
  for (int i = 0; i < n; ++i) shared[warp][i][lane] = total[i];
  __syncthreads();
  for (int i = warp; i < n; i += sum_warps) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < sum_warps; ++w) sum += shared[w][i][lane];
    if (i < count) partials[blockIdx.y * width + column + i] = sum;
  }
}

template <class T>
__global__ void __launch_bounds__(32 * add_warps)
    add_partials_kernel(T* to, const float* partials, int64_t stripes, int64_t width) {
  SIMT_SHARED(float, shared, [add_warps][32]);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t column = static_cast<int64_t>(blockIdx.x) * 32 + lane;
  float total = 0;
  if (column < width) {
#pragma unroll 8
    for (int64_t stripe = warp; stripe < stripes; stripe += add_warps) total += partials[stripe * width + column];
  }
  shared[warp][lane] = total;
  __syncthreads();
  if (warp > 0 || column >= width) return;
  total = 0;
#pragma unroll
  for (int w = 0; w < add_warps; ++w) total += shared[w][lane];
  to[column] = from_float<T>(to_float(to[column]) + total);
}

}  // namespace

void GpuDevice::add_partials(const Tensor& to, const float* partials, int64_t stripes, const char* operation) {
  int64_t width = to.elements();
  for_type(to.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({operation, dim3(ceil_div(width, 32)), dim3(32 * add_warps), 0, to.shape()}, add_partials_kernel<T>,
           static_cast<T*>(to.data()), partials, stripes, width);
  });
}

void GpuDevice::bias_backward(const BiasBackward& a) {
  constexpr auto name = "bias_backward";
  int64_t rows = rows_of(a.d_out), width = width_of(a.d_out), stride = check_bias_backward(a);
  if (rows == 0) return;
  int64_t each = std::max(least_rows, (rows + most_stripes - 1) / most_stripes), stripes = (rows + each - 1) / each;
  Operation operation(*this);
  float* partials = scratch<float>(stripes * width);
  for_type(a.d_out.type(), [&](auto zero) {
    using T = decltype(zero);
    bool aligned = aligned16(a.d_out.data()) && stride % piece<T> == 0;
    launch({name, dim3(ceil_div(width, 32 * piece<T>), static_cast<unsigned>(stripes)), dim3(32 * sum_warps), 0,
            a.d_out.shape()},
           column_sums_kernel<T>, partials, static_cast<const T*>(a.d_out.data()), rows, each, width, stride, aligned);
  });
  add_partials(a.d_bias, partials, stripes, name);
}

}  // namespace longhand::LONGHAND_GPU
