// Adapters: what fine-tuning adds beside frozen weights (longhand finetune --lora, --adapters), kept apart from them,
// so that one set of weights serves many adapters at a time and weights of integers need not change.
#pragma once

#include <string>
#include <vector>

#include "longhand/parameters.h"

namespace longhand {

struct Adapter {
  ModelConfig config;  // the weights', and what is added
  /// Low-rank updates and bottleneck adapters, in the type of the activations. B carries the factor alpha / rank:
  /// out = W x + B (A x).
  ParameterSet added;
  std::string checksum;  // tells adapters apart; empty where the file has none

  bool on(LoraSite site) const { return config.lora_on(site); }
};

/// Adapters that act together, in this order; they outlive what holds the stack.
using AdapterStack = std::vector<const Adapter*>;

}  // namespace longhand
