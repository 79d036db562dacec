// What keeps a run from being spoiled by one bad step: a loss or gradient that is not finite, a loss that leaps.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include "longhand/error.h"

namespace longhand {

struct Guard {
  double mean = 0;       // exponential mean of accepted losses, about the last hundred
  int64_t accepted = 0;  // steps taken
  int64_t skipped = 0;   // steps skipped in a row

  static constexpr int64_t settle = 50;  // leaps are judged only after so many steps

  /// Why this step must not be made, or "".
  std::string judge(double loss, double norm, double spike) const {
    if (!std::isfinite(loss)) return "the loss is not finite";
    if (!std::isfinite(norm)) return "the gradient is not finite";
    if (spike > 0 && accepted >= settle && loss > mean + spike)
      return fmt::format("the loss leapt to {:.3f} from a mean of {:.3f}", loss, mean);
    return "";
  }
  void accept(double loss) {
    double share = std::max(0.01, 1.0 / static_cast<double>(accepted + 1));
    mean += share * (loss - mean);
    ++accepted, skipped = 0;
  }
};

}  // namespace longhand
