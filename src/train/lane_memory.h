// The memory of all lanes of a run. A pass holds that of one micro-batch; with several, each micro-batch's memory is
// put aside while the others run.
#pragma once

#include <array>
#include <vector>

#include "longhand/arena.h"
#include "longhand/model.h"

namespace longhand {

class LaneMemory {
 public:
  /// Counts only; `commit` allocates. With `twice` a step may run its passes again from the memory that it began with.
  LaneMemory(const ModelConfig& config, const PassShape& shape, int64_t groups, Dtype type, bool twice);
  void commit(Device& device, Pass& pass);
  int64_t bytes() const { return arena_.bytes(); }

  /// Rows of memory that every lane has.
  int64_t length() const { return length_; }
  int64_t first_position() const { return position_; }  // of the first of them in its stream
  void clear() { length_ = 0, position_ = 0; }

  void to_pass(int64_t group);    // before the forward pass of this micro-batch
  void from_pass(int64_t group);  // after it
  /// Called once all micro-batches of a step have run.
  void step_done();

  /// One tensor a layer, [length, lanes, D], and with `segments` the ids, [length, lanes] u8: on the host.
  std::vector<std::vector<char>> save();
  void restore(const std::vector<ConstTensor>& layers, int64_t length, int64_t first_position);

 private:
  void lay_out();
  bool in_pass() const { return groups_ == 1 && !twice_; }
  // Where this micro-batch's memory lies between steps: what the step reads, or what it leaves.
  std::vector<Tensor> rows_of(int64_t group, int64_t length, bool next = false);
  std::vector<Tensor> rows_in_pass();

  ModelConfig config_;
  PassShape shape_;
  int64_t groups_;
  Dtype type_;
  Arena arena_{"memory"};
  Device* device_ = nullptr;
  Pass* pass_ = nullptr;
  bool twice_;
  std::array<std::vector<std::vector<Tensor>>, 2> aside_;  // [group][layer], then the ids; with `twice` of two steps
  int current_ = 0;                                        // the half that the step reads
  int64_t length_ = 0, position_ = 0;
};

}  // namespace longhand
