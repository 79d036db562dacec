// Which parameters train from when on, and how fast they learn.
//
//   --unfreeze (after Howard & Ruder 2018, "Universal Language Model Fine-tuning for Text Classification"): stage 0,
//   epochs 1 and 2, is the top feed-forward layer; stage k, from epoch 2 + k on, adds the attention k layers from the
//   top.
//   --layer-decay d: the rate of layer l of L is d^(L - 1 - l), of the embedding d^L, of what stands on top 1.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/train.h"

namespace longhand {

/// The stage in which a parameter joins: 0 for the top feed-forward layer, k for the attention k layers from the top,
/// -1 for what --unfreeze leaves frozen.
int64_t unfreezing_stage(const ModelConfig& config, std::string_view name);

/// The part of the learning rate that a parameter gets.
float layer_rate(const ModelConfig& config, double decay, std::string_view name);

/// What trains in a run, by the parameters' index. A tensor's optimizer state begins when it joins: its bias
/// correction counts updates from there.
class Unfreezing {
 public:
  explicit Unfreezing(const TrainOptions& options);

  /// Takes in the stages that `epoch` (from 0) has reached, `updates` having been made. What joined:
  /// "layers.3.attention", empty when nothing did.
  std::string advance(int64_t epoch, int64_t updates);
  int64_t stages() const { return static_cast<int64_t>(since_.size()); }
  int64_t since(int64_t stage) const { return since_[stage]; }  // updates made before it joined
  int64_t stage(size_t parameter) const { return stage_[parameter]; }
  bool trains(size_t parameter) const { return stage_[parameter] >= 0 && stage_[parameter] < stages(); }

  const std::vector<int64_t>& state() const { return since_; }
  void restore(const std::vector<int64_t>& since) { since_ = since; }

 private:
  int64_t layers_;
  bool on_;
  std::vector<int64_t> stage_, since_;
};

}  // namespace longhand
