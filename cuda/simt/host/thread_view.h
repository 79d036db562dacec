// The running thread and its block, as kernels see them: threadIdx, blockIdx, blockDim, gridDim.
#pragma once
#include "vector_types.h"

namespace simt {

struct ThreadView {
  uint3 index;      // threadIdx
  unsigned linear;  // the same as one number, x fastest
  unsigned lane;    // its place in the warp
};
struct BlockView {
  uint3 index;      // blockIdx
  dim3 size, grid;  // blockDim, gridDim
};

// constinit: access is a plain load relative to the thread pointer. Null outside kernels.
extern constinit thread_local ThreadView* current_thread;
extern constinit thread_local BlockView* current_block;

}  // namespace simt

#define threadIdx (::simt::current_thread->index)
#define blockIdx (::simt::current_block->index)
#define blockDim (::simt::current_block->size)
#define gridDim (::simt::current_block->grid)
#define warpSize 32
