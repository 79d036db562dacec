// Kernels with one mistake each, and a few that are sound: what the checks of scripts/simt_checks.sh must notice, and
// must not. `wrong_kernels list` names them; `wrong_kernels run NAME` runs one on two blocks of 128 threads or as it
// says below, and prints the hash of what it wrote, with NaN behind it when there is one; 3 is the exit status of a
// failed launch.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cuda/simt/simt.h"

namespace {

constexpr unsigned all_lanes = 0xffffffffu;
constexpr int threads = 128;

// Barriers.

__global__ void barrier_missing(float* out, const float*) {
  SIMT_SHARED(float, box, [threads]);
  box[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = box[threadIdx.x ^ 64];  // another warp's
}
__global__ void barrier_missing_before_reuse(float* out, const float*) {
  SIMT_SHARED(float, of_warp, [threads / 32]);
  float sum = 0;
  for (int round = 0; round < 3; ++round) {
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = 10 * round + threadIdx.x;
    __syncthreads();
    for (int warp = 0; warp < threads / 32; ++warp) sum += of_warp[warp];
  }
  out[threadIdx.x] = sum;
}
__global__ void barrier_missing_in_tree(float* out, const float* in) {
  SIMT_SHARED(float, sum, [threads]);
  sum[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  for (int step = threads / 2; step > 0; step /= 2) {
    if (static_cast<int>(threadIdx.x) < step) sum[threadIdx.x] += sum[threadIdx.x + step];
    if (step > 32) __syncthreads();  // one warp is left, but its lanes are not in step
  }
  __syncthreads();
  out[threadIdx.x] = sum[0];
}
__global__ void barrier_missing_after_zeroing(float* out, const float*) {
  SIMT_SHARED(unsigned, count, [4]);
  if (threadIdx.x >= 124) count[threadIdx.x - 124] = 0;
  atomicAdd(&count[threadIdx.x % 4], 1u);
  __syncthreads();
  out[threadIdx.x] = count[threadIdx.x % 4];
}
__global__ void barriers_in_both_branches(float* out, const float*) {
  if (threadIdx.x < 64) {
    out[threadIdx.x] = 1;
    __syncthreads();
  } else {
    out[threadIdx.x] = 2;
    __syncthreads();
  }
}
__global__ void barrier_for_some(float* out, const float*) {
  if (threadIdx.x < 100) __syncthreads();
  out[threadIdx.x] = 1;
}
__global__ void return_before_barrier(float* out, const float*) {
  if (threadIdx.x >= 100) return;
  out[threadIdx.x] = 1;
  __syncthreads();
}
__global__ void named_barriers_crossed(float* out, const float*) {
  if (threadIdx.x < 64) {
    simt::bar_sync(1, threads);
    simt::bar_sync(2, threads);
  } else {
    simt::bar_sync(2, threads);
    simt::bar_sync(1, threads);
  }
  out[threadIdx.x] = 1;
}
__global__ void named_barrier_too_small(float* out, const float*) {  // 64 of 96 threads open it
  SIMT_SHARED(float, box, [threads]);
  box[threadIdx.x] = threadIdx.x;
  if (threadIdx.x < 64) simt::bar_sync(1, 64);
  out[threadIdx.x] = threadIdx.x < 32 ? box[threadIdx.x + 64] : 0.0f;
}

// Warps.

__global__ void syncwarp_missing(float* out, const float*) {
  SIMT_SHARED(float, box, [threads]);
  box[threadIdx.x] = threadIdx.x;
  const float one = __shfl_xor_sync(all_lanes, 1.0f, 1);  // lanes meet here, but it orders no memory
  out[threadIdx.x] = one * box[threadIdx.x ^ 1];
}
__global__ void shuffle_for_half(float* out, const float*) {
  float value = threadIdx.x;
  if (threadIdx.x % 32 < 16) value = __shfl_xor_sync(all_lanes, value, 1);
  out[threadIdx.x] = value;
}
__global__ void shuffle_from_outside_mask(float* out, const float*) {
  float value = 1;
  if (threadIdx.x % 32 < 16) value = __shfl_xor_sync(0x0000ffffu, value, 16);
  out[threadIdx.x] = value;
}
__global__ void shuffle_after_return(float* out, const float*) {
  if (threadIdx.x % 32 >= 30) return;
  out[threadIdx.x] = __shfl_down_sync(all_lanes, threadIdx.x + 1.0f, 1);
}

// Asynchronous copies.

__global__ void copy_read_before_wait(float* out, const float* in) {
  SIMT_SHARED_ALIGNED(16, float, tile, [4 * threads]);
  simt::cp_async_16(&tile[4 * threadIdx.x], in + 4 * threadIdx.x);
  simt::cp_async_commit();
  out[threadIdx.x] = tile[4 * threadIdx.x];
  simt::cp_async_wait<0>();
}
__global__ void copy_never_waited(float* out, const float* in) {
  SIMT_SHARED_ALIGNED(16, float, tile, [4 * threads]);
  simt::cp_async_16(&tile[4 * threadIdx.x], in + 4 * threadIdx.x);
  simt::cp_async_commit();
  out[threadIdx.x] = 1;
}
__global__ void copy_waited_without_barrier(float* out, const float* in) {
  SIMT_SHARED_ALIGNED(16, float, tile, [4 * threads]);
  simt::cp_async_16(&tile[4 * threadIdx.x], in + 4 * threadIdx.x);
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
  out[threadIdx.x] = tile[(4 * threadIdx.x + 256) % 512];  // what another thread copied
}
__global__ void copy_wait_one_short(float* out, const float* in) {
  SIMT_SHARED_ALIGNED(16, float, tile, [2][4 * threads]);
  for (int stage = 0; stage < 2; ++stage) {
    simt::cp_async_16(&tile[stage][4 * threadIdx.x], in + 4 * threadIdx.x);
    simt::cp_async_commit();
  }
  simt::cp_async_wait<1>();  // the second stage may still be under way
  __syncthreads();
  out[threadIdx.x] = tile[0][threadIdx.x] + tile[1][threadIdx.x];
  simt::cp_async_wait<0>();
}
__global__ void copy_into_stage_in_use(float* out, const float* in) {
  SIMT_SHARED_ALIGNED(16, float, tile, [4 * threads]);
  float sum = 0;
  for (int stage = 0; stage < 2; ++stage) {
    simt::cp_async_16(&tile[4 * threadIdx.x], in + 4 * ((threadIdx.x + stage) % threads));
    simt::cp_async_commit();
    simt::cp_async_wait<0>();
    __syncthreads();
    sum += tile[(4 * threadIdx.x + 256) % 512];  // slow threads still read when fast ones copy the next stage
  }
  out[threadIdx.x] = sum;
}

// Outside of what is theirs.

__global__ void shared_overrun(float* out, const float*) {
  SIMT_SHARED(float, box, [64]);
  SIMT_SHARED(float, next, [64]);
  next[threadIdx.x % 64] = 0;
  float* p = box;
  p[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = p[threadIdx.x] + next[0];
}
__global__ void dynamic_shared_overrun(float* out, const float*) {
  SIMT_DYN_SHARED(float, box);
  box[threadIdx.x + 1] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = box[threadIdx.x == 0 ? 1 : threadIdx.x];
}
__global__ void device_write_one_over(float* out, const float*) { out[threadIdx.x + 1] = 1; }
__global__ void device_write_far_over(float* out, const float*) { out[threadIdx.x + 64] = 1; }
__global__ void device_read_over(float* out, const float* in) { out[threadIdx.x] = in[4 * threadIdx.x + 4]; }
__global__ void device_write_before(float* out, const float*) { out[static_cast<int>(threadIdx.x) - 1] = 1; }
__global__ void matrix_row_in_device_memory(float* out, const float* in) {
  uint32_t r[4];
  simt::ldmatrix_x4(r, in + threadIdx.x % 32 * 4);
  out[threadIdx.x] = r[0];
}
__global__ void freed_memory(float* out, const float* freed) { out[threadIdx.x] = freed[threadIdx.x]; }

// Never written.

__global__ void shared_never_written(float* out, const float*) {
  SIMT_SHARED(float, box, [threads]);
  if (threadIdx.x != 77) box[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = box[threads - 1 - threadIdx.x];
}
__global__ void device_never_written(float* out, const float* fresh) {
  out[threadIdx.x] = threadIdx.x == 5 ? fresh[5] : 1.0f;
}

// Alignment, arithmetic, limits.

__global__ void vector_misaligned(float* out, const float*) {
  SIMT_SHARED(float, box, [4 * threads]);
  for (int i = 0; i < 4; ++i) box[4 * threadIdx.x + i] = i;
  __syncthreads();
  float4 v = *reinterpret_cast<float4*>(&box[4 * threadIdx.x]);
  out[threadIdx.x] = v.x + v.w;
}
__global__ void matrix_row_misaligned(float* out, const float*) {
  SIMT_SHARED_ALIGNED(16, uint16_t, tile, [16 * 20]);
  for (int i = threadIdx.x; i < 16 * 20; i += threads) tile[i] = 0;
  __syncthreads();
  uint32_t r[4];
  simt::ldmatrix_x4(r, &tile[threadIdx.x % 16 * 18]);
  out[threadIdx.x] = r[0];
}
__global__ void shift_too_far(float* out, const float*) {
  const int by = threadIdx.x;
  out[threadIdx.x] = static_cast<float>(1 << by);
}
__global__ void offset_overflows(float* out, const float* in) {
  const int row = (threadIdx.x + 1) * 100000, width = 100000;
  out[threadIdx.x] = in[row * width & 1];
}
__global__ void shared_too_much(float* out, const float*) {
  SIMT_SHARED(float, box, [13 * 1024]);
  box[threadIdx.x] = 1;
  __syncthreads();
  out[threadIdx.x] = box[threadIdx.x];
}

// Device memory shared by threads, by blocks, with the host.

__global__ void two_threads_one_word(float* out, const float*) { out[threadIdx.x / 2] = threadIdx.x; }
__global__ void two_blocks_one_word(float* out, const float*) {
  if (threadIdx.x == 0) out[0] = out[0] * 2 + blockIdx.x;
}
__global__ void sum_in_order_of_arrival(float* out, const float* in) {
  atomicAdd(&out[0], threadIdx.x == 64 ? 1e8f : in[threadIdx.x]);
}

// Sound ones.

__global__ void sound_copy_and_shuffle(float* out, const float* in) {
  SIMT_SHARED_ALIGNED(16, float, tile, [4 * threads]);
  simt::cp_async_16(&tile[4 * threadIdx.x], in + 4 * threadIdx.x);
  simt::cp_async_commit();
  simt::cp_async_wait<0>();
  __syncthreads();
  float sum = tile[511 - 4 * threadIdx.x];
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(all_lanes, sum, step);
  __syncthreads();
  tile[threadIdx.x] = sum;
  __syncwarp();
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}
__global__ void sound_last_block(float* out, const float* in) {  // the block that comes last adds what all have written
  SIMT_SHARED(unsigned, place);
  out[1 + blockIdx.x * threads + threadIdx.x] = in[threadIdx.x];
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) place = atomicAdd(reinterpret_cast<unsigned*>(out), 1u);
  __syncthreads();
  if (place != gridDim.x - 1) return;
  float sum = 0;
  for (unsigned block = 0; block < gridDim.x; ++block)
    sum += __ldcg(&out[1 + block * threads + (threadIdx.x + 1) % threads]);
  out[1 + gridDim.x * threads + threadIdx.x] = sum;
}
__global__ void sound_warps_hand_over(float* out, const float* in) {
  SIMT_SHARED(float, box, [64]);
  const int half = threadIdx.x / 64, i = threadIdx.x % 64;
  for (int round = 0; round < 3; ++round) {
    if (half == 0) {
      box[i] = in[i] * round;
      simt::bar_arrive(1, threads);
      simt::bar_sync(2, threads);
    } else {
      simt::bar_sync(1, threads);
      out[64 * round + i] = box[63 - i];
      simt::bar_arrive(2, threads);
    }
  }
}

struct Arguments {
  float *out, *in, *fresh;
};
using Kernel = void (*)(float*, const float*);

cudaError_t start(Kernel kernel, const Arguments& a, int blocks = 1, size_t shared = 0) {
  return simt::launch(kernel, dim3(blocks), dim3(threads), shared, nullptr, a.out, a.in);
}

struct Entry {
  const char* name;
  cudaError_t (*run)(const Arguments&);
};
#define PLAIN(NAME)                                          \
  {                                                          \
#NAME, [](const Arguments& a) { return start(NAME, a); } \
  }
const Entry entries[] = {
    PLAIN(barrier_missing),
    PLAIN(barrier_missing_before_reuse),
    PLAIN(barrier_missing_in_tree),
    PLAIN(barrier_missing_after_zeroing),
    PLAIN(barriers_in_both_branches),
    PLAIN(barrier_for_some),
    PLAIN(return_before_barrier),
    PLAIN(named_barriers_crossed),
    PLAIN(named_barrier_too_small),
    PLAIN(syncwarp_missing),
    PLAIN(shuffle_for_half),
    PLAIN(shuffle_from_outside_mask),
    PLAIN(shuffle_after_return),
    PLAIN(copy_read_before_wait),
    PLAIN(copy_never_waited),
    PLAIN(copy_waited_without_barrier),
    PLAIN(copy_wait_one_short),
    PLAIN(copy_into_stage_in_use),
    PLAIN(shared_overrun),
    {"dynamic_shared_overrun",
     [](const Arguments& a) { return start(dynamic_shared_overrun, a, 1, threads * sizeof(float)); }},
    PLAIN(device_write_one_over),
    PLAIN(device_write_far_over),
    PLAIN(device_read_over),
    PLAIN(device_write_before),
    PLAIN(matrix_row_in_device_memory),
    {"freed_memory",
     [](const Arguments& a) {
       cudaFree(a.in);
       return start(freed_memory, a);
     }},
    PLAIN(shared_never_written),
    {"device_never_written",
     [](const Arguments& a) {
       return start(device_never_written, {a.out, a.fresh, nullptr});
     }},
    PLAIN(vector_misaligned),
    PLAIN(matrix_row_misaligned),
    PLAIN(shift_too_far),
    PLAIN(offset_overflows),
    PLAIN(shared_too_much),
    PLAIN(two_threads_one_word),
    {"two_blocks_one_word", [](const Arguments& a) { return start(two_blocks_one_word, a, 8); }},
    PLAIN(sum_in_order_of_arrival),
    {"host_reads_device_memory",
     [](const Arguments& a) {
       volatile float value = a.in[3];
       a.out[0] = value;
       return cudaSuccess;
     }},
    PLAIN(sound_copy_and_shuffle),
    {"sound_last_block",
     [](const Arguments& a) {
       float* partial = nullptr;
       cudaMalloc(&partial, (1 + 5 * threads) * sizeof(float));
       cudaMemset(partial, 0, (1 + 5 * threads) * sizeof(float));
       cudaError_t status = start(sound_last_block, {partial, a.in, nullptr}, 4);
       cudaMemcpy(a.out, partial + 1 + 4 * threads, threads * sizeof(float), cudaMemcpyDeviceToDevice);
       cudaFree(partial);
       return status;
     }},
    {"sound_warps_hand_over",
     [](const Arguments& a) {
       float* rounds = nullptr;
       cudaMalloc(&rounds, 192 * sizeof(float));
       cudaError_t status = start(sound_warps_hand_over, {rounds, a.in, nullptr});
       cudaMemcpy(a.out, rounds + 64, threads * sizeof(float), cudaMemcpyDeviceToDevice);
       cudaFree(rounds);
       return status;
     }},
};

int run(const Entry& entry) {
  std::vector<float> in(4 * threads), out(threads);
  for (size_t i = 0; i < in.size(); ++i) in[i] = 1.0f + i;
  Arguments a{};
  cudaMalloc(&a.out, threads * sizeof(float));
  cudaMalloc(&a.in, in.size() * sizeof(float));
  cudaMalloc(&a.fresh, threads * sizeof(float));
  cudaMemcpy(a.in, in.data(), in.size() * sizeof(float), cudaMemcpyHostToDevice);
  cudaMemset(a.out, 0, threads * sizeof(float));
  if (cudaError_t status = entry.run(a); status != cudaSuccess) {
    std::printf("failed: %s\n", cudaGetErrorString(status));
    return 3;
  }
  cudaMemcpy(out.data(), a.out, threads * sizeof(float), cudaMemcpyDeviceToHost);
  uint64_t hash = 14695981039346656037ull;
  bool nan = false;
  for (float value : out) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    hash = (hash ^ word) * 1099511628211ull;
    nan = nan || std::isnan(value);
  }
  std::printf("%016llx%s\n", static_cast<unsigned long long>(hash), nan ? " NaN" : "");
  cudaFree(a.out);
  if (std::strcmp(entry.name, "freed_memory") != 0) cudaFree(a.in);
  cudaFree(a.fresh);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "list") == 0) {
    for (const Entry& entry : entries) std::puts(entry.name);
    return 0;
  }
  for (const Entry& entry : entries)
    if (argc == 3 && std::strcmp(entry.name, argv[2]) == 0) return run(entry);
  std::fputs("wrong_kernels list | run NAME\n", stderr);
  return 2;
}
