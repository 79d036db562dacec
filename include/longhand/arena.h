// Arenas: memory planned before the first step. The function that lays tensors out runs twice, first to count, then,
// after commit(), to hand out the real pieces; so the plan that is printed is the memory that is used.
#pragma once

#include <string>

#include "longhand/device.h"

namespace longhand {

class Arena {
 public:
  explicit Arena(std::string name) : name_(std::move(name)) {}
  Arena(Arena&& other) noexcept;
  Arena& operator=(Arena&& other) noexcept;
  ~Arena();

  /// The next piece, 64-byte aligned. Before commit() its data pointer is null.
  Tensor take(Dtype type, const Shape& shape);

  /// Pieces taken between mark() and rewind() may be taken again by others: scratch of steps that follow one another.
  int64_t mark() const { return used_; }
  void rewind(int64_t mark) { used_ = mark; }

  /// Allocates the largest extent that was reached, zeroed, and starts again at its beginning.
  void commit(Device& device);

  const std::string& name() const { return name_; }
  int64_t bytes() const { return extent_; }

 private:
  std::string name_;
  Device* device_ = nullptr;
  char* base_ = nullptr;
  int64_t used_ = 0, extent_ = 0;
};

}  // namespace longhand
