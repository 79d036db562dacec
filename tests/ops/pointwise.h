// What several references share: activations in double, the check of stochastic rounding.
#pragma once

#include <cmath>
#include <numbers>

#include "tests/ops/operation.h"

namespace longhand::ops {

inline double activate(Activation activation, double x) {
  if (activation == Activation::relu) return x > 0 ? x : 0;
  if (activation == Activation::gelu) return x / 2 * (1 + std::erf(x / std::numbers::sqrt2));
  return x;
}

inline double activation_slope(Activation activation, double x) {
  if (activation == Activation::relu) return x > 0 ? 1 : 0;
  if (activation == Activation::gelu)
    return (1 + std::erf(x / std::numbers::sqrt2)) / 2 + x * std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi);
  return 1;
}

/// `rounded` against values that were rounded to bf16 stochastically.
void check_stochastic(const std::string& name, const Array& exact, const Array& rounded, const Complaint& complain);

}  // namespace longhand::ops
