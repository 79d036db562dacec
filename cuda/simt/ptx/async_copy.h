// cp.async: copies from global to shared memory that run beside the thread. A thread issues copies, closes them into
// groups and waits until at most N groups are still under way; what other threads copied needs a barrier as well.
#pragma once
#include <cstdint>

namespace simt {

#if !SIMT_HOST
/// An address as instructions on shared memory take it.
__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}
#endif

/// Copies 16 bytes; both addresses are 16-byte aligned.
__device__ __forceinline__ void cp_async_16(void* shared, const void* global SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  copy_async(shared, global, 16, 16, place);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;\n" ::"r"(shared_address(shared)), "l"(global) : "memory");
#endif
}

/// Copies `bytes` (0 to 16) and fills the rest of the 16 with zeros; with 0 the source is not touched.
__device__ __forceinline__ void cp_async_16_zfill(void* shared, const void* global, int bytes SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  copy_async(shared, global, 16, bytes, place);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
               : "memory");
#endif
}

/// Closes the group of the copies issued since the last.
__device__ __forceinline__ void cp_async_commit() {
#if SIMT_HOST
  copy_async_commit();
#else
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}

/// Waits for all but the last N groups of this thread.
template <int N>
__device__ __forceinline__ void cp_async_wait() {
#if SIMT_HOST
  copy_async_wait(N);
#else
  asm volatile("cp.async.wait_group %0;\n" ::"n"(N) : "memory");
#endif
}

}  // namespace simt
