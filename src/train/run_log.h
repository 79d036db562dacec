// RUN/log.jsonl: one JSON object a line, written as it happens. The first line is the run's description.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "longhand/train.h"

namespace longhand {

class RunLog {
 public:
  RunLog() = default;  // writes nothing
  /// Starts a log, or, from a checkpoint at `step`, drops the lines of later steps and goes on behind the rest.
  RunLog(const std::string& path, int64_t step);

  void meta(const Trainer& trainer, const MemoryPlan& plan, const std::string& command, int threads);
  void step(const StepReport& report, double ceiling);
  void validation(int64_t step, const std::vector<ValidationRow>& rows);
  void event(int64_t step, const std::string& what, const std::string& text);
  void end(int64_t step, double seconds, double median_tokens_per_s);

  bool continued() const { return continued_; }

 private:
  void write(const std::string& line);

  struct Close {
    void operator()(FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<FILE, Close> file_;
  bool continued_ = false;
};

/// {"step": 0, "loss": ..., "grad_norm": ..., "lr": ..., "tokens_per_s": ...}: the line of `train --json`.
std::string step_json(const StepReport& report);

/// {"head": name, "labels": ..., "nats": ..., "accuracy": ..., "majority": ...}, of tags "precision", "recall" and
/// "f1".
std::string head_json(const HeadScore& score);

int64_t peak_memory_bytes();  // the largest resident size of this process

}  // namespace longhand
