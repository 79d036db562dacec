// A product with weights of 8 bits for a few rows, as in decoding: naive -> vectorised -> the engine's.
//
//   out_ij = scale_j sum_k a_ik w_jk,   a bf16, w int8, sums fp32
//
// Every weight is used `rows` times only, so the limit is how fast weights come from memory.
#include "bench/progression/harness.h"

namespace longhand::progression {
namespace {

struct Sizes {
  int rows, columns, k;
};
struct Operands {
  float* out;
  const bf16_t* a;
  const int8_t* weights;
  const float* scales;
  Sizes s;
};

// Step 1. One thread an entry, a byte at a time: the 32 threads of a warp read 32 rows of weights, a line of memory
// each, of which every load uses one byte.
__global__ void naive_kernel(Operands o) {
  int column = blockIdx.x * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (column >= o.s.columns) return;
  float sum = 0;
  for (int i = 0; i < o.s.k; ++i)
    sum += to_float(o.a[static_cast<int64_t>(row) * o.s.k + i]) * o.weights[static_cast<int64_t>(column) * o.s.k + i];
  o.out[static_cast<int64_t>(row) * o.s.columns + column] = sum * o.scales[column];
}

// Step 2. One warp takes four columns: its lanes read neighbouring 16-byte pieces, 512 bytes at once, and use them for
// all rows before the next; a row's piece serves the four columns. Now weights move once and as fast as memory gives
// them; what is left is multiplying, a conversion and an fma for each weight and row.
constexpr int most_rows = 4, columns_of_warp = 4, warps = 4, columns_of_block = columns_of_warp * warps;

__device__ __forceinline__ void load_weights(float (&weight)[16], const int8_t* from) {
  uint4 words = *reinterpret_cast<const uint4*>(from);
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 16; ++i) weight[i] = static_cast<float>(static_cast<int8_t>(word[i / 4] >> i % 4 * 8));
}

__global__ void __launch_bounds__(32 * warps) vectorised_kernel(Operands o) {
  int first_column = (blockIdx.x * warps + threadIdx.x / 32) * columns_of_warp, lane = threadIdx.x % 32;
  if (first_column >= o.s.columns) return;
  auto column_of = [&](int c) { return min(first_column + c, o.s.columns - 1); };
  float sum[columns_of_warp][most_rows] = {};
  for (int first = 16 * lane; first < o.s.k; first += 16 * 32) {
    float weight[columns_of_warp][16];
#pragma unroll
    for (int c = 0; c < columns_of_warp; ++c)
      load_weights(weight[c], o.weights + static_cast<int64_t>(column_of(c)) * o.s.k + first);
#pragma unroll
    for (int row = 0; row < most_rows; ++row) {
      if (row >= o.s.rows) break;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float a[8];
        LONGHAND_GPU::load_piece<bf16_t>(a, o.a + static_cast<int64_t>(row) * o.s.k + first + 8 * half);
#pragma unroll
        for (int c = 0; c < columns_of_warp; ++c)
#pragma unroll
          for (int i = 0; i < 8; ++i) sum[c][row] = fmaf(a[i], weight[c][8 * half + i], sum[c][row]);
      }
    }
  }
#pragma unroll
  for (int c = 0; c < columns_of_warp; ++c)
#pragma unroll
    for (int row = 0; row < most_rows; ++row) {
      for (int step = 16; step > 0; step /= 2) sum[c][row] += __shfl_xor_sync(all_lanes, sum[c][row], step);
      if (lane == 0 && row < o.s.rows && first_column + c < o.s.columns)
        o.out[static_cast<int64_t>(row) * o.s.columns + first_column + c] = sum[c][row] * o.scales[first_column + c];
    }
}

// Step 3, the engine's (cuda/quantized_matmul.cu): the same 16-byte loads, but mma multiplies 16 rows at once, integers
// being exact in bf16; eight warps share out k.

std::vector<double> plain(const std::vector<float>& a, const std::vector<int8_t>& weights,
                          const std::vector<float>& scales, Sizes s) {
  std::vector<double> out;
  for (int row = 0; row < s.rows; ++row)
    for (int column = 0; column < s.columns; ++column) {
      double sum = 0;
      for (int i = 0; i < s.k; ++i) sum += static_cast<double>(a[row * s.k + i]) * weights[column * s.k + i];
      out.push_back(sum * scales[column]);
    }
  return out;
}

}  // namespace

Exercise int8_product(Memory& memory, bool full) {
  Sizes s = full ? Sizes{4, 8192, 4096} : Sizes{3, 42, 320};
  int64_t inputs = int64_t{s.rows} * s.k, entries = int64_t{s.columns} * s.k, count = int64_t{s.rows} * s.columns;
  std::vector<bf16_t> a = rounded(memory.random(inputs));
  std::vector<int8_t> weights;
  for (float x : memory.random(entries)) weights.push_back(static_cast<int8_t>(std::lround(127 * x)));
  std::vector<float> scales = memory.random(s.columns);
  bool counting = a.empty();
  Operands o{memory.array<float>(count), counting ? nullptr : memory.upload(a),
             counting ? nullptr : memory.upload(weights), counting ? nullptr : memory.upload(scales), s};
  Device& device = memory.device;
  double least = static_cast<double>(entries) + 4.0 * s.columns + 4.0 * static_cast<double>(count);
  double of_a = 2.0 * static_cast<double>(inputs);
  std::vector<Step> steps = {
      {"naive",
       s.rows * (static_cast<double>(entries) + 4.0 * s.columns) + of_a * ceil_div(s.columns, 32) + 4.0 * count,
       [=] { start(naive_kernel, dim3(ceil_div(s.columns, 128), s.rows), dim3(128), o); }},
      {"vectorised", least + of_a * ceil_div(s.columns, columns_of_warp),
       [=] { start(vectorised_kernel, dim3(ceil_div(s.columns, columns_of_block)), dim3(32 * warps), o); }},
      {"engine: mma, split k", least + of_a * ceil_div(s.columns, 16), [=, &device] {
         device.quantized_matmul({.out = Tensor(o.out, Dtype::fp32, {s.rows, s.columns}),
                                  .a = ConstTensor(o.a, Dtype::bf16, {s.rows, s.k}),
                                  .weight = ConstTensor(o.weights, Dtype::i8, {s.columns, s.k}),
                                  .scales = ConstTensor(o.scales, Dtype::fp32, {s.columns})});
       }}};
  return {fmt::format("int8 product: rows={} columns={} k={}", s.rows, s.columns, s.k),
          steps,
          [=, &memory] { memory.write(o.out, std::vector<float>(count, NAN)); },
          [=, &memory] { return memory.download(o.out, count); },
          [=] { return plain(widened(a), weights, scales, s); },
          1e-5};
}

}  // namespace longhand::progression
