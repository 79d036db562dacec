#include "longhand/threads.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace longhand {

namespace {

/// Waits, at first so that a quiet machine answers within a microsecond, then so that a busy one can run the thread
/// that is waited for. False when it has been long.
class Patience {
 public:
  bool wait() {
    ++turns_;
    if (turns_ <= spins)
      __builtin_ia32_pause();
    else
      std::this_thread::yield();
    return turns_ < spins + yields;
  }

 private:
  static constexpr int spins = 1000, yields = 500;
  int turns_ = 0;
};

}  // namespace

// A loop is announced by a new round in `gate`; a worker enters it by counting itself in. The caller works as well and
// closes the gate when no index is left: it waits for the workers inside, never for one that the system has not let
// run. Workers wait a short while before they sleep, because the loops of a training step follow one another within
// microseconds.
struct ThreadPool::State {
  static constexpr uint64_t one_round = 1 << 17, closed = 1 << 16, inside = closed - 1;

  std::vector<std::thread> workers;
  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<uint64_t> gate{closed};  // round, closed, workers inside
  std::atomic<int64_t> next{0};
  std::atomic<int> parts_left{0};  // of the workers, where every thread has its part
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
      if (thread > 0) parts_left.fetch_sub(1, std::memory_order_release);
    }
  }

  uint64_t round() const { return gate.load(std::memory_order_acquire) / one_round; }

  void open() {
    {
      std::lock_guard lock(mutex);
      gate.store((gate.load(std::memory_order_relaxed) / one_round + 1) * one_round, std::memory_order_release);
      if (sleeping == 0) return;
    }
    wake.notify_all();
  }

  /// Counts the caller in; false when the round is over. `seen` becomes the round.
  bool enter(uint64_t& seen) {
    uint64_t now = gate.load(std::memory_order_acquire);
    do {
      seen = now / one_round;
      if (now & closed) return false;
    } while (!gate.compare_exchange_weak(now, now + 1, std::memory_order_acq_rel, std::memory_order_acquire));
    return true;
  }

  void await_round_after(uint64_t seen) {
    for (Patience patience; round() == seen;)
      if (!patience.wait()) {
        std::unique_lock lock(mutex);
        ++sleeping;
        wake.wait(lock, [&] { return round() != seen; });
        --sleeping;
      }
  }

  void worker(int thread, int threads) {
    for (uint64_t seen = 0;;) {
      await_round_after(seen);
      bool entered = enter(seen);
      if (stop) return;
      if (!entered) continue;
      share(thread, threads);
      gate.fetch_sub(1, std::memory_order_release);
    }
  }

  void close() {
    auto wait_while = [](auto busy) {
      for (Patience patience; busy();)
        if (!patience.wait()) std::this_thread::sleep_for(std::chrono::microseconds(50));
    };
    if (!dynamic) wait_while([&] { return parts_left.load(std::memory_order_acquire) > 0; });
    gate.fetch_or(closed, std::memory_order_acq_rel);
    wait_while([&] { return (gate.load(std::memory_order_acquire) & inside) > 0; });
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
  state_->stop = true;
  state_->open();
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
  s.parts_left.store(threads - 1, std::memory_order_relaxed);
  s.open();
  s.share(0, threads);
  s.close();
}

}  // namespace longhand
