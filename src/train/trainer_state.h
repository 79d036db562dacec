// What a trainer holds: the arenas, the loader, and where the run stands. checkpoint.cpp saves and restores it.
#pragma once

#include <limits>
#include <optional>

#include "longhand/train.h"
#include "src/train/fgm.h"
#include "src/train/guard.h"
#include "src/train/lane_memory.h"
#include "src/train/unfreeze.h"
#include "src/train/validate.h"

namespace longhand {

struct Trainer::State {
  State(Device& device, const TrainOptions& options, const TokenFile& data);

  Device& device;
  TrainOptions options;
  TokenFile data;
  Schedule schedule;
  std::unique_ptr<Loader> loader;

  ParameterSet weights, gradients, m, v;
  std::optional<ParameterSet> master;  // of what is trained, fp32, where the weights are bf16 and --master is fp32
  std::optional<Pass> pass;
  std::optional<Heads> heads;  // where the data teach some
  LaneMemory memory;
  std::optional<AdversarialStep> adversarial;
  std::optional<Validator> validator;
  Arena scratch{"scratch"};
  Tensor norm;  // [1]

  int64_t step = 0;     // steps done, skipped ones included
  int64_t updates = 0;  // AdamW updates made
  Unfreezing unfreezing;
  Guard guard;
  std::string base;                                       // base_checksum of the weights that the run started from
  double best = std::numeric_limits<double>::infinity();  // validation loss
  int64_t since_best = 0;                                 // validations

  /// The set whose trained tensors the optimizer updates.
  const ParameterSet& updated() const { return master ? *master : weights; }
  /// bf16 weights from their fp32 master.
  void round_master();
  /// The part of a parameter, its gradient or its moments that is trained; see TrainOptions::first_row.
  Tensor trained_rows(const Tensor& whole, size_t parameter) const;
  /// Gradients of what trains now, and no others, have a place.
  void show_gradients();
};

/// The mean loss of every training example's answer under the weights as they are.
std::vector<float> example_losses(Trainer::State& s);

}  // namespace longhand
