// Launches: the limits of a card, blocks spread over the workers, and what is left of a kernel that failed.
#include "launch.h"

#include <atomic>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "device_memory.h"
#include "launch_log.h"
#include "observer.h"
#include "scheduler.h"
#include "worker.h"

namespace simt {

Observer* observer = nullptr;
cudaError_t (*launch_interceptor)(const Launch&) = nullptr;

namespace {

constexpr unsigned most_workers = 16;  // a thousand stacks each, every one with its guard page

std::mutex error_mutex;
std::string error_text;
std::atomic<bool> launch_failed{false};
cudaError_t status_of_last = cudaSuccess;

void note_error(const char* text) {
  std::lock_guard lock(error_mutex);
  if (!launch_failed) error_text = text;
  launch_failed = true;
}

/// The blocks of one launch, taken one by one.
struct Job {
  const Launch& launch;
  unsigned blocks;
  std::atomic<unsigned> next{0};

  void work() {
    static thread_local std::unique_ptr<Worker> worker;
    if (!worker) worker = std::make_unique<Worker>();
    current_worker = worker.get();
    worker->prepare(launch, config());
    for (unsigned i; !launch_failed && (i = next++) < blocks;)
      worker->run_block(config().order == Order::reverse ? blocks - 1 - i : i);
    static std::mutex mutex;
    std::lock_guard lock(mutex);
    counters().ldmatrix_phases += worker->counters.ldmatrix_phases;
    counters().ldmatrix_conflicts += worker->counters.ldmatrix_conflicts;
    worker->counters = {};
  }
};

/// Threads that wait for jobs; the caller of run() works too.
class Pool {
 public:
  ~Pool() {
    {
      std::lock_guard lock(mutex_);
      ends_ = true;
    }
    start_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(Job& job, unsigned workers) {
    if (workers > 1) {
      std::lock_guard lock(mutex_);
      while (threads_.size() < workers - 1) threads_.emplace_back([this] { serve(); });
      job_ = &job, busy_ = static_cast<unsigned>(threads_.size()), ++generation_;
      start_.notify_all();
    }
    job.work();
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return busy_ == 0; });
  }

 private:
  void serve() {
    unsigned seen = 0;
    for (;;) {
      std::unique_lock lock(mutex_);
      start_.wait(lock, [&] { return ends_ || generation_ != seen; });
      if (ends_) return;
      seen = generation_;
      Job* job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::mutex mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> threads_;
  Job* job_ = nullptr;
  unsigned generation_ = 0, busy_ = 0;
  bool ends_ = false;
};

/// Null, or what the card would refuse about the launch.
const char* refusal(const Launch& launch) {
  const dim3 grid = launch.grid, block = launch.block;
  const uint64_t threads = static_cast<uint64_t>(block.x) * block.y * block.z;
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  if (threads == 0 || threads > max_threads || block.z > 64)
    return "a block has 1 to 1024 threads, at most 64 of them in z";
  if (blocks == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535)
    return "a grid has 1 to 2147483647 x 65535 x 65535 blocks";
  if (blocks > 0xffffffffu) return "more than 4294967295 blocks are not run on the host";
  if (launch.shared > config().shared_limit) return "more dynamic shared memory than a block may have";
  return nullptr;
}

unsigned worker_count(unsigned blocks) {
  if (observer) return 1;
  unsigned workers = config().workers ? config().workers : std::min(std::thread::hardware_concurrency(), most_workers);
  return std::max(1u, std::min(workers, blocks));
}

}  // namespace

void fail(const char* format, ...) {
  char text[4096];
  int length = 0;
  if (current_thread) {
    const uint3 block = current_block->index, thread = current_thread->index;
    length = std::snprintf(text, sizeof text, "block (%u,%u,%u) thread (%u,%u,%u): ", block.x, block.y, block.z,
                           thread.x, thread.y, thread.z);
  }
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text + length, sizeof text - length, format, arguments);
  va_end(arguments);
  if (!current_thread) {
    std::fprintf(stderr, "simt: %s\n", text);
    std::abort();
  }
  note_error(text);
  running().block->failed = true;
  switch_to_worker();  // for good: the worker starts its fibers anew
  __builtin_unreachable();
}

const char* last_error() {
  static thread_local std::string copy;
  std::lock_guard lock(error_mutex);
  copy = error_text;
  return copy.c_str();
}

cudaError_t run_grid(const Launch& launch) {
  static std::mutex one_at_a_time;
  std::lock_guard lock(one_at_a_time);
  launch_failed = false;
  if (const char* why = refusal(launch)) {
    note_error(why);
    return status_of_last = cudaErrorInvalidConfiguration;
  }
  static Pool pool;
  Accessible memory;
  Job job{launch, launch.grid.x * launch.grid.y * launch.grid.z};
  if (observer) observer->launch_begins(launch);
  const Counters before = counters();
  pool.run(job, worker_count(job.blocks));
  if (launches_are_logged())
    log_launch(launch, {counters().ldmatrix_phases - before.ldmatrix_phases,
                        counters().ldmatrix_conflicts - before.ldmatrix_conflicts});
  if (observer)
    if (const char* report = observer->launch_ends()) note_error(report);
  if (launch_failed) status_of_last = cudaErrorLaunchFailure;
  return launch_failed ? cudaErrorLaunchFailure : cudaSuccess;
}

cudaError_t start(const Launch& launch) { return launch_interceptor ? launch_interceptor(launch) : run_grid(launch); }

}  // namespace simt

cudaError_t cudaPeekAtLastError() { return simt::status_of_last; }
cudaError_t cudaGetLastError() { return std::exchange(simt::status_of_last, cudaSuccess); }
const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorStreamCaptureUnsupported:
      return "not permitted while a stream is recorded";
    case cudaErrorStreamCaptureIsolation:
      return "a recorded stream cannot wait for what was not recorded";
    case cudaErrorGraphExecUpdateFailure:
      return "the graph has another shape";
    default:
      return simt::last_error();
  }
}
