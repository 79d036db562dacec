// The files of a run and their names.
#pragma once

#include <string>

#include "longhand/train.h"

namespace longhand {

class RunFiles {
 public:
  explicit RunFiles(const std::string& output, bool adapter = false);
  bool wanted() const { return !directory_.empty(); }
  const std::string& directory() const { return directory_; }
  std::string log() const { return directory_ + "/log.jsonl"; }
  std::string model() const { return directory_ + (adapter_ ? "/adapter.safetensors" : "/model.safetensors"); }
  std::string best() const { return directory_ + "/best.safetensors"; }  // with --patience
  std::string checkpoint(int64_t step) const { return fmt::format("{}/checkpoint-{}.safetensors", directory_, step); }
  const std::string& weights() const { return weights_; }  // where --output names a weights file
  /// The name without its directory, for the log.
  static std::string name(const std::string& path);
  /// Removes all but the newest `keep` checkpoints.
  void rotate(int64_t keep) const;

 private:
  std::string directory_, weights_;
  bool adapter_;
};

/// Creates the directory; a run that is already there must be resumed or overwritten.
void prepare_directory(const std::string& directory, const RunOptions& run);

/// Fails when a token of the data lies outside the model's vocabulary.
void check_vocabulary(const ModelConfig& config, const TokenFile& data, const std::string& path);

}  // namespace longhand
