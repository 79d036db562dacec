// Solved examples before a prompt.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "longhand/instructions.h"

namespace longhand {

/// Chooses, for each example, `count` others of its task from those to train on: the same ones whenever it is asked.
class Shots {
 public:
  Shots(int64_t count, uint64_t seed) : count_(count), seed_(seed) {}
  int64_t count() const { return count_; }

  /// An example that may stand before others: one with an answer of its own.
  void add(const InstructionExample& example);
  /// Fewer where the task does not have so many; never the example itself, nor one with its source or its fields.
  std::vector<const InstructionExample*> before(const InstructionExample& example) const;

 private:
  int64_t count_;
  uint64_t seed_;
  std::map<std::string, std::vector<InstructionExample>> by_task_;
};

}  // namespace longhand
