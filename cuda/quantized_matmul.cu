// Products with weights of 8 or 4 bits, which become bf16 in registers.
//
//   out = activation(a w'^T + bias),   w' = scale * integer
//
// Integers up to 8 bits are exact in bf16, so mma.sync multiplies them as they are and scales follow the sums. fp32
// activations enter as three bf16 that add up to them. A block has 16 to 64 rows and 16 or 32 columns; its eight warps
// share out k in runs that depend on k alone, and add their sums in the order of the runs: a row's bits do not depend
// on the number of rows. mma sums over k in an order of our choice: lane t of four takes 16 neighbours, so that weights
// come 16 (or 8) bytes at once and need no shared memory.
//   Few rows: moves n·k bytes (4 bits: half) and the scales; limit: memory bandwidth.
//   Many rows: 2·m·n·k operations; activations and weights come from the second-level cache n/32 and m/64 (groups
//   or fp32: m/32) times.
#include "cuda/quantized.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int warps = 8, block_threads = 32 * warps, block_k = 64, lane_k = 16;

struct Operands {
  const void* a;
  const uint8_t* weights;
  const void* scales;
  int64_t k, a_stride, row_bytes, scale_stride;
  bool half_scales, a_aligned, weights_aligned;
};

/// The upper halves of two floats side by side: their bf16 when nothing lies below.
__device__ __forceinline__ uint32_t upper_halves(float low, float high) {
  return __float_as_uint(low) >> 16 | (__float_as_uint(high) & 0xffff0000u);
}

/// 16 integers from k0 on as pairs of bf16; zeros beyond k.
template <bool four>
__device__ __forceinline__ void load_integers(uint32_t (&pair)[8], const uint8_t* row, int64_t k0, const Operands& o) {
  constexpr int words = four ? 2 : 4;
  uint32_t word[words] = {};
  const uint8_t* from = row + (four ? k0 / 2 : k0);
  if (o.weights_aligned && k0 + lane_k <= o.k) {
    if constexpr (four) {
      uint2 both = *reinterpret_cast<const uint2*>(from);
      word[0] = both.x, word[1] = both.y;
    } else {
      uint4 all = *reinterpret_cast<const uint4*>(from);
      word[0] = all.x, word[1] = all.y, word[2] = all.z, word[3] = all.w;
    }
  } else {
#pragma unroll
    for (int i = 0; i < 4 * words; ++i) {
      uint32_t byte = k0 + (four ? 2 * i : i) < o.k ? from[i] : four ? 0x88u : 0u;
      word[i / 4] |= byte << (i % 4 * 8);
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    if constexpr (four) {
      uint32_t byte = word[i / 4] >> (i % 4 * 8);
      uint32_t biased = (byte & 0xfu) | (byte & 0xf0u) << 12 | 0x43004300u;  // 128 + the nibble, in bf16
      pair[i] = upper_halves(__uint_as_float(biased << 16) - 136.0f, __uint_as_float(biased & 0xffff0000u) - 136.0f);
    } else {
      uint32_t both = (word[i / 2] ^ 0x80808080u) >> (i % 2 * 16);
      float low = __uint_as_float((both & 0xffu) | 0x4b000000u);  // 2^23 + 128 + the integer
      float high = __uint_as_float((both >> 8 & 0xffu) | 0x4b000000u);
      pair[i] = upper_halves(low - 8388736.0f, high - 8388736.0f);
    }
  }
}

/// 16 activations from k0 on as pairs of bf16, in so many planes that add up to them.
__device__ __forceinline__ void load_activations(uint32_t (&pair)[1][8], const bf16_t* row, int64_t k0,
                                                 const Operands& o) {
  if (o.a_aligned && k0 + lane_k <= o.k) {
    uint4 low = *reinterpret_cast<const uint4*>(row + k0), high = *reinterpret_cast<const uint4*>(row + k0 + 8);
    const uint32_t word[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) pair[0][i] = word[i];
    return;
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    int64_t at = k0 + 2 * i;
    pair[0][i] = upper_halves(at < o.k ? to_float(row[at]) : 0.0f, at + 1 < o.k ? to_float(row[at + 1]) : 0.0f);
  }
}
__device__ __forceinline__ void load_activations(uint32_t (&pair)[3][8], const float* row, int64_t k0,
                                                 const Operands& o) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    int64_t at = k0 + 2 * i;
    float low = at < o.k ? row[at] : 0.0f, high = at + 1 < o.k ? row[at + 1] : 0.0f;
#pragma unroll
    for (int plane = 0; plane < 3; ++plane) {
      pair[plane][i] = pack_bf16(low, high);
      low -= __uint_as_float(pair[plane][i] << 16), high -= __uint_as_float(pair[plane][i] & 0xffff0000u);
    }
  }
}

/// sum += 64 k of 16 rows (this lane's: group and group + 8) times 8 columns.
template <int planes>
__device__ __forceinline__ void multiply_block(float (&sum)[4], const uint32_t (&upper)[planes][8],
                                               const uint32_t (&lower)[planes][8], const uint32_t (&weights)[8]) {
#pragma unroll
  for (int step = 0; step < 4; ++step)
#pragma unroll
    for (int plane = 0; plane < planes; ++plane) {
      const uint32_t a[4] = {upper[plane][2 * step], lower[plane][2 * step], upper[plane][2 * step + 1],
                             lower[plane][2 * step + 1]};
      simt::mma_bf16_16816(sum, a, weights[2 * step], weights[2 * step + 1]);
    }
}

/// Block (tile of 8 * column_tiles columns, tile of 16 * row_tiles rows).
template <class A, bool four, bool grouped, int row_tiles, int column_tiles>
__global__ void __launch_bounds__(block_threads, 1) quantized_matmul_kernel(Operands o, QuantizedOutput output) {
  constexpr int planes = sizeof(A) == 4 ? 3 : 1, columns = 8 * column_tiles, rows = 16 * row_tiles;
  SIMT_SHARED(float, total, [rows * columns]);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / 4, t = lane % 4;
  int64_t first_column = static_cast<int64_t>(blockIdx.x) * columns,
          first_row = static_cast<int64_t>(blockIdx.y) * rows;
  auto column_of = [&](int64_t c) { return c < output.columns ? c : output.columns - 1; };
  auto row_of = [&](int64_t r) {
    return static_cast<const A*>(o.a) + (r < output.rows ? r : output.rows - 1) * o.a_stride;
  };

  float sum[row_tiles][column_tiles][4] = {};
  int64_t blocks = (o.k + block_k - 1) / block_k, each = (blocks + warps - 1) / warps;
  int64_t last = (warp + 1) * each < blocks ? (warp + 1) * each : blocks;
  for (int64_t block = warp * each; block < last; ++block) {
    int64_t k0 = block * block_k + t * lane_k;
    uint32_t weights[column_tiles][8];
#pragma unroll
    for (int c = 0; c < column_tiles; ++c)
      load_integers<four>(weights[c], o.weights + column_of(first_column + 8 * c + group) * o.row_bytes, k0, o);
#pragma unroll
    for (int r = 0; r < row_tiles; ++r) {
      uint32_t upper[planes][8], lower[planes][8];
      load_activations(upper, row_of(first_row + 16 * r + group), k0, o);
      load_activations(lower, row_of(first_row + 16 * r + group + 8), k0, o);
#pragma unroll
      for (int c = 0; c < column_tiles; ++c) {
        if constexpr (grouped) {
          float part[4] = {};
          multiply_block<planes>(part, upper, lower, weights[c]);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            int64_t column = column_of(first_column + 8 * c + 2 * t + i % 2);
            sum[r][c][i] += part[i] * load_scale(o.scales, o.half_scales, column * o.scale_stride + block);
          }
        } else {
          multiply_block<planes>(sum[r][c], upper, lower, weights[c]);
        }
      }
    }
  }

  for (int turn = 0; turn < warps; ++turn) {
    if (warp == turn)
#pragma unroll
      for (int r = 0; r < row_tiles; ++r)
#pragma unroll
        for (int c = 0; c < column_tiles; ++c)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float& to = total[(16 * r + group + i / 2 * 8) * columns + 8 * c + 2 * t + i % 2];
            to = turn == 0 ? sum[r][c][i] : to + sum[r][c][i];
          }
    __syncthreads();
  }
  for (int e = threadIdx.x; e < rows * columns; e += block_threads) {
    int64_t row = first_row + e / columns, column = first_column + e % columns;
    if (row >= output.rows || column >= output.columns) continue;
    float x = total[e];
    if (!grouped) x *= load_scale(o.scales, o.half_scales, column);
    output.store(row, column, x);
  }
}

using Kernel = void (*)(Operands, QuantizedOutput);
struct Tiles {
  Kernel kernel;
  int rows, columns;  // of a block
};

/// Few rows: narrow blocks, so that there are many. Otherwise as many rows as fit the registers.
template <class A, bool four, bool grouped>
Tiles tiles_for(bool few) {
  constexpr int most = grouped || sizeof(A) == 4 ? 2 : 4;
  if (few) return {quantized_matmul_kernel<A, four, grouped, 1, 2>, 16, 16};
  return {quantized_matmul_kernel<A, four, grouped, most, 4>, 16 * most, 32};
}

}  // namespace

void GpuDevice::quantized_matmul(const QuantizedMatmul& op) {
  if (op.scales.empty()) return unquantized_matmul(op);
  QuantizedProduct product(op);
  if (op.quantize_activations) return matmul_s8(op);
  QuantizedOutput output(op, product);
  if (output.rows == 0 || output.columns == 0) return;
  bool four = product.weight.four_bits, grouped = product.weight.grouped, few = output.rows <= 16;
  int64_t k = product.a.columns, row_bytes = four ? k / 2 : k, a_piece = 16 / dtype_bytes(op.a.type());
  Operands operands{.a = op.a.data(),
                    .weights = static_cast<const uint8_t*>(op.weight.data()),
                    .scales = op.scales.data(),
                    .k = k,
                    .a_stride = product.a.stride,
                    .row_bytes = row_bytes,
                    .scale_stride = product.weight.scale_stride,
                    .half_scales = product.weight.half_scales,
                    .a_aligned = aligned16(op.a.data()) && product.a.stride % a_piece == 0,
                    .weights_aligned = aligned16(op.weight.data()) && row_bytes % 16 == 0};
  for_type(op.a.type(), [&](auto zero) {
    using A = decltype(zero);
    Tiles tiles = four ? (grouped ? tiles_for<A, true, true>(few) : tiles_for<A, true, false>(few))
                       : (grouped ? tiles_for<A, false, true>(few) : tiles_for<A, false, false>(few));
    dim3 grid(ceil_div(output.columns, tiles.columns), ceil_div(output.rows, tiles.rows));
    launch({"quantized_matmul", grid, dim3(block_threads), 0, op.weight.shape()}, tiles.kernel, operands, output);
  });
}

/// Weights without scales: matmul's work; fp16 widens to fp32 first, since no product mixes it with bf16.
void GpuDevice::unquantized_matmul(const QuantizedMatmul& op) {
  if (op.quantize_activations) fail("quantized_matmul: quantised activations need quantised weights");
  Operation operation(*this);
  ConstTensor weight = op.weight;
  if (weight.type() == Dtype::fp16) {
    Tensor wide(scratch<float>(weight.elements()), Dtype::fp32, weight.shape());
    cast({.out = wide, .x = weight});
    weight = wide;
  }
  matmul({.out = op.out, .a = op.a, .b = weight, .bias = op.bias, .activation = op.activation});
}

}  // namespace longhand::LONGHAND_GPU
