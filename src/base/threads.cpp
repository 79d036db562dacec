#include "longhand/threads.h"

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace longhand {

// A loop is announced by raising `round`; workers spin on it for a short while before they sleep, because the loops of
// a training step follow one another within microseconds.
struct ThreadPool::State {
  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> round{0};
  std::atomic<int64_t> next{0};
  std::atomic<int> running{0};
  std::atomic<bool> stop{false};
  int sleeping = 0;  // guarded by mutex
  int64_t count = 0;
  bool dynamic = true;
  const std::function<void(int64_t, int)>* work = nullptr;

  void share(int thread, int threads) {
    if (dynamic) {
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) (*work)(i, thread);
    } else {
      int64_t first = count * thread / threads, last = count * (thread + 1) / threads;
      for (int64_t i = first; i < last; ++i) (*work)(i, thread);
    }
  }

  void worker(int thread, int threads) {
    uint64_t seen = 0;
    for (;;) {
      for (int spin = 0; spin < 20000 && round.load(std::memory_order_acquire) == seen; ++spin) __builtin_ia32_pause();
      if (round.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex);
        ++sleeping;
        wake.wait(lock, [&] { return round.load(std::memory_order_acquire) != seen; });
        --sleeping;
      }
      seen = round.load(std::memory_order_acquire);
      if (stop) return;
      share(thread, threads);
      running.fetch_sub(1, std::memory_order_release);
    }
  }
};

static int usable_cores() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  unsigned cores = std::thread::hardware_concurrency();
  return cores ? static_cast<int>(cores) : 1;
}

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  if (threads <= 0) threads = usable_cores();
  for (int t = 1; t < threads; ++t)
    state_->workers.emplace_back([state = state_.get(), t, threads] { state->worker(t, threads); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop = true;
    state_->round.fetch_add(1, std::memory_order_release);
  }
  state_->wake.notify_all();
  for (auto& worker : state_->workers) worker.join();
}

int ThreadPool::size() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::parallel_for(int64_t count, const std::function<void(int64_t, int)>& work, bool dynamic) {
  State& s = *state_;
  int threads = size();
  if (threads == 1 || count <= 1) {
    for (int64_t i = 0; i < count; ++i) work(i, 0);
    return;
  }
  s.count = count, s.work = &work, s.dynamic = dynamic;
  s.next.store(0, std::memory_order_relaxed);
  s.running.store(threads - 1, std::memory_order_relaxed);
  {
    std::lock_guard lock(s.mutex);
    s.round.fetch_add(1, std::memory_order_release);
    if (s.sleeping > 0) s.wake.notify_all();
  }
  s.share(0, threads);
  for (int spin = 0; s.running.load(std::memory_order_acquire) > 0; ++spin)
    if (spin > 20000)
      std::this_thread::yield();
    else
      __builtin_ia32_pause();
}

}  // namespace longhand
