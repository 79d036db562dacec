// Named barriers: sixteen a block (0 is __syncthreads'), each for a number of threads that is a multiple of 32.
#pragma once

namespace simt {

/// Waits until `threads` threads have come to barrier `id`.
__device__ __forceinline__ void bar_sync(int id, int threads SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  named_barrier(id, threads, place);
#else
  asm volatile("bar.sync %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
#endif
}

/// Counts as one of the threads of barrier `id` without waiting.
__device__ __forceinline__ void bar_arrive(int id, int threads SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  named_barrier_arrive(id, threads, place);
#else
  asm volatile("bar.arrive %0, %1;\n" ::"r"(id), "r"(threads) : "memory");
#endif
}

}  // namespace simt
