// A fixed pool of threads for loops whose pieces are independent.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace longhand {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // 0 = every core this process may use
  ~ThreadPool();
  int size() const;

  /// Calls work(index, thread) once for each index in [0, count); thread in [0, size()) tells whose scratch to use.
  /// With `dynamic` an idle thread takes the next index, so work(i) must not depend on which thread runs it; otherwise
  /// thread t gets the t-th contiguous part. Returns when all is done. Calls do not nest.
  void parallel_for(int64_t count, const std::function<void(int64_t index, int thread)>& work, bool dynamic = true);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace longhand
