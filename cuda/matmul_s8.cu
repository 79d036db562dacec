// Products of integers of 8 bits: weights with one scale a row times activations quantised for the call.
//
//   out = activation(scale_i scale_j (q w^T)_ij + bias),   q, scale_i = the row's integers and scale, as Quantize has
//   them
//
// A block has 64 rows and 64 columns, its four warps 32 x 32 each: 64 bytes of k a stage, two stages in flight through
// shared memory (cp.async; rows padded to 80 bytes, so that ldmatrix meets no bank twice), s8 mma.sync with exact sums.
//   2·m·n·k operations; limit: the tensor cores. Moves m·n·k/64 bytes twice from the second-level cache.
#include "cuda/quantized.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int tile = 64, stage_k = 64, padded_k = 80, block_threads = 128;
constexpr int64_t largest_k = 131072;  // 127 * 127 * k stays an int32

struct Integers {
  const int8_t *a, *weights;
  const float* a_scales;
  const void* scales;
  int64_t k;
  bool half_scales, aligned;
};

/// Rows [first, first + tile) of a matrix [rows, k], bytes [k0, k0 + stage_k), zeros outside.
__device__ __forceinline__ void load_tile(int8_t* to, const int8_t* from, int64_t first, int64_t rows, int64_t k0,
                                          const Integers& o) {
#pragma unroll
  for (int i = 0; i < tile * stage_k / 16 / block_threads; ++i) {
    int piece = threadIdx.x + block_threads * i, row = piece / 4, at = piece % 4 * 16;
    int8_t* there = to + row * padded_k + at;
    bool inside = first + row < rows && k0 + at < o.k;
    const int8_t* source = inside ? from + (first + row) * o.k + k0 + at : from;
    if (o.aligned) {
      simt::cp_async_16_zfill(there, source, inside ? 16 : 0);
    } else {
      for (int b = 0; b < 16; ++b) there[b] = inside && k0 + at + b < o.k ? source[b] : 0;
    }
  }
}

__global__ void __launch_bounds__(block_threads) matmul_s8_kernel(Integers o, QuantizedOutput output) {
  SIMT_SHARED_ALIGNED(16, int8_t, a_tile, [2][tile * padded_k]);
  SIMT_SHARED_ALIGNED(16, int8_t, weight_tile, [2][tile * padded_k]);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warp_row = warp / 2 * 32, warp_column = warp % 2 * 32;
  int64_t first_row = static_cast<int64_t>(blockIdx.y) * tile, first_column = static_cast<int64_t>(blockIdx.x) * tile;
  auto load_stage = [&](int64_t stage) {
    load_tile(a_tile[stage % 2], o.a, first_row, output.rows, stage * stage_k, o);
    load_tile(weight_tile[stage % 2], o.weights, first_column, output.columns, stage * stage_k, o);
    simt::cp_async_commit();
  };
  int sum[2][4][4] = {};
  int64_t stages = (o.k + stage_k - 1) / stage_k;
  load_stage(0);
  for (int64_t stage = 0; stage < stages; ++stage) {
    if (stage + 1 < stages) {
      load_stage(stage + 1);
      simt::cp_async_wait<1>();
    } else {
      simt::cp_async_wait<0>();
    }
    __syncthreads();
    const int8_t *a_from = a_tile[stage % 2], *weights_from = weight_tile[stage % 2];
#pragma unroll
    for (int k = 0; k < stage_k; k += 32) {
      uint32_t a[2][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        simt::ldmatrix_x4(a[i], a_from + (warp_row + 16 * i + lane % 16) * padded_k + k + lane / 16 * 16);
#pragma unroll
      for (int j = 0; j < 2; ++j)
        simt::ldmatrix_x4(
            b[j], weights_from + (warp_column + 16 * j + lane % 8 + lane / 16 * 8) * padded_k + k + lane / 8 % 2 * 16);
#pragma unroll
      for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) simt::mma_s8_16832(sum[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        int64_t row = first_row + warp_row + 16 * i + lane / 4 + e / 2 * 8;
        int64_t column = first_column + warp_column + 8 * j + lane % 4 * 2 + e % 2;
        if (row >= output.rows || column >= output.columns) continue;
        float scale = o.a_scales[row] * load_scale(o.scales, o.half_scales, column);
        output.store(row, column, static_cast<float>(sum[i][j][e]) * scale);
      }
}

}  // namespace

void GpuDevice::matmul_s8(const QuantizedMatmul& op) {
  QuantizedProduct product(op);
  QuantizedOutput output(op, product);
  int64_t m = output.rows, k = product.a.columns;
  if (m == 0 || output.columns == 0) return;
  if (k > largest_k)
    fail("quantized_matmul: quantised activations of width {}, at most {} fit integer sums", k, largest_k);
  Operation operation(*this);
  Tensor integers(scratch<int8_t>(m * k), Dtype::i8, {m, k}), scales(scratch<float>(m), Dtype::fp32, {m});
  quantize({.out = integers, .scales = scales, .x = op.a});
  Integers o{.a = integers.as<int8_t>(),
             .weights = static_cast<const int8_t*>(op.weight.data()),
             .a_scales = scales.as<float>(),
             .scales = op.scales.data(),
             .k = k,
             .half_scales = product.weight.half_scales,
             .aligned = aligned16(op.weight.data()) && k % 16 == 0};
  launch(
      {"matmul_s8", dim3(ceil_div(output.columns, tile), ceil_div(m, tile)), dim3(block_threads), 0, op.weight.shape()},
      matmul_s8_kernel, o, output);
}

}  // namespace longhand::LONGHAND_GPU
