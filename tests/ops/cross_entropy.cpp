// loss = weight (1 - p_target)^gamma ce, its gradient in place of the logits; log-probabilities of given tokens.
#include <array>
#include <cmath>

#include "tests/ops/operation.h"

namespace longhand::ops {
namespace {

/// log softmax of row r of the logits.
std::vector<double> log_softmax(const Array& logits, int64_t r) {
  int64_t width = logits.size(1);
  double largest = -INFINITY, total = 0;
  for (int64_t c = 0; c < width; ++c) largest = std::max(largest, logits(r, c));
  for (int64_t c = 0; c < width; ++c) total += std::exp(logits(r, c) - largest);
  std::vector<double> row(width);
  for (int64_t c = 0; c < width; ++c) row[c] = logits(r, c) - largest - std::log(total);
  return row;
}

/// Logits of a usual size, every fourth row far from 0 and every fifth sure of one token.
void draw_logits(Case& c, Random& random) {
  Array& logits = c.input("logits", {c("rows"), c("V")}, [&] { return 2 * random.normal(); });
  for (int64_t r = 0; r < c("rows"); ++r)
    for (int64_t x = 0; x < c("V"); ++x) {
      if (r % 4 == 3) logits(r, x) += 90;
      if (r % 5 == 4 && x == r % c("V")) logits(r, x) += 12;
    }
  logits.round();
}

/// smoothing and focal are switches; plain = without a gradient.
struct CrossEntropyRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (auto [rows, width] : std::vector<std::array<int64_t, 2>>{{1, 1}, {1, 7}, {5, 33}, {13, 1000}, {9, 4099}})
      list.push_back({{"rows", rows}, {"V", width}});
    for (int64_t smoothing : {0, 1})
      for (int64_t focal : {0, 1, 2})
        for (int64_t extras : {0, 1, 2})
          list.push_back({{"rows", 17},
                          {"V", 101},
                          {"smoothing", smoothing},
                          {"focal", focal},
                          {"weights", extras > 0},
                          {"ignored", extras > 0},
                          {"no_gradient", extras > 1}});
    list.push_back({{"rows", 3}, {"V", 50}, {"ignored", 2}});
    return list;
  }
  double limit() const override { return 1e-4; }
  static float smoothing(const Case& c) { return c("smoothing") ? 0.1f : 0.0f; }
  static float gamma(const Case& c) { return c("focal") == 2 ? 0.5f : c("focal") == 1 ? 2.0f : 0.0f; }
  static constexpr float scale = 0.125f;

  void inputs(Case& c, Random& random) const override {
    draw_logits(c, random);
    auto target = [&] {
      return c("ignored") == 2 || (c("ignored") && random.below(3) == 0) ? -1 : random.below(c("V"));
    };
    Array& targets = c.input("targets", {c("rows")}, target, Dtype::i32);
    if (c("rows") > 4 && c("V") > 4) targets(4) = 4;  // the sure row is right
    if (c("weights"))
      c.input(
          "weights", {c("rows")}, [&] { return random.uniform() * 2; }, Dtype::fp32);
    c.output("loss", {c("rows")}, Dtype::fp32);
    if (!c("no_gradient")) c.output("d_logits", {c("rows"), c("V")}).alias = "logits";
  }

  static double row_loss(const Case& c, int64_t r, const std::vector<double>& logp) {
    int64_t width = c("V"), target = static_cast<int64_t>(c["targets"](r));
    double ce = -(1 - smoothing(c)) * logp[target];
    for (double x : logp) ce -= smoothing(c) / width * x;
    double weight = c["weights"].empty() ? 1 : c["weights"](r);
    return weight * (gamma(c) != 0 ? std::pow(-std::expm1(logp[target]), gamma(c)) : 1) * ce;
  }

  /// With w = weight (1 - p_t)^gamma: d loss / d z = w (p - q) + ce weight gamma (1 - p_t)^(gamma - 1) p_t (p - e_t).
  void reference(const Case& c, Fp64& f) const override {
    for (int64_t r = 0; r < c("rows"); ++r) {
      auto target = static_cast<int64_t>(c["targets"](r));
      if (target < 0) continue;
      std::vector<double> logp = log_softmax(c["logits"], r);
      for (double& x : logp) x = f.store(x);
      double loss = row_loss(c, r, logp), miss = -std::expm1(logp[target]), weight = 1, turn = 0;
      if (!c["weights"].empty()) weight = c["weights"](r);
      if (gamma(c) != 0 && miss > 0) {
        turn = loss * gamma(c) * std::exp(logp[target]) / miss;
        weight *= std::pow(miss, gamma(c));
      }
      f.at("loss")(r) = loss;
      for (int64_t x = 0; x < c("V") && !c("no_gradient"); ++x) {
        double p = f.store(std::exp(logp[x])), one = x == target;
        double q = (1 - smoothing(c)) * one + smoothing(c) / c("V");
        f.at("d_logits")(r, x) = scale * (weight * (p - q) + turn * (p - one));
      }
    }
    f.scale("loss", std::sqrt(static_cast<double>(c("rows"))));
    f.scale("d_logits", scale * 0.1 * std::sqrt(static_cast<double>(c("rows"))));
  }

  std::vector<Gradient> gradients(const Case& c) const override {
    return c("no_gradient") ? std::vector<Gradient>{} : std::vector<Gradient>{{"logits", "d_logits"}};
  }
  double objective(const Case& c) const override {
    double total = 0;
    for (int64_t r = 0; r < c("rows"); ++r)
      if (c["targets"](r) >= 0) total += scale * row_loss(c, r, log_softmax(c["logits"], r));
    return total;
  }

  void run(Device& device, const Case& c, Bound& d) const override {
    device.cross_entropy({.logits = d["logits"],
                          .loss = d["loss"],
                          .targets = d["targets"],
                          .weights = d["weights"],
                          .smoothing = smoothing(c),
                          .gamma = gamma(c),
                          .scale = scale,
                          .gradient = !c("no_gradient")});
  }

  /// An ignored row gives neither loss nor gradient: zeros, not small numbers.
  void check(const Case& c, const Arrays& result, const Fp64&, const Complaint& complain) const override {
    int64_t wrong = 0;
    for (int64_t r = 0; r < c("rows"); ++r) {
      if (c["targets"](r) >= 0) continue;
      wrong += result["loss"](r) != 0;
      for (int64_t x = 0; x < c("V") && !c("no_gradient"); ++x) wrong += result["d_logits"](r, x) != 0;
    }
    if (wrong) complain("entries of ignored rows are not 0", static_cast<double>(wrong), 0);
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["V"];
    return {(s["no_gradient"] ? 1 : 2) * elements * dtype_bytes(type), 8 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 512}, {"V", 32768}}}; }
};

struct LogProbabilityRow : Operation {
  std::vector<Sizes> shapes() const override {
    return {{{"rows", 1}, {"V", 1}}, {{"rows", 3}, {"V", 7}}, {{"rows", 20}, {"V", 1003}}, {{"rows", 5}, {"V", 4096}}};
  }
  void inputs(Case& c, Random& random) const override {
    draw_logits(c, random);
    c.input(
        "tokens", {c("rows")}, [&] { return random.below(c("V")); }, Dtype::i32);
    c.output("logprob", {c("rows")}, Dtype::fp32);
  }
  void reference(const Case& c, Fp64& f) const override {
    for (int64_t r = 0; r < c("rows"); ++r)
      f.at("logprob")(r) = f.store(log_softmax(c["logits"], r)[static_cast<int64_t>(c["tokens"](r))]);
  }
  void run(Device& device, const Case&, Bound& d) const override {
    device.log_probability({.logprob = d["logprob"], .logits = d["logits"], .tokens = d["tokens"]});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["V"];
    return {elements * dtype_bytes(type), 4 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 512}, {"V", 32768}}}; }
};

}  // namespace

std::unique_ptr<Operation> cross_entropy_row() { return std::make_unique<CrossEntropyRow>(); }
std::unique_ptr<Operation> log_probability_row() { return std::make_unique<LogProbabilityRow>(); }

}  // namespace longhand::ops
