// Blocks: indices, barriers and their counts, named barriers, shared memory, asynchronous copies, atomics.
#include <cmath>

#include "tests/simt/fixture.h"

namespace simt_test {
namespace {

__global__ void index_kernel(int* out) {
  const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

TEST_CASE("threads and blocks have the indices of their launch") {
  DeviceArray<int> out(24 * 30);
  run(index_kernel, dim3(2, 3, 4), dim3(5, 3, 2), 0, out.data());
  for (int block = 0; block < 24; ++block)
    for (int thread = 0; thread < 30; ++thread) CHECK(out.values()[30 * block + thread] == 1000 * block + thread);
}

__global__ void barrier_kernel(int* out) {
  SIMT_SHARED(int, box, [96]);
  const int i = threadIdx.x;
  box[i] = i;
  __syncthreads();
  const int mirrored = box[95 - i];
  out[i] = mirrored;
  out[96 + i] = __syncthreads_count(i % 3 == 0);
  out[192 + i] = __syncthreads_or(i == 95) + 2 * __syncthreads_and(i < 96) + 4 * __syncthreads_and(i < 95);
}

TEST_CASE("a barrier makes every thread's writes visible and counts predicates") {
  DeviceArray<int> out(288);
  run(barrier_kernel, 1, 96, 0, out.data());
  for (int i = 0; i < 96; ++i) {
    CHECK(out.values()[i] == 95 - i);
    CHECK(out.values()[96 + i] == 32);
    CHECK(out.values()[192 + i] == 3);
  }
}

// One warp fills a box, the other empties it: barrier 1 says full, barrier 2 says empty.
__global__ void named_kernel(int* out) {
  SIMT_SHARED(int, box, [32]);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  for (int round = 0; round < 4; ++round) {
    if (warp == 0) {
      box[lane] = 100 * round + lane;
      simt::bar_arrive(1, 64);
      simt::bar_sync(2, 64);
    } else {
      simt::bar_sync(1, 64);
      out[32 * round + lane] = box[31 - lane];
      simt::bar_arrive(2, 64);
    }
  }
}

TEST_CASE("named barriers between a producer and a consumer") {
  DeviceArray<int> out(128);
  run(named_kernel, 1, 64, 0, out.data());
  for (int i = 0; i < 128; ++i) CHECK(out.values()[i] == i / 32 * 100 + 31 - i % 32);
}

struct alignas(32) Wide {
  float value[8];
};
__global__ void shared_kernel(unsigned long long* out, int* sums) {
  SIMT_SHARED(char, odd, [3]);
  SIMT_SHARED(Wide, wide);
  SIMT_SHARED_ALIGNED(128, float, tile, [2][5]);
  SIMT_DYN_SHARED(int, dynamic);
  const int i = threadIdx.x;
  dynamic[i] = i;
  if (i < 3) odd[i] = i;
  if (i < 8) wide.value[i] = i;
  if (i < 10) tile[i / 5][i % 5] = i;
  __syncthreads();
  if (i == 0) {
    out[0] = reinterpret_cast<unsigned long long>(&wide) % 32;
    out[1] = reinterpret_cast<unsigned long long>(&tile[0][0]) % 128;
    out[2] = reinterpret_cast<unsigned long long>(dynamic) % 16;
  }
  sums[blockIdx.x * 64 + i] =
      dynamic[63 - i] + odd[i % 3] + static_cast<int>(wide.value[i % 8]) + static_cast<int>(tile[1][i % 5]);
}

TEST_CASE("shared memory has its alignment and belongs to one block") {
  DeviceArray<unsigned long long> out(3);
  DeviceArray<int> sums(192);
  run(shared_kernel, 3, 64, 64 * sizeof(int), out.data(), sums.data());
  for (auto offset : out.values()) CHECK(offset == 0);
  for (int i = 0; i < 192; ++i) CHECK(sums.values()[i] == 63 - i % 64 + i % 64 % 3 + i % 64 % 8 + 5 + i % 64 % 5);
}

// Two stages in flight: while one is used, the next is on its way.
__global__ void pipeline_kernel(float* out, const float* in, int stages, int last_bytes) {
  SIMT_SHARED_ALIGNED(16, float, tile, [2][128]);
  const int i = threadIdx.x;
  auto fetch = [&](int stage) {
    if (stage < stages) {
      const int bytes = stage == stages - 1 ? last_bytes : 16;
      simt::cp_async_16_zfill(&tile[stage % 2][4 * i], in + 128 * stage + 4 * i, bytes);
    }
    simt::cp_async_commit();
  };
  float sum = 0;
  fetch(0);
  for (int stage = 0; stage < stages; ++stage) {
    fetch(stage + 1);
    simt::cp_async_wait<1>();
    __syncthreads();
    for (int k = 0; k < 4; ++k) sum += tile[stage % 2][127 - (4 * i + k)];
    __syncthreads();
  }
  simt::cp_async_wait<0>();
  out[i] = sum;
}

TEST_CASE("asynchronous copies: two stages, and zeros beyond the bytes given") {
  std::vector<float> in(5 * 128);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i);
  for (int last_bytes : {0, 4, 8, 12, 16}) {
    DeviceArray<float> device_in(in), out(32);
    run(pipeline_kernel, 1, 32, 0, out.data(), device_in.data(), 5, last_bytes);
    for (int i = 0; i < 32; ++i) {
      float sum = 0;
      for (int stage = 0; stage < 5; ++stage)
        for (int k = 0; k < 4; ++k) {
          const int place = 127 - (4 * i + k);
          if (stage < 4 || place % 4 * 4 < last_bytes) sum += in[128 * stage + place];
        }
      CHECK(out.values()[i] == sum);
    }
  }
}

__global__ void atomic_kernel(float* sum, unsigned* words, unsigned long long* longs, unsigned* last) {
  SIMT_SHARED(unsigned, in_block);
  const unsigned number = blockIdx.x * blockDim.x + threadIdx.x;
  if (threadIdx.x == 0) in_block = 0;
  __syncthreads();
  atomicAdd(&in_block, 1u);
  atomicAdd(sum, 0.5f);
  atomicMax(&words[0], number), atomicMin(&words[1], number);
  atomicOr(&words[2], 1u << number % 32), atomicAnd(&words[3], ~(1u << number % 7)),
      atomicXor(&words[4], 1u << number % 2);
  atomicAdd(&longs[0], 1ull << 33), atomicOr(&longs[1], 1ull << number % 64),
      atomicMax(&longs[2], 5000000000ull + number);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    if (atomicInc(&words[5], gridDim.x - 1) == gridDim.x - 1) *last = in_block * gridDim.x;
    unsigned old = words[6], seen;
    while ((seen = atomicCAS(&words[6], old, old + 3)) != old) old = seen;
  }
}

TEST_CASE("atomic operations on 32 and 64 bits") {
  DeviceArray<float> sum(std::vector<float>{0});
  DeviceArray<unsigned> words(std::vector<unsigned>{0, ~0u, 0, ~0u, 0, 0, 0}), last(1);
  DeviceArray<unsigned long long> longs(std::vector<unsigned long long>{0, 0, 0});
  run(atomic_kernel, 50, 96, 0, sum.data(), words.data(), longs.data(), last.data());
  CHECK(sum.values()[0] == 2400);
  CHECK(words.values() == std::vector<unsigned>{4799, 0, ~0u, ~127u, 0, 0, 150});
  CHECK(longs.values() == std::vector<unsigned long long>{4800ull << 33, ~0ull, 5000004799ull});
  CHECK(last.values()[0] == 4800);
}

}  // namespace
}  // namespace simt_test
