// Runs side by side.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longhand/answers.h"

namespace longhand {

/// What a run's directory says of it. A figure that is not known (a run that goes on still has no end) is -1.
struct RunSummary {
  std::string name;
  int64_t parameters = -1, trained = -1, steps = -1;
  double first_nats = -1, best_nats = -1, last_nats = -1;  // validation, mean a token over the streams
  int64_t best_step = -1;
  double tokens_per_s = -1, seconds = -1;
  int64_t peak_memory = -1, file_bytes = -1;  // bytes; of the adapter file, or of the weights
  std::vector<Answer> answers;                // of answers.jsonl, where there is one
};

/// Reads log.jsonl, answers.jsonl and the sizes of files. Fails when there is no log.
RunSummary read_run(const std::string& directory);

/// What a run does better or worse than another on the examples that both answered, one for one.
struct RunDifference {
  int64_t examples = 0;        // 0: they have none in common
  Interval nats, chrf, exact;  // means over examples: nats a token; points of chrF; percent
};
RunDifference compare_runs(const RunSummary& run, const RunSummary& base, uint64_t seed);

}  // namespace longhand
