#include "longhand/threads.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "longhand/ceilings.h"

using namespace longhand;

TEST_CASE("a parallel loop visits every index once, on threads of the pool") {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    CHECK(pool.size() == threads);
    for (bool dynamic : {true, false})
      for (int64_t count : {0, 1, 2, 3, 7, 1000}) {
        std::vector<std::atomic<int>> seen(count);
        std::atomic<bool> inside{true};
        pool.parallel_for(
            count,
            [&](int64_t i, int thread) {
              ++seen[i];
              if (thread < 0 || thread >= threads) inside = false;
            },
            dynamic);
        bool once = true;
        for (auto& n : seen) once = once && n == 1;
        CHECK(once);
        CHECK(inside);
      }
  }
}

TEST_CASE("a loop sees what the loop before it wrote") {
  ThreadPool pool(3);
  std::vector<int64_t> values(64, 0);
  for (int round = 0; round < 2000; ++round)
    pool.parallel_for(64, [&](int64_t i, int) { values[i] += values[i] == round; });
  for (int64_t value : values) CHECK(value == 2000);
}

TEST_CASE("ceilings are measured once and kept; a broken cache is measured anew") {
  namespace fs = std::filesystem;
  fs::path folder = fs::temp_directory_path() / "longhand-ceilings-test";
  fs::remove_all(folder);
  setenv("XDG_CACHE_HOME", folder.c_str(), 1);
  Ceilings first = cached_ceilings(1), second = cached_ceilings(1);
  CHECK(first.threads == 1);
  CHECK(!first.processor.empty());
  CHECK(first.fma_fp32 > 1e8);
  CHECK(first.dot_bf16 > 1e8);
  CHECK(first.read_bytes > 1e7);
  CHECK(second.fma_fp32 == first.fma_fp32);
  CHECK(second.read_bytes == first.read_bytes);
  fs::path file = folder / "longhand" / "ceilings.txt";
  CHECK(fs::exists(file));
  std::ofstream(file) << "broken";
  CHECK(cached_ceilings(1).fma_fp32 > 1e8);
  CHECK(cached_ceilings(1).processor == first.processor);
  fs::remove_all(folder);
}
