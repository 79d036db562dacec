#include "worker.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "context_switch.h"
#include "observer.h"
#include "scheduler.h"

namespace simt {

thread_local Worker* current_worker = nullptr;

namespace {

constexpr size_t page = 4096;
/// Of a thread; below each stack lies a page that faults.
size_t stack_bytes() {
  static const size_t bytes = config().stack_bytes ? config().stack_bytes : (address_sanitizer ? 256 : 64) * 1024;
  return bytes;
}
size_t stack_stride() { return stack_bytes() + page; }

char* map_memory(size_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    std::perror("simt: no memory for a block");
    std::abort();
  }
  return static_cast<char*>(memory);
}

/// What a thread must not leave behind when it returns.
void check_return(const Fiber& self) {
  const Warp& warp = *self.warp;
  const Barrier& barrier = self.block->barrier[0];
  if (!self.copies.empty()) fail("returned with %zu cp.async copies that were never waited for", self.copies.size());
  for (int i = 0; i < warp.meetings; ++i)
    if (const Meeting& m = warp.meeting[i]; m.mask >> self.lane & 1)
      fail("returned while lanes %08x of its warp wait for it at %s %s:%d", m.arrived, m.what, m.place.file,
           m.place.line);
  if (barrier.what)
    fail("returned while %d threads of its block wait at %s %s:%d", barrier.arrived, barrier.what, barrier.place.file,
         barrier.place.line);
}

/// Runs one thread of block after block; a fiber outlives its thread.
void run_threads(void* argument) {
  Fiber& self = *static_cast<Fiber*>(argument);
  self.context.sanitized.arrive();
  for (;;) {
    Block& block = *self.block;
    Warp& warp = *self.warp;
    block.launch->call(*block.launch);
    check_return(self);
    warp.alive &= ~(1u << self.lane);
    warp.ready &= ~(1u << self.lane);
    if (--block.alive == 0) {
      switch_to_worker();
      continue;
    }
    Fiber* next = next_fiber(block, warp.index);
    if (!next) fail_deadlocked(block);
    switch_to(*next);
  }
}

}  // namespace

Worker::Worker() : fibers_(max_threads) {
  stacks_ = map_memory(stack_stride() * max_threads);
  block_.arena = map_memory(arena_bytes + page);
  mprotect(block_.arena + arena_bytes, page, PROT_NONE);
  std::memset(block_.arena, 0xff, arena_bytes);
  for (int i = 0; i < max_threads; ++i) {
    fibers_[i].linear = i, fibers_[i].lane = i % 32;
    fibers_[i].block = &block_, fibers_[i].warp = &block_.warp[i / 32];
  }
  for (int i = 0; i < max_warps; ++i) block_.warp[i].index = i, block_.warp[i].fibers = &fibers_[32 * i];
#if SIMT_ASAN
  pthread_attr_t attributes;
  void* low = nullptr;
  size_t bytes = 0;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &low, &bytes);
  pthread_attr_destroy(&attributes);
  own_.sanitized.begin(low, bytes);
#endif
}

Worker::~Worker() {
  permit(block_.arena, arena_bytes);
  munmap(stacks_, stack_stride() * max_threads);
  munmap(block_.arena, arena_bytes + page);
}

void Worker::make_fiber(int i) {
  Fiber& fiber = fibers_[i];
  char* low = stacks_ + stack_stride() * i;
  mprotect(low, page, PROT_NONE);
  fiber.stack = low + page;
  permit(fiber.stack, stack_bytes());
  // With a stride of whole pages the busy ends of all stacks would share few sets of the cache: each starts elsewhere.
  const size_t colour = static_cast<size_t>(i * 5 % 64) * 64;
  fiber.context.stack_pointer = simt_make_context(fiber.stack + stack_bytes() - 64 - colour, run_threads, &fiber);
  fiber.context.sanitized.begin(fiber.stack, stack_bytes());
  fiber.copies.clear();
}

void Worker::prepare(const Launch& launch, const Config& config) {
  block_.launch = &launch;
  block_.size = launch.block, block_.grid = launch.grid;
  block_.dynamic = launch.shared, block_.limit = config.shared_limit;
  block_.order = config.order, block_.async_copy = config.async_copy;
  block_.threads = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  block_.warps = (block_.threads + 31) / 32;
  while (made_ < block_.threads) make_fiber(made_++);
}

void Worker::reset_threads() {
  block_.alive = block_.threads, block_.failed = false;
  std::fill(std::begin(block_.barrier), std::end(block_.barrier), Barrier{});
  for (int i = 0; i < block_.warps; ++i) {
    Warp& warp = block_.warp[i];
    const int lanes = std::min(32, block_.threads - 32 * i);
    warp.exists = warp.alive = warp.ready = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
    warp.meetings = 0;
    std::fill(std::begin(warp.at_barrier), std::end(warp.at_barrier), 0u);
  }
  uint3 index{0, 0, 0};
  for (int i = 0; i < block_.threads; ++i) {
    fibers_[i].index = index, fibers_[i].copy_group = 0;
    if (++index.x < block_.size.x) continue;
    index.x = 0;
    if (++index.y < block_.size.y) continue;
    index.y = 0, ++index.z;
  }
}

void Worker::reset_shared_memory() {
  permit(block_.arena, arena_bytes);
  std::memset(block_.arena, 0xff,
              std::max(block_.used, block_.dynamic));  // beyond it nothing was written since the last time
  forbid(block_.arena + block_.dynamic, arena_bytes - block_.dynamic);
  block_.used = block_.dynamic, block_.declared = 0;
  std::fill(block_.piece.begin(), block_.piece.end(), nullptr);
}

void Worker::run_block(unsigned number) {
  const dim3 grid = block_.grid;
  block_.index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
  block_.random_state = (config().seed * 0x9E3779B97F4A7C15ull ^ number * 0xD1B54A32D192ED03ull) | 1;
  draw(block_), draw(block_);
  reset_threads();
  reset_shared_memory();
  if (observer) {
    observer->block_begins(block_.arena, arena_bytes, number);
    if (block_.dynamic) observer->shared_declared(block_.arena, block_.dynamic, "dynamic shared memory");
  }
  redraw_order(block_);
  const unsigned first_warp = block_.order == Order::reverse  ? block_.warps - 1
                              : block_.order == Order::random ? block_.priority[0]
                                                              : 0;
  Fiber* first = next_fiber(block_, first_warp);
  current_thread = first, current_block = &block_;
  own_.sanitized.leave_for(first->context.sanitized);
  simt_switch(&own_.stack_pointer, first->context.stack_pointer);
  own_.sanitized.arrive();
  current_thread = nullptr, current_block = nullptr;
  if (block_.failed)  // its fibers stand in the middle of the kernel
    for (int i = 0; i < made_; ++i) make_fiber(i);
}

}  // namespace simt
