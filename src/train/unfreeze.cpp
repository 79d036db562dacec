#include "src/train/unfreeze.h"

#include <charconv>
#include <cmath>

namespace longhand {
namespace {

/// The layer of "layers.3.attention.qkv.weight" and what follows its dot; -1 for what is in no layer.
int64_t layer_of(std::string_view name, std::string_view& rest) {
  constexpr std::string_view prefix = "layers.";
  int64_t layer = -1;
  if (!name.starts_with(prefix)) return -1;
  name.remove_prefix(prefix.size());
  rest = name.substr(name.find('.') + 1);
  std::from_chars(name.data(), name.data() + name.size(), layer);
  return layer;
}

}  // namespace

int64_t unfreezing_stage(const ModelConfig& config, std::string_view name) {
  std::string_view rest;
  int64_t layer = layer_of(name, rest);
  if (layer < 0) return -1;
  if (rest.starts_with("attention.")) return config.n_layer - layer;
  return layer == config.n_layer - 1 ? 0 : -1;
}

float layer_rate(const ModelConfig& config, double decay, std::string_view name) {
  std::string_view rest;
  int64_t layer = layer_of(name, rest);
  int64_t below = name == "embedding.weight" ? config.n_layer : layer < 0 ? 0 : config.n_layer - 1 - layer;
  return static_cast<float>(std::pow(decay, below));
}

Unfreezing::Unfreezing(const TrainOptions& options)
    : layers_(options.config.n_layer), on_(options.unfreeze), since_{0} {
  for (const ParameterInfo& info : parameter_list(options.config)) stage_.push_back(options.stage(info.name));
}

std::string Unfreezing::advance(int64_t epoch, int64_t updates) {
  std::string joined;
  while (on_ && stages() <= layers_ && epoch > stages()) {
    joined += fmt::format("{}layers.{}.attention", joined.empty() ? "" : ", ", layers_ - stages());
    since_.push_back(updates);
  }
  return joined;
}

}  // namespace longhand
