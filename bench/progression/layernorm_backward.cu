// Layer normalisation backward: naive -> staged -> the engine's. None uses atomics: the bits are always the same.
//
//   n = (sum - mean) rstd,  g = d_out gain;   d_sum += rstd (g - mean(g) - n mean(g n))       along a row
//   d_gain += sum_r d_out n,   d_bias += sum_r d_out                                          down a column
#include "bench/progression/harness.h"

namespace longhand::progression {
namespace {

struct Sizes {
  int rows, width;
};
struct Operands {
  float *d_sum, *d_gain, *d_bias;  // one behind the other
  const float *d_out, *sum, *mean, *rstd, *gain;
  Sizes s;
};

// Step 1. One thread a row, one thread a column. Neighbouring threads of the first read addresses a row apart, and the
// second has as many threads as columns, each with all rows to walk: both inputs are read for either. (The bytes asked
// for do not show the first: every load of a warp takes 32 sectors of 32 bytes and uses 4 of each.)
__global__ void naive_rows_kernel(Operands o) {
  int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, at = row * o.s.width;
  if (row >= o.s.rows) return;
  float mean = o.mean[row], rstd = o.rstd[row], mean_g = 0, mean_gn = 0;
  for (int c = 0; c < o.s.width; ++c) {
    float g = o.d_out[at + c] * o.gain[c];
    mean_g += g, mean_gn += g * (o.sum[at + c] - mean) * rstd;
  }
  mean_g /= static_cast<float>(o.s.width), mean_gn /= static_cast<float>(o.s.width);
  for (int c = 0; c < o.s.width; ++c)
    o.d_sum[at + c] += rstd * (o.d_out[at + c] * o.gain[c] - mean_g - (o.sum[at + c] - mean) * rstd * mean_gn);
}
__global__ void naive_columns_kernel(Operands o) {
  int column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= o.s.width) return;
  float gain = 0, bias = 0;
  for (int row = 0; row < o.s.rows; ++row) {
    float d = o.d_out[static_cast<int64_t>(row) * o.s.width + column];
    gain += d * (o.sum[static_cast<int64_t>(row) * o.s.width + column] - o.mean[row]) * o.rstd[row], bias += d;
  }
  o.d_gain[column] += gain, o.d_bias[column] += bias;
}

// Step 2. A warp a row, its lanes on neighbouring columns; the columns in stages: every block sums a stripe of rows
// into partial sums, and a second kernel adds these in order. The inputs are still read for either.
constexpr int warps = 4;

__global__ void __launch_bounds__(32 * warps) staged_rows_kernel(Operands o) {
  int64_t row = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32, at = row * o.s.width;
  if (row >= o.s.rows) return;
  float mean = o.mean[row], rstd = o.rstd[row], mean_g = 0, mean_gn = 0;
  int lane = threadIdx.x % 32;
  for (int c = lane; c < o.s.width; c += 32) {
    float g = o.d_out[at + c] * o.gain[c];
    mean_g += g, mean_gn += g * (o.sum[at + c] - mean) * rstd;
  }
  for (int step = 16; step > 0; step /= 2)
    mean_g += __shfl_xor_sync(all_lanes, mean_g, step), mean_gn += __shfl_xor_sync(all_lanes, mean_gn, step);
  mean_g /= static_cast<float>(o.s.width), mean_gn /= static_cast<float>(o.s.width);
  for (int c = lane; c < o.s.width; c += 32)
    o.d_sum[at + c] += rstd * (o.d_out[at + c] * o.gain[c] - mean_g - (o.sum[at + c] - mean) * rstd * mean_gn);
}
__global__ void staged_columns_kernel(Operands o, float* partials, int each) {
  int column = blockIdx.x * blockDim.x + threadIdx.x, first = blockIdx.y * each, end = min(first + each, o.s.rows);
  if (column >= o.s.width) return;
  float gain = 0, bias = 0;
  for (int row = first; row < end; ++row) {
    float d = o.d_out[static_cast<int64_t>(row) * o.s.width + column];
    gain += d * (o.sum[static_cast<int64_t>(row) * o.s.width + column] - o.mean[row]) * o.rstd[row], bias += d;
  }
  float* to = partials + static_cast<int64_t>(blockIdx.y) * 2 * o.s.width + column;
  to[0] = gain, to[o.s.width] = bias;
}
/// gain and bias lie one behind the other, as in the partial sums.
__global__ void add_partials_kernel(Operands o, const float* partials, int stripes) {
  int entry = blockIdx.x * blockDim.x + threadIdx.x;
  if (entry >= 2 * o.s.width) return;
  float sum = 0;
  for (int stripe = 0; stripe < stripes; ++stripe)
    sum += partials[static_cast<int64_t>(stripe) * 2 * o.s.width + entry];
  o.d_gain[entry] += sum;
}

// Step 3, the engine's (cuda/layernorm_backward.cu): a block walks a stripe of rows and its threads own columns, so the
// same registers that hold a row for its means feed the column sums: the inputs are read once, 16 bytes at a time.

std::vector<double> plain(const std::vector<float> (&x)[5], const std::vector<float>& initial, Sizes s) {
  const auto &d_out = x[0], &sum = x[1], &mean = x[2], &rstd = x[3], &gain = x[4];
  std::vector<double> out(initial.begin(), initial.end());
  double *d_gain = out.data() + s.rows * s.width, *d_bias = d_gain + s.width;
  for (int row = 0; row < s.rows; ++row) {
    double mean_g = 0, mean_gn = 0;
    auto normal = [&](int c) { return (static_cast<double>(sum[row * s.width + c]) - mean[row]) * rstd[row]; };
    auto g = [&](int c) { return static_cast<double>(d_out[row * s.width + c]) * gain[c]; };
    for (int c = 0; c < s.width; ++c) mean_g += g(c) / s.width, mean_gn += g(c) * normal(c) / s.width;
    for (int c = 0; c < s.width; ++c) {
      out[row * s.width + c] += rstd[row] * (g(c) - mean_g - normal(c) * mean_gn);
      d_gain[c] += d_out[row * s.width + c] * normal(c), d_bias[c] += d_out[row * s.width + c];
    }
  }
  return out;
}

}  // namespace

Exercise layernorm_backward(Memory& memory, bool full) {
  Sizes s = full ? Sizes{4096, 768} : Sizes{37, 96};
  int64_t entries = int64_t{s.rows} * s.width, count = entries + 2 * s.width,
          lengths[5] = {entries, entries, s.rows, s.rows, s.width};
  std::vector<float> inputs[5];
  const float* there[5];
  for (int i = 0; i < 5; ++i) {
    inputs[i] = memory.random(lengths[i]);
    there[i] = inputs[i].empty() ? memory.array<float>(lengths[i]) : memory.upload(inputs[i]);
  }
  std::vector<float> initial = memory.random(count);
  float* result = memory.array<float>(count);
  Operands o{result, result + entries, result + entries + s.width, there[0], there[1], there[2], there[3], there[4], s};
  constexpr int each = 8;
  int stripes = static_cast<int>(ceil_div(s.rows, each));
  float* partials = memory.array<float>(int64_t{stripes} * 2 * s.width);
  Device& device = memory.device;

  // Along a row: d_out and sum twice, d_sum read and written, gain twice. Down the columns: d_out and sum once.
  double all = 4.0 * static_cast<double>(entries), sums = 2 * 4.0 * stripes * s.width, ends = 4 * 4.0 * s.width;
  std::vector<Step> steps = {
      {"naive", 6 * all + 2 * all / 32 + 2 * all + ends,
       [=] {
         start(naive_rows_kernel, dim3(ceil_div(s.rows, 128)), dim3(128), o);
         start(naive_columns_kernel, dim3(ceil_div(s.width, 128)), dim3(128), o);
       }},
      {"staged", 8 * all + 2 * all + 2 * sums + ends,
       [=] {
         start(staged_rows_kernel, dim3(ceil_div(s.rows, warps)), dim3(32 * warps), o);
         start(staged_columns_kernel, dim3(ceil_div(s.width, 128), stripes), dim3(128), o, partials, each);
         start(add_partials_kernel, dim3(ceil_div(2 * s.width, 128)), dim3(128), o, partials, stripes);
       }},
      {"engine: one pass", 6 * all + 2 * sums + ends, [=, &device] {
         device.layernorm_backward({.d_sum = Tensor(o.d_sum, Dtype::fp32, {s.rows, s.width}),
                                    .d_gain = Tensor(o.d_gain, Dtype::fp32, {s.width}),
                                    .d_bias = Tensor(o.d_bias, Dtype::fp32, {s.width}),
                                    .d_out = ConstTensor(o.d_out, Dtype::fp32, {s.rows, s.width}),
                                    .sum = ConstTensor(o.sum, Dtype::fp32, {s.rows, s.width}),
                                    .mean = ConstTensor(o.mean, Dtype::fp32, {s.rows}),
                                    .rstd = ConstTensor(o.rstd, Dtype::fp32, {s.rows}),
                                    .gain = ConstTensor(o.gain, Dtype::fp32, {s.width})});
       }}};
  return {fmt::format("layer normalisation backward: rows={} width={}", s.rows, s.width),
          steps,
          [=, &memory] { memory.write(result, initial); },
          [=, &memory] { return memory.download(result, count); },
          [=] { return plain(inputs, initial, s); },
          1e-5};
}

}  // namespace longhand::progression
