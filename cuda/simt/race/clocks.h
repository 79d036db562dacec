// What orders two accesses of one block: a barrier that both threads' warps came to between them, or a __syncwarp of
// the lanes. A shuffle does not: it is no fence.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "cuda/simt/host/block.h"
#include "shadow.h"

namespace simt::race {

class Clocks {
 public:
  void reset() { std::memset(this, 0, sizeof *this); }

  Access now(unsigned thread) const {
    Access access{};
    access.clock = std::min(clock_[thread], largest_clock);
    access.epoch = std::min(epoch_[thread], largest_epoch);
    access.thread = thread, access.any = 1;
    return access;
  }

  /// Whether an access of the same block is ordered before what `thread` does now.
  bool before(const Access& access, unsigned thread) const {
    if (access.thread == thread) return true;
    if (access.clock == largest_clock || access.clock < seen_[thread][access.thread / 32]) return true;
    if (access.thread / 32 != thread / 32) return false;
    return access.epoch == largest_epoch || access.epoch < lane_seen_[thread][access.thread % 32];
  }

  void barrier_arrived(int id, unsigned thread) {
    uint32_t* arriving = arriving_[id];
    for (int warp = 0; warp < max_warps; ++warp) arriving[warp] = std::max(arriving[warp], seen_[thread][warp]);
    arriving[thread / 32] = std::max(arriving[thread / 32], ++clock_[thread]);
  }
  void barrier_opened(int id) {
    std::memcpy(opened_[id], arriving_[id], sizeof opened_[id]);
    std::memset(arriving_[id], 0, sizeof arriving_[id]);
  }
  void barrier_left(int id, unsigned thread) {
    for (int warp = 0; warp < max_warps; ++warp) seen_[thread][warp] = std::max(seen_[thread][warp], opened_[id][warp]);
  }

  void warp_barrier_met(uint32_t lanes, unsigned first_thread) {
    uint32_t joined[32] = {};
    for (int lane = 0; lane < 32; ++lane) {
      if (!(lanes >> lane & 1)) continue;
      for (int other = 0; other < 32; ++other)
        joined[other] = std::max(joined[other], lane_seen_[first_thread + lane][other]);
      joined[lane] = std::max(joined[lane], ++epoch_[first_thread + lane]);
    }
    for (int lane = 0; lane < 32; ++lane)
      if (lanes >> lane & 1) std::memcpy(lane_seen_[first_thread + lane], joined, sizeof joined);
  }

 private:
  uint32_t clock_[max_threads], epoch_[max_threads];
  uint32_t seen_[max_threads][max_warps];  // accesses of the warp's threads with a lower clock happened before
  uint32_t lane_seen_[max_threads][32];    // the same of the lanes of the own warp and their epochs
  uint32_t arriving_[max_barriers][max_warps], opened_[max_barriers][max_warps];
};

}  // namespace simt::race
