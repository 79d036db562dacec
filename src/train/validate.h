// Validation: every stream in a few lanes with carried memory, as in training but without dropout; examples in rows.
#pragma once

#include <optional>
#include <vector>

#include "longhand/train.h"

namespace longhand {

class Validator {
 public:
  /// `cap`: tokens of a stream at most. The lanes start at equal distances, so that a capped run sees every part.
  Validator(Device& device, const TrainOptions& options, const ParameterSet& weights, int64_t cap);
  std::vector<ValidationRow> run(const std::vector<TokenStream>& streams);

 private:
  ValidationRow run(const TokenStream& stream);
  ValidationRow run_examples(const TokenStream& stream);
  void score_heads(const Batch& batch, std::vector<HeadScore>& scores);

  TrainOptions options_;
  PassShape shape_;
  Pass pass_;
  std::optional<Heads> heads_;
  int64_t cap_;
  std::vector<int32_t> tokens_, targets_, starts_;
};

}  // namespace longhand
