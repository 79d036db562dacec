// Which thread of a block runs: a switch happens only where a thread waits, yields or ends.
#pragma once
#include "block.h"

namespace simt {

/// The next ready fiber, of `warp` when it has one; null when nobody is ready.
Fiber* next_fiber(Block& block, unsigned warp);
/// A new random order of warps and lanes.
void redraw_order(Block& block);

void switch_to(Fiber& to);
/// Leaves the block; the worker goes on.
void switch_to_worker();

/// Not ready any more: runs others until somebody sets this thread's bit in its warp's `ready`.
void wait(const char* what, Place place);
/// Fails with a list of where every thread of the block stands.
[[noreturn]] void fail_deadlocked(Block& block);

/// Opens barrier `id`: everyone who waits there is ready again.
void open_barrier(Block& block, int id);
/// Runs the operation of a meeting that is complete; its lanes but `running_lane`'s become ready.
void finish_meeting(Warp& warp, int index, uint32_t running_lane);

}  // namespace simt
