// The dialect of our kernels as nvcc reads it: CUDA itself, with a spelling of its own for shared memory and launches.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define SIMT_HOST 0

/// Shared memory of a size known at compile time: SIMT_SHARED(float, tile, [2][32]); or a scalar: SIMT_SHARED(int,
/// count);
#define SIMT_SHARED(T, name, ...) __shared__ T name __VA_ARGS__
#define SIMT_SHARED_ALIGNED(alignment, T, name, ...) \
  __shared__ __align__(alignment)                    \
  T name __VA_ARGS__
/// Shared memory of the size that the launch gives: SIMT_DYN_SHARED(float, tile); one untyped symbol serves every
/// template.
#define SIMT_DYN_SHARED(T, name)                                         \
  extern __shared__ __align__(128) unsigned char simt_dynamic_shared_[]; \
  T* const name = reinterpret_cast<T*>(simt_dynamic_shared_)

namespace simt {

/// Parameters that take no argument: on the host, operations know the place in the kernel that called them.
#define SIMT_PLACE_PARAMETER

/// Starts a kernel. The parameters' types come from the kernel alone, so arguments convert as in a call.
template <class... Parameters, class... Arguments>
inline cudaError_t launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                          Arguments&&... arguments) {
  if (shared > 48 * 1024) {
    cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    if (status != cudaSuccess) return status;
  }
  cudaLaunchConfig_t how = {};
  how.gridDim = grid, how.blockDim = block, how.dynamicSmemBytes = shared, how.stream = stream;
  return cudaLaunchKernelEx(&how, kernel, static_cast<Parameters>(arguments)...);
}

/// On the host, memory that holds nothing of use until it is written becomes NaN.
inline void undefined_memory(void*, size_t, cudaStream_t) {}

}  // namespace simt
