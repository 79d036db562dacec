#include "block_barrier.h"

#include "observer.h"
#include "scheduler.h"

namespace simt {
namespace {

void check_arrival(Block& block, int id, int expected, const char* what, Place place) {
  Barrier& barrier = block.barrier[id];
  if (!barrier.what) {
    barrier.what = what, barrier.place = place, barrier.expected = expected;
    return;
  }
  if (barrier.expected != expected)
    fail("%s at %s:%d waits for %d threads, others wait there for %d (%s:%d)", what, place.file, place.line, expected,
         barrier.expected, barrier.place.file, barrier.place.line);
  if (id == 0 && !(barrier.place == place && barrier.what == what))
    fail("barrier divergence: this thread is at %s %s:%d while others of its block wait at %s %s:%d", what, place.file,
         place.line, barrier.what, barrier.place.file, barrier.place.line);
}

void check_named(const char* what, int id, int threads, Place place) {
  if (id < 0 || id >= max_barriers)
    fail("%s at %s:%d: barrier %d is not one of 0 to 15", what, place.file, place.line, id);
  if (threads <= 0 || threads % 32 || threads > running().block->threads)
    fail("%s at %s:%d: %d threads is not a multiple of 32 up to the block's %d", what, place.file, place.line, threads,
         running().block->threads);
}

/// Returns in how many threads the predicate held.
int arrive_and_wait(int id, int expected, bool predicate, const char* what, Place place) {
  Fiber& self = running();
  Block& block = *self.block;
  Barrier& barrier = block.barrier[id];
  check_arrival(block, id, expected, what, place);
  barrier.holds += predicate;
  if (observer) observer->barrier_arrived(id, self.linear);
  if (++barrier.arrived == expected) {
    open_barrier(block, id);
  } else {
    self.warp->at_barrier[id] |= 1u << self.lane;
    wait(what, place);
  }
  if (observer) observer->barrier_left(id, self.linear);
  return barrier.result;
}

}  // namespace

void open_barrier(Block& block, int id) {
  Barrier& barrier = block.barrier[id];
  barrier.result = barrier.holds;
  barrier.holds = barrier.arrived = 0;
  barrier.what = nullptr;
  if (observer) observer->barrier_opened(id);
  if (block.order == Order::random) redraw_order(block);
  for (int i = 0; i < block.warps; ++i) {
    block.warp[i].ready |= block.warp[i].at_barrier[id];
    block.warp[i].at_barrier[id] = 0;
  }
}

int block_threads() { return running().block->threads; }

int block_barrier(bool predicate, const char* what, Place place) {
  Block& block = *running().block;
  if (block.alive != block.threads)
    fail("%s at %s:%d: %d of the block's %d threads have returned", what, place.file, place.line,
         block.threads - block.alive, block.threads);
  return arrive_and_wait(0, block.threads, predicate, what, place);
}

void named_barrier(int id, int threads, Place place) {
  check_named("bar.sync", id, threads, place);
  arrive_and_wait(id, threads, false, "bar.sync", place);
}

void named_barrier_arrive(int id, int threads, Place place) {
  check_named("bar.arrive", id, threads, place);
  Fiber& self = running();
  check_arrival(*self.block, id, threads, "bar.arrive", place);
  if (observer) observer->barrier_arrived(id, self.linear);
  if (++self.block->barrier[id].arrived == threads) open_barrier(*self.block, id);
}

}  // namespace simt
