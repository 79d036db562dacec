#include "src/train/lane_memory.h"

#include <cstring>

namespace longhand {

LaneMemory::LaneMemory(const ModelConfig& config, const PassShape& shape, int64_t groups, Dtype type, bool twice)
    : config_(config), shape_(shape), groups_(groups), type_(type), twice_(twice) {
  lay_out();
}

void LaneMemory::lay_out() {
  aside_ = {};
  if (in_pass() || shape_.memory == 0) return;
  for (int64_t i = 0; i < (twice_ ? 2 : 1) * groups_; ++i) {
    std::vector<Tensor> pieces;
    for (int64_t layer = 0; layer < config_.n_layer; ++layer)
      pieces.push_back(arena_.take(type_, {shape_.memory, shape_.lanes, config_.d_model}));
    if (config_.segments) pieces.push_back(arena_.take(Dtype::u8, {shape_.memory, shape_.lanes}));
    aside_[i / groups_].push_back(std::move(pieces));
  }
}

void LaneMemory::commit(Device& device, Pass& pass) {
  device_ = &device, pass_ = &pass;
  if (arena_.bytes() == 0) return;
  arena_.commit(device);
  lay_out();
}

std::vector<Tensor> LaneMemory::rows_in_pass() {
  std::vector<Tensor> pieces;
  for (int64_t layer = 0; layer < config_.n_layer; ++layer) pieces.push_back(pass_->memory(layer));
  if (config_.segments) pieces.push_back(pass_->memory_segment_ids());
  return pieces;
}

std::vector<Tensor> LaneMemory::rows_of(int64_t group, int64_t length, bool next) {
  if (in_pass()) return rows_in_pass();
  std::vector<Tensor> pieces;
  for (const Tensor& whole : aside_[next && twice_ ? 1 - current_ : current_][group])
    pieces.push_back(whole.rows(0, length));
  return pieces;
}

void LaneMemory::to_pass(int64_t group) {
  pass_->set_memory(length_, position_);
  if (in_pass() || length_ == 0) return;
  std::vector<Tensor> to = rows_in_pass(), from = rows_of(group, length_);
  for (size_t i = 0; i < to.size(); ++i) device_->copy(to[i], from[i]);
}

void LaneMemory::from_pass(int64_t group) {
  int64_t length = pass_->memory_length();
  if (in_pass() || length == 0) return;
  std::vector<Tensor> to = rows_of(group, length, true), from = rows_in_pass();
  for (size_t i = 0; i < to.size(); ++i) device_->copy(to[i], from[i]);
}

void LaneMemory::step_done() {
  length_ = pass_->memory_length(), position_ = pass_->first_position();
  if (twice_) current_ = 1 - current_;
}

// A piece on the host holds all lanes, [length, lanes, ...]; micro-batch g has columns [g b, (g + 1) b) of it.
std::vector<std::vector<char>> LaneMemory::save() {
  std::vector<std::vector<char>> whole;
  if (length_ == 0) return whole;
  for (int64_t group = 0; group < groups_; ++group) {
    std::vector<Tensor> pieces = rows_of(group, length_);
    whole.resize(pieces.size());
    for (size_t i = 0; i < pieces.size(); ++i) {
      int64_t width = pieces[i].bytes() / length_;
      whole[i].resize(pieces[i].bytes() * groups_);
      std::vector<char> part(pieces[i].bytes());
      device_->download(part.data(), pieces[i]);
      for (int64_t row = 0; row < length_; ++row)
        std::memcpy(whole[i].data() + (row * groups_ + group) * width, part.data() + row * width, width);
    }
  }
  return whole;
}

void LaneMemory::restore(const std::vector<ConstTensor>& layers, int64_t length, int64_t first_position) {
  length_ = length, position_ = first_position;
  pass_->set_memory(length, first_position);
  if (length == 0) return;
  for (int64_t group = 0; group < groups_; ++group) {
    std::vector<Tensor> pieces = rows_of(group, length);
    for (size_t i = 0; i < pieces.size(); ++i) {
      int64_t width = pieces[i].bytes() / length;
      std::vector<char> part(pieces[i].bytes());
      for (int64_t row = 0; row < length; ++row)
        std::memcpy(part.data() + row * width,
                    static_cast<const char*>(layers[i].data()) + (row * groups_ + group) * width, width);
      device_->upload(pieces[i], part.data());
    }
  }
}

}  // namespace longhand
