// A/B tests: requests for the experiment's name are shared out among named variants, and readers say which texts they
// liked.
//
//   user known:  variant = f(hash(experiment, user)), the same at every visit and after every restart
//   otherwise:   variant drawn by the shares, anew for each request
//
// Rates carry Wilson's 95% score interval, differences to the first variant Newcombe's (Statistics in Medicine 17,
// 1998, methods 3 and 10): both hold for small counts and for rates near 0 and 1.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "longhand/device.h"

namespace longhand::serve {

/// What a variant fixes; the request decides the rest.
struct Variant {
  std::string name, model;
  double share = 1;  // of the requests, in proportion to the other variants'
  std::optional<float> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k;

  void apply(SamplingParameters& rules) const;
};

struct Interval {
  double low = 0, high = 0;
};
Interval wilson(int64_t successes, int64_t trials);
/// Of rate a - rate b.
Interval newcombe(int64_t a, int64_t of_a, int64_t b, int64_t of_b);

/// Safe from any thread.
class Experiment {
 public:
  /// Fails when a name stands twice, there is none, or shares are not positive.
  Experiment(std::string name, std::vector<Variant> variants);

  const std::string& name() const { return name_; }
  const std::vector<Variant>& variants() const { return variants_; }

  /// The variant of a user, or, without one, of a draw in [0, 1). Counted when its answer is.
  size_t choose(const std::string& user, double draw) const;
  void answered(const std::string& id, size_t variant, int64_t tokens);

  /// A reader's verdict on an answer, the last one counting. False: no such answer, or one long past.
  bool rate(const std::string& id, bool up);

  struct Count {
    int64_t answers = 0, tokens = 0, up = 0, down = 0;
  };
  std::vector<Count> counts() const;  // in the variants' order
  std::string json() const;           // the table of GET /ab

 private:
  struct Answer {
    size_t variant;
    std::optional<bool> up;
  };
  static constexpr size_t remembered = 100000;  // answers that can still be rated

  std::string name_;
  std::vector<Variant> variants_;
  double shares_ = 0;
  mutable std::mutex mutex_;
  std::vector<Count> counts_;
  std::unordered_map<std::string, Answer> answers_;
  std::deque<std::string> order_;  // ids, oldest first
};

}  // namespace longhand::serve
