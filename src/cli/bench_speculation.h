// longhand bench speculation: what drafts gain on texts.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "longhand/config.h"
#include "longhand/quantize.h"
#include "src/cli/command.h"

namespace longhand::cli {

struct SpeculationFlags {
  std::vector<std::string> texts;
  int64_t speculate = 7;
  // Of the command's other flags:
  std::string model;
  int64_t tokens = 400, window = 0;
  Dtype type = Dtype::fp32;
  std::vector<QuantizeOptions> weights;
};
void declare_speculation(CLI::App& command, SpeculationFlags& flags);

/// Each text's first half is the prompt. Written: what the model goes on with; its second half again, by the model's
/// weights and by drawn ones of the shape `large`.
void run_speculation(const SpeculationFlags& flags, const ModelConfig& large, const Common& common);

}  // namespace longhand::cli
