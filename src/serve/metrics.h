// Counters of the server in Prometheus' text format.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "src/serve/engine.h"
#include "src/serve/experiment.h"

namespace longhand::serve {

class Histogram {
 public:
  void observe(double seconds);
  std::string text(const std::string& name, const std::string& help) const;

 private:
  static constexpr std::array<double, 13> bounds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100};
  std::array<uint64_t, bounds.size() + 1> counts_{};
  double sum_ = 0;
};

/// Answers and verdicts of every variant.
std::string experiment_metrics(const Experiment& experiment);

/// An engine's numbers with the names of its texts: the weights', then each stack of adapters'.
struct EngineView {
  std::vector<std::string> names;
  EngineNumbers numbers;
};

/// Safe from any thread.
class Metrics {
 public:
  void answered(const std::string& path, int status, double seconds);
  void first_token(double seconds);  // from the request's submission
  /// `connections` that are open now.
  std::string text(const std::vector<EngineView>& engines, int connections) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, uint64_t> answers_;
  Histogram seconds_, first_token_;
};

}  // namespace longhand::serve
