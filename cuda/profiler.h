// Marks for NVIDIA's profilers: named ranges (NVTX) and the stretch that they record. On the host there is none.
#pragma once

#include "cuda/simt/simt.h"

#if !SIMT_HOST
#include <cuda_profiler_api.h>
#include <nvtx3/nvToolsExt.h>
#endif

namespace longhand::LONGHAND_GPU::profiler {

#if SIMT_HOST
inline void begin_range(const char*) {}
inline void end_range() {}
inline void record(bool) {}
#else
inline void begin_range(const char* name) { nvtxRangePushA(name); }
inline void end_range() { nvtxRangePop(); }
/// Profilers started with `--capture-range=cudaProfilerApi` (nsys) or `--profile-from-start off` (ncu) record while on.
inline void record(bool on) {
  if (on)
    cudaProfilerStart();
  else
    cudaProfilerStop();
}
#endif

}  // namespace longhand::LONGHAND_GPU::profiler
