// What is remembered of every byte that kernels can touch: who wrote it last, and who has read it since.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace simt::race {

/// One access, in a word. Clocks that overflow stay at their largest and order nothing wrongly: see Clocks::before.
struct Access {
  uint64_t clock : 16;  // barriers of the block that the thread had come to
  uint64_t epoch : 13;  // __syncwarps that the lane had passed
  uint64_t thread : 10;
  uint64_t atomic : 1;
  uint64_t block : 23;
  uint64_t any : 1;  // an access at all
};
constexpr uint32_t largest_clock = (1u << 16) - 1, largest_epoch = (1u << 13) - 1;

/// A byte. Two readers are kept, of different warps where there are such: a third takes the place of one of them, so a
/// race can be overlooked but never made up.
struct Cell {
  Access writer, reader[2];
  uint32_t run;          // the block (shared memory) or launch (device memory) that the accesses belong to
  uint32_t initialised;  // it holds something
};

/// The cells of a range of memory; zero, and without memory of their own, until they are touched.
class Shadow {
 public:
  Shadow(const void* first, size_t bytes) : first_(static_cast<const char*>(first)), bytes_(bytes) {
    void* cells =
        mmap(nullptr, bytes * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (cells == MAP_FAILED) std::abort();
    cells_ = static_cast<Cell*>(cells);
  }
  ~Shadow() { munmap(cells_, bytes_ * sizeof(Cell)); }
  Shadow(const Shadow&) = delete;

  bool contains(const void* p) const { return p >= first_ && p < first_ + bytes_; }
  const char* first() const { return first_; }
  size_t bytes() const { return bytes_; }
  Cell& at(const void* p) { return cells_[static_cast<const char*>(p) - first_]; }

 private:
  const char* first_;
  size_t bytes_;
  Cell* cells_;
};

}  // namespace simt::race
