// A thread of the host that runs blocks, one after another, on fibers that it keeps from block to block.
#pragma once
#include <vector>

#include "block.h"

namespace simt {

constexpr size_t arena_bytes = 256 * 1024;

class Worker {
 public:
  Worker();
  ~Worker();
  Worker(const Worker&) = delete;

  /// Takes over how the launch wants its blocks to be run.
  void prepare(const Launch& launch, const Config& config);
  void run_block(unsigned number);

  Context& own_context() { return own_; }
  Counters counters;

 private:
  void make_fiber(int i);
  void reset_threads();
  void reset_shared_memory();

  Block block_;
  std::vector<Fiber> fibers_;
  char* stacks_ = nullptr;
  int made_ = 0;  // fibers that have a stack to start on
  Context own_;
};

extern thread_local Worker* current_worker;

}  // namespace simt
