// The flags that say what is trained: `train` runs it, `plan` counts its memory.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "longhand/train.h"
#include "src/cli/command.h"

namespace longhand::cli {

class TrainFlags {
 public:
  /// Declares --preset, the architecture's flags and those of src/train/flags.h.
  void declare(CLI::App& command);
  /// The same without --preset, for weights that are there.
  void declare_training(CLI::App& command);
  /// The flags of fine-tuning alone.
  void declare_finetuning(CLI::App& command);

  /// The options meant: those of `checkpoint` (empty: none), then those of `init` or --preset, then the flags given.
  TrainOptions options(const CLI::App& command, const Common& common, const std::string& init,
                       const std::string& checkpoint) const;
  /// Whether the token file decides how large the vocabulary is.
  bool vocabulary_open(const std::string& init) const;
  bool given(std::string_view key) const;

 private:
  ModelConfig base_config(const std::string& init, const ModelConfig* resumed) const;
  void override_config(ModelConfig& config, bool weights_given) const;

  std::string preset_;
  float dropout_ = 0;
  TrainOptions parsed_;
  std::map<std::string, CLI::Option*, std::less<>> declared_;  // by key: "batch-size"
};

}  // namespace longhand::cli
