// Who wants to know what kernels do: the race detector (cuda/simt/race), which sets `observer` when it is linked in.
#pragma once
#include <cstddef>
#include <cstdint>

#include "launch.h"

namespace simt {

class Observer {
 public:
  virtual ~Observer() = default;
  virtual void launch_begins(const Launch& launch) = 0;
  /// Null, or what the launch shall fail with.
  virtual const char* launch_ends() = 0;
  virtual void block_begins(const void* arena, size_t bytes, unsigned block) = 0;
  virtual void shared_declared(const void* p, size_t bytes, const char* name) = 0;
  virtual void barrier_arrived(int id, unsigned thread) = 0;
  virtual void barrier_opened(int id) = 0;
  virtual void barrier_left(int id, unsigned thread) = 0;
  /// Lanes of the warp whose first thread is `thread` have met at __syncwarp; they go on afterwards.
  virtual void warp_barrier_met(uint32_t lanes, unsigned thread) = 0;
  /// Bytes of shared memory that a copy under way will overwrite.
  virtual void copy_under_way(const void* p, size_t bytes) = 0;
  virtual void accessed(const void* p, size_t bytes, bool writes, const void* code) = 0;  // code: null for a copy
  virtual void memory_allocated(const void* p, size_t bytes) = 0;
  virtual void memory_freed(const void* p) = 0;
  virtual void memory_written(const void* p, size_t bytes) = 0;
  virtual void memory_undefined(const void* p, size_t bytes) = 0;
};
extern Observer* observer;

}  // namespace simt
