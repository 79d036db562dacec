// The dialect of our kernels as a host compiler reads it: CUDA's keywords say nothing, its functions are C++.
#pragma once
#include <cstdint>
#include <cstdio>

#define SIMT_HOST 1

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
// Not __noinline__, which libstdc++ spells as an attribute, and not __shared__: SIMT_SHARED declares shared memory.

#include "async_copy.h"
#include "atomics.h"
#include "bf16.h"
#include "block_barrier.h"
#include "config.h"
#include "fp16.h"
#include "intrinsics.h"
#include "launch.h"
#include "matrix.h"
#include "runtime_api.h"
#include "shared_memory.h"
#include "thread_view.h"
#include "vector_types.h"
#include "warp.h"
