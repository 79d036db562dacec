// Integer weights fitted to a text: what its activations make of rounding decides how matrices are rounded.
//
// Two things, neither of which costs anything at inference:
//   factors of input channels (after AWQ, Lin et al. 2023): w x = (w diag(s)) (x / s). s multiplies columns of a matrix
//   and divides what makes its input: the gain and bias of the norm before qkv and up (pre-norm alone), the rows of v
//   before the output projection. Channels with large activations get larger weights, hence finer steps.
//   s = (mean |x|)^a, a from 0 to 1 by least error of the products with sampled rows.
//   ranges: each row or group of 64 is clipped where that makes its error least.
// Both also hold for `down`, but for the factors: its input comes out of a nonlinearity.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "longhand/parameters.h"

namespace longhand {

using WeightValues = std::map<std::string, std::vector<float>>;

/// Factors of the input channels of a layer's matrices: D, H dh, D; an empty list changes nothing.
struct ChannelFactors {
  std::vector<float> qkv, output, up;
};

/// Takes the factors into the weights: the model computes the same. qkv and up need pre-norm.
void fold_factors(const ModelConfig& config, int64_t layer, const ChannelFactors& factors, WeightValues& values);

/// What calibration made of a matrix: ‖x (w' - w)^T‖ / ‖x w^T‖ over sampled rows x, rounded w' before and after.
struct MatrixFit {
  std::string name;
  double exponent = 0;  // a
  double error_before = 0, error_after = 0;
};

/// Fits the layers' matrices that `formats` holds as integers to `text`; changes `values`. Deterministic. At most
/// calibration_stretches stretches of the text are read, evenly spaced. Fails on a text of fewer than 16 tokens.
std::vector<MatrixFit> calibrate(Device& device, const ModelConfig& config, const WeightFormats& formats,
                                 std::span<const int32_t> text, WeightValues& values);

inline constexpr int64_t calibration_stretches = 32, calibration_length = 256;

}  // namespace longhand
