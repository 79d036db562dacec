#include "longhand/calibrate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "longhand/model.h"
#include "longhand/threads.h"

namespace longhand {
namespace {

constexpr int64_t sampled_rows = 1024;
constexpr int exponents = 21;  // 0, 0.05, ..., 1
constexpr int ranges = 11;     // of the largest magnitude: 1, 0.97, ..., 0.7

/// Rows [rows, width] of what a matrix multiplies.
struct Samples {
  int64_t width = 0;
  std::vector<float> rows;
  int64_t count() const { return static_cast<int64_t>(rows.size()) / width; }
};
struct LayerSamples {
  Samples qkv, output, up, down;
};

/// Every `step`th row of [T, 1, width].
void take_rows(Device& device, const ConstTensor& from, int64_t step, Samples& to) {
  to.width = from.size(2);
  for (int64_t row = step - 1; row < from.size(0); row += step) {
    to.rows.resize(to.rows.size() + to.width);
    device.download(&to.rows[to.rows.size() - to.width], from.rows(row, 1));
  }
}

std::vector<LayerSamples> sample(Device& device, const ModelConfig& config, const WeightValues& values,
                                 std::span<const int32_t> text) {
  int64_t size = static_cast<int64_t>(text.size());
  if (size < 16) fail("a text to calibrate on has {} tokens: it needs 16 or more, better some thousand", size);
  int64_t length = std::min(size, calibration_length), stretches = std::min(size / length, calibration_stretches);
  int64_t step = std::max<int64_t>(1, stretches * length / sampled_rows);
  ParameterSet weights("weights", config, Dtype::fp32);
  weights.commit(device);
  for (size_t i = 0; i < weights.list().size(); ++i)
    store_parameter(device, weights, i, values.at(weights.list()[i].name));
  Pass pass(device, config, weights, nullptr, {.segment = length, .training = false}, Dtype::fp32);
  std::vector<LayerSamples> layers(config.n_layer);
  pass.watch([&](int64_t layer, const LayerInputs& inputs) {
    take_rows(device, inputs.qkv, step, layers[layer].qkv);
    take_rows(device, inputs.output, step, layers[layer].output);
    take_rows(device, inputs.up, step, layers[layer].up);
    take_rows(device, inputs.down, step, layers[layer].down);
  });
  std::vector<uint8_t> segments(config.segments ? length : 0, 0);
  for (int64_t i = 0; i < stretches; ++i) {
    int64_t first = stretches > 1 ? i * (size - length) / (stretches - 1) : 0;
    Batch batch{.tokens = ConstTensor(text.data() + first, Dtype::i32, {length, 1})};
    if (config.segments) batch.segment_ids = ConstTensor(segments.data(), Dtype::u8, {length, 1});
    pass.forward(batch, {}, {}, 0, 0);
  }
  return layers;
}

/// The nearest fp16 of a finite, not too large number.
float as_fp16(float x) {
  int exponent;
  std::frexp(x, &exponent);
  float unit = std::ldexp(1.0f, std::max(exponent, -13) - 11);
  return std::nearbyint(x / unit) * unit;
}

/// What Quantize makes of n values when the largest counts as `range` of itself.
void round_values(const float* x, int64_t n, float levels, bool half_scale, float range, float* out) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(x[i]));
  float scale = most * range / levels;
  if (half_scale) scale = as_fp16(scale);
  for (int64_t i = 0; i < n; ++i)
    out[i] = scale > 0 ? std::clamp(std::nearbyint(x[i] / scale), -levels, levels) * scale : 0;
}

/// A matrix [out, in] that is to become integers, beside the rows that it multiplies.
class Fit {
 public:
  Fit(Device& device, MatrixFormat format, std::vector<float>& weights, Samples samples)
      : device_(device),
        pool_(device.threads()),
        weights_(weights),
        exact_(weights),
        samples_(std::move(samples)),
        in_(samples_.width),
        out_(static_cast<int64_t>(weights.size()) / in_),
        group_(format.grouped ? 64 : in_),
        levels_(format.type == Dtype::u8 ? 7.0f : 127.0f),
        half_scales_(format.grouped) {
    lay_out();
    arena_.commit(device);
    lay_out();
    device_.upload(x_, samples_.rows.data());
    size_ = total(products(exact_, 0, in_));
  }

  /// Relative error of the products with the weights as they stand, rounded.
  double error() {
    std::vector<float> difference = rounded(weights_);
    for (size_t i = 0; i < difference.size(); ++i) difference[i] -= exact_[i];
    return size_ > 0 ? std::sqrt(total(products(difference, 0, in_)) / size_) : 0;
  }

  /// Finds the exponent whose factors of input channels leave the least error; weights and samples take them.
  double scale_channels() {
    std::vector<float> mean(in_);
    for (size_t i = 0; i < samples_.rows.size(); ++i) mean[i % in_] += std::abs(samples_.rows[i]);
    double least = 0, chosen = 0;
    for (int step = 0; step < exponents; ++step) {
      double exponent = static_cast<double>(step) / (exponents - 1);
      std::vector<float> s = factors_for(mean, exponent), difference = rounded(times(exact_, s));
      for (size_t i = 0; i < difference.size(); ++i) difference[i] = difference[i] / s[i % in_] - exact_[i];
      double error = total(products(difference, 0, in_));
      if (step == 0 || error < least) least = error, chosen = exponent, factors_ = std::move(s);
    }
    weights_ = exact_ = times(exact_, factors_);
    for (size_t i = 0; i < samples_.rows.size(); ++i) samples_.rows[i] /= factors_[i % in_];
    device_.upload(x_, samples_.rows.data());
    return chosen;
  }
  const std::vector<float>& factors() const { return factors_; }

  /// Clips every row or group of the weights where that makes its own error least.
  void clip() {
    for (int64_t column = 0; column < in_; column += group_) clip_columns(column);
  }

 private:
  void lay_out() {
    x_ = arena_.take(Dtype::fp32, {samples_.count(), in_});
    w_ = arena_.take(Dtype::fp32, {out_, in_});
    y_ = arena_.take(Dtype::fp32, {out_, samples_.count()});
  }

  /// mean^exponent, the largest and the smallest equally far from 1.
  static std::vector<float> factors_for(const std::vector<float>& mean, double exponent) {
    float largest = *std::max_element(mean.begin(), mean.end());
    std::vector<float> s(mean.size(), 1.0f);
    if (exponent == 0 || !(largest > 0)) return s;
    for (size_t c = 0; c < s.size(); ++c)
      s[c] = static_cast<float>(std::pow(std::max(mean[c] / largest, 1e-4f), exponent));
    float middle = std::sqrt(*std::min_element(s.begin(), s.end()));  // the largest is 1
    for (float& x : s) x /= middle;
    return s;
  }
  std::vector<float> times(const std::vector<float>& w, const std::vector<float>& s) const {
    std::vector<float> product(w.size());
    for (size_t i = 0; i < w.size(); ++i) product[i] = w[i] * s[i % in_];
    return product;
  }
  std::vector<float> rounded(const std::vector<float>& w) {
    std::vector<float> all(w.size());
    pool_.parallel_for(out_, [&](int64_t row, int) {
      for (int64_t at = row * in_; at < (row + 1) * in_; at += group_)
        round_values(&w[at], group_, levels_, half_scales_, 1, &all[at]);
    });
    return all;
  }

  /// For every row of w [out, width] the sum of squares of its products with columns [column, column + width) of x.
  std::vector<double> products(const std::vector<float>& w, int64_t column, int64_t width) {
    Tensor left(w_.data(), Dtype::fp32, {out_, width});
    device_.upload(left, w.data());
    device_.matmul({.out = y_, .a = left, .b = x_.slice(1, column, width)});
    std::vector<float> y(y_.elements());
    device_.download(y.data(), y_);
    std::vector<double> sums(out_);
    for (size_t i = 0; i < y.size(); ++i) sums[i / samples_.count()] += static_cast<double>(y[i]) * y[i];
    return sums;
  }
  static double total(const std::vector<double>& sums) { return std::accumulate(sums.begin(), sums.end(), 0.0); }

  void clip_columns(int64_t column) {
    std::vector<double> least;
    std::vector<float> chosen(out_, 1.0f), difference(out_ * group_);
    for (int step = 0; step < ranges; ++step) {
      float range = 1 - 0.03f * static_cast<float>(step);
      pool_.parallel_for(out_, [&](int64_t row, int) {
        const float* w = &weights_[row * in_ + column];
        float* d = &difference[row * group_];
        round_values(w, group_, levels_, half_scales_, range, d);
        for (int64_t i = 0; i < group_; ++i) d[i] -= w[i];
      });
      std::vector<double> errors = products(difference, column, group_);
      if (step == 0) least = errors;
      for (int64_t row = 0; row < out_; ++row)
        if (errors[row] < least[row]) least[row] = errors[row], chosen[row] = range;
    }
    for (int64_t row = 0; row < out_; ++row) {
      float *w = &weights_[row * in_ + column], most = 0;
      for (int64_t i = 0; i < group_; ++i) most = std::max(most, std::abs(w[i]));
      for (int64_t i = 0; i < group_; ++i) w[i] = std::clamp(w[i], -most * chosen[row], most * chosen[row]);
    }
  }

  Device& device_;
  ThreadPool pool_;
  std::vector<float>& weights_;
  std::vector<float> exact_, factors_;  // what the weights would be without rounding
  Samples samples_;
  int64_t in_, out_, group_;
  float levels_;
  bool half_scales_;
  double size_ = 0;  // of the exact products, squared
  Arena arena_{"calibration"};
  Tensor x_, w_, y_;
};

/// `divide`: by the factors, entry i belonging to channel i of each run of `factors`.
void divide(std::vector<float>& values, const std::vector<float>& factors) {
  for (size_t i = 0; i < values.size(); ++i) values[i] /= factors[i % factors.size()];
}
void multiply_columns(std::vector<float>& values, const std::vector<float>& factors) {
  for (size_t i = 0; i < values.size(); ++i) values[i] *= factors[i % factors.size()];
}

}  // namespace

/// The input of a matrix becomes smaller by the factors.
static void fold_input(const ModelConfig& config, const std::string& layer, const ChannelFactors& factors,
                       WeightValues& values) {
  auto into_norm = [&](const std::string& norm, const std::vector<float>& s) {
    if (s.empty()) return;
    if (config.norm != NormPlacement::pre) fail("factors of {} need pre-norm", norm);
    divide(values.at(layer + norm + ".norm.weight"), s), divide(values.at(layer + norm + ".norm.bias"), s);
  };
  into_norm("attention", factors.qkv), into_norm("feedforward", factors.up);
  if (factors.output.empty()) return;
  std::vector<float>& qkv = values.at(layer + "attention.qkv.weight");
  int64_t heads = config.n_head * config.d_head, width = config.d_model;
  for (int64_t c = 0; c < heads; ++c)
    for (int64_t i = 0; i < width; ++i) qkv[(2 * heads + c) * width + i] /= factors.output[c];
}

void fold_factors(const ModelConfig& config, int64_t index, const ChannelFactors& factors, WeightValues& values) {
  std::string layer = fmt::format("layers.{}.", index);
  fold_input(config, layer, factors, values);
  auto into_columns = [&](const char* name, const std::vector<float>& s) {
    if (!s.empty()) multiply_columns(values.at(layer + name), s);
  };
  into_columns("attention.qkv.weight", factors.qkv);
  into_columns("attention.output.weight", factors.output);
  into_columns("feedforward.up.weight", factors.up);
}

std::vector<MatrixFit> calibrate(Device& device, const ModelConfig& config, const WeightFormats& formats,
                                 std::span<const int32_t> text, WeightValues& values) {
  std::vector<LayerSamples> samples = sample(device, config, values, text);
  std::vector<MatrixFit> fits;
  for (int64_t l = 0; l < config.n_layer; ++l) {
    std::string layer = fmt::format("layers.{}.", l);
    ChannelFactors factors;
    auto fit = [&](const char* name, Samples& rows, std::vector<float>* scaled) {
      auto format = formats.matrices.find(layer + name);
      if (format == formats.matrices.end() || !format->second.integers()) return;
      MatrixFit result{layer + name};
      Fit matrix(device, format->second, values.at(layer + name), std::move(rows));
      result.error_before = matrix.error();
      if (scaled) result.exponent = matrix.scale_channels(), *scaled = matrix.factors();
      matrix.clip();
      result.error_after = matrix.error();
      fits.push_back(result);
    };
    bool pre = config.norm == NormPlacement::pre;
    fit("attention.qkv.weight", samples[l].qkv, pre ? &factors.qkv : nullptr);
    fit("attention.output.weight", samples[l].output, &factors.output);
    fit("feedforward.up.weight", samples[l].up, pre ? &factors.up : nullptr);
    fit("feedforward.down.weight", samples[l].down, nullptr);
    fold_input(config, layer, factors, values);  // the matrices themselves have taken them
  }
  return fits;
}

}  // namespace longhand
