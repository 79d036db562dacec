// longhand bench attention: what a token's attention reads and takes at a long window, and what the text then costs.
#pragma once

#include <string>

#include "longhand/config.h"
#include "src/cli/command.h"

namespace longhand::cli {

struct AttentionBench {
  ModelConfig shape;        // layers and heads of what is timed
  std::string model, data;  // what the loss is measured with; empty: it is left out
  Dtype dtype = Dtype::fp32;
  int64_t window = 0, rounds = 0, text_tokens = 0;
};
void run_attention(const AttentionBench& bench, const Common& common);

}  // namespace longhand::cli
