// What `train` and `finetune` share: the flags of a run, and the run itself, which a signal ends with a checkpoint.
#pragma once

#include <string>

#include "longhand/train.h"
#include "src/cli/command.h"

namespace longhand::cli {

struct TrainingRun {
  RunOptions run;
  double memory_gb = 0;
  std::string sample_prompt;

  /// Every flag of a run but those that name its data and its first weights.
  void declare(CLI::App& command);
  /// `data` null: run.tokens names them. Leaves the program with 128 + the signal when one came.
  void go(const TrainOptions& options, const Common& common, const TokenFile* data = nullptr);
  /// The newest checkpoint that --resume goes on from, or "".
  std::string checkpoint() const;
};

/// The command as it was typed, for the log.
std::string typed_command();

}  // namespace longhand::cli
