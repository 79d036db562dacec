// What the card can do at most, measured: the denominators of "% of the speed of light".
//
// Multiply-adds: every thread runs independent chains of one instruction, enough of them to hide its latency; fp32 FMA
// on the ordinary cores, mma.sync m16n8k16 in bf16 on the tensor cores (on cards with wgmma that is less than the data
// sheet's peak, and the most that these kernels can reach). Reading: every thread adds 16-byte words of a stretch far
// larger than the L2 cache, four loads in flight.
#include <algorithm>
#include <chrono>
#include <vector>

#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "longhand/ceilings.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int chains = 8;

__global__ void __launch_bounds__(256) fma_kernel(float* out, int rounds, float a, float b) {
  float chain[chains];
#pragma unroll
  for (int i = 0; i < chains; ++i) chain[i] = static_cast<float>(threadIdx.x + i);
  for (int round = 0; round < rounds; ++round)
#pragma unroll
    for (int i = 0; i < chains; ++i) chain[i] = fmaf(chain[i], a, b);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < chains; ++i) sum += chain[i];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

__global__ void __launch_bounds__(256) mma_kernel(float* out, int rounds, uint32_t word) {
  float chain[chains][4] = {};
  uint32_t a[4] = {word, word, word, word};
  for (int round = 0; round < rounds; ++round)
#pragma unroll
    for (int i = 0; i < chains; ++i) simt::mma_bf16_16816(chain[i], a, word, word);
  float sum = 0;
#pragma unroll
  for (int i = 0; i < chains; ++i) sum += chain[i][0] + chain[i][1] + chain[i][2] + chain[i][3];
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

__global__ void __launch_bounds__(256) read_kernel(float* out, const float4* from, int64_t words) {
  float sum = 0;
  int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; at + 3 * step < words; at += 4 * step)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float4 word = from[at + i * step];
      sum += word.x + word.y + word.z + word.w;
    }
  for (; at < words; at += step) sum += from[at].x;
  out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}

}  // namespace

Ceilings GpuDevice::ceilings() {
  // On the host the kernels run in miniature, and the processor's own ceilings are the answer.
  const int blocks = SIMT_HOST ? 1 : 132 * 8, rounds = SIMT_HOST ? 1 : 4096, repeats = SIMT_HOST ? 1 : 5;
  const int64_t words = SIMT_HOST ? 4096 : int64_t{32} << 20;
  Operation operation(*this);
  float* out = scratch<float>(blocks * 256);
  float4* stretch = scratch<float4>(words);
  check(cudaMemsetAsync(stretch, 0, words * 16, stream_), "clearing the stretch that is read");
  auto rate = [&](double amount, auto&& start) {
    std::vector<double> seconds;
    for (int i = 0; i <= repeats; ++i) {
      synchronize();
      auto begin = std::chrono::steady_clock::now();
      start();
      synchronize();
      seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
    return amount / *std::min_element(seconds.begin(), seconds.end());
  };
  Launch how{"ceilings", dim3(blocks), dim3(256), 0, {}};
  double threads = 256.0 * blocks;
  Ceilings c;
  c.fma_fp32 = rate(threads * rounds * chains * 2, [&] { launch(how, fma_kernel, out, rounds, 0.999f, 1e-3f); });
  c.dot_bf16 = rate(threads / 32 * rounds * chains * 4096, [&] { launch(how, mma_kernel, out, rounds, 0x3f803f80u); });
  c.read_bytes = rate(16.0 * static_cast<double>(words), [&] { launch(how, read_kernel, out, stretch, words); });
  if (SIMT_HOST) return cached_ceilings(0);
  c.threads = 1;
  c.processor = card_name();
  return c;
}

}  // namespace longhand::LONGHAND_GPU
