// Chains of labels: loss = log sum over all label sequences of exp(score) - score of the target, its gradients; the
// best labels. The references walk the recursions in double; tests/core/crf.cpp enumerates every label sequence.
#include <cmath>

#include "tests/ops/operation.h"

namespace longhand::ops {
namespace {

using Rows = std::vector<std::vector<double>>;

double log_sum(const std::vector<double>& x) {
  double largest = x[0], total = 0;
  for (double v : x) largest = std::max(largest, v);
  for (double v : x) total += std::exp(v - largest);
  return largest + std::log(total);
}

/// Sequences of 1 to `longest` rows; with `empty`, every third one has none.
std::vector<int64_t> starts_of(const Sizes& s) {
  std::vector<int64_t> starts{0};
  for (int64_t i = 0; i < s["S"]; ++i) {
    int64_t length = s["empty"] && i % 3 == 1 ? 0 : 1 + (i * 7 + s["longest"] - 1) % s["longest"];
    starts.push_back(starts.back() + length);
  }
  return starts;
}

/// One sequence of a case.
struct Chain {
  const Case& c;
  int64_t first, count, labels;
  Chain(const Case& c, int64_t s)
      : c(c),
        first(static_cast<int64_t>(c["starts"](s))),
        count(static_cast<int64_t>(c["starts"](s + 1)) - first),
        labels(c("L")) {}

  double emission(int64_t t, int64_t j) const { return c["emissions"](first + t, j); }
  double transition(int64_t i, int64_t j) const { return c["transitions"](i, j); }
  double begin(int64_t j) const { return transition(labels, j); }
  double end(int64_t j) const { return transition(labels + 1, j); }
  int64_t target(int64_t t) const { return static_cast<int64_t>(c["targets"](first + t)); }

  /// alpha[t][j], emission included, or, with `most`, the best score in place of the sum.
  Rows forward(bool most = false) const {
    Rows alpha(count, std::vector<double>(labels));
    std::vector<double> terms(labels);
    for (int64_t t = 0; t < count; ++t)
      for (int64_t j = 0; j < labels; ++j) {
        for (int64_t i = 0; i < labels && t > 0; ++i) terms[i] = alpha[t - 1][i] + transition(i, j);
        double before = t == 0 ? begin(j) : most ? *std::max_element(terms.begin(), terms.end()) : log_sum(terms);
        alpha[t][j] = emission(t, j) + before;
      }
    return alpha;
  }
  Rows backward() const {
    Rows beta(count, std::vector<double>(labels));
    std::vector<double> terms(labels);
    for (int64_t t = count - 1; t >= 0; --t)
      for (int64_t i = 0; i < labels; ++i) {
        for (int64_t j = 0; j < labels && t + 1 < count; ++j)
          terms[j] = transition(i, j) + emission(t + 1, j) + beta[t + 1][j];
        beta[t][i] = t + 1 == count ? end(i) : log_sum(terms);
      }
    return beta;
  }
  double log_partition(const Rows& alpha) const {
    std::vector<double> last = alpha.back();
    for (int64_t j = 0; j < labels; ++j) last[j] += end(j);
    return log_sum(last);
  }
  double score(const std::vector<int64_t>& y) const {
    double sum = begin(y[0]) + end(y[count - 1]);
    for (int64_t t = 0; t < count; ++t) sum += emission(t, y[t]) + (t > 0 ? transition(y[t - 1], y[t]) : 0);
    return sum;
  }
  double loss(const Rows& alpha) const {
    std::vector<int64_t> y;
    for (int64_t t = 0; t < count; ++t) y.push_back(target(t));
    return log_partition(alpha) - score(y);
  }
};

void draw_chains(Case& c, Random& random) {
  std::vector<int64_t> starts = starts_of(c.sizes);
  size_t at = 0;
  c.input(
      "starts", {c("S") + 1}, [&] { return starts[at++]; }, Dtype::i32);
  auto normal = [&] { return 2 * random.normal(); };
  Array& emissions = c.input("emissions", {starts.back(), c("L")}, normal);
  Array& transitions = c.input("transitions", {c("L") + 2, c("L")}, normal);
  for (Array* array : {&emissions, &transitions})
    for (double& x : array->value) x = c("ties") ? std::round(x / 2) : x;
  if (c("steep") && c("L") > 1) transitions(0, 1) = -40, transitions(1, 0) = 30;
  emissions.round(), transitions.round();
}

std::vector<Sizes> chain_shapes() {
  return {{{"S", 1}, {"L", 1}, {"longest", 1}},
          {{"S", 1}, {"L", 1}, {"longest", 5}},
          {{"S", 3}, {"L", 2}, {"longest", 1}},
          {{"S", 7}, {"L", 3}, {"longest", 9}, {"weights", 1}, {"empty", 1}},
          {{"S", 5}, {"L", 9}, {"longest", 30}, {"steep", 1}},
          {{"S", 40}, {"L", 5}, {"longest", 12}, {"weights", 1}},
          {{"S", 2}, {"L", 33}, {"longest", 10}},
          {{"S", 2}, {"L", 64}, {"longest", 7}, {"no_gradient", 1}},
          {{"S", 2}, {"L", 130}, {"longest", 4}, {"steep", 1}},
          {{"S", 2}, {"L", 256}, {"longest", 3}},
          {{"S", 1}, {"L", 7}, {"longest", 900}}};
}

double steps(const Sizes& s) { return static_cast<double>(starts_of(s).back()) * s["L"] * s["L"]; }

struct CrfLossRow : Operation {
  static constexpr double scale = 0.125;

  std::vector<Sizes> shapes() const override { return chain_shapes(); }
  std::vector<Dtype> types(const Sizes&) const override { return {Dtype::fp32}; }
  double limit() const override { return 1e-4; }
  void inputs(Case& c, Random& random) const override {
    draw_chains(c, random);
    int64_t rows = c["emissions"].size(0);
    c.input(
        "targets", {rows}, [&] { return random.below(c("L")); }, Dtype::i32);
    if (c("weights")) c.input("weights", {c("S")}, [&] { return 2 * random.uniform(); });
    c.output("loss", {c("S")});
    if (c("no_gradient")) return;
    c.output("d_emissions", {rows, c("L")}).alias = "emissions";
    c.update("d_transitions", {c("L") + 2, c("L")}, [&] { return random.normal(); });
  }
  static double weight(const Case& c, int64_t s) { return c["weights"].empty() ? 1 : c["weights"](s); }

  void reference(const Case& c, Fp64& f) const override {
    for (int64_t s = 0; s < c("S"); ++s) {
      Chain chain(c, s);
      if (chain.count == 0) continue;
      Rows alpha = chain.forward(), beta = chain.backward();
      f.at("loss")(s) = weight(c, s) * chain.loss(alpha);
      if (!c("no_gradient")) add_gradients(chain, alpha, beta, scale * weight(c, s), f);
    }
    f.scale("d_emissions", scale * std::sqrt(static_cast<double>(c["emissions"].size(0))));
  }

  static void add_gradients(const Chain& c, const Rows& alpha, const Rows& beta, double factor, Fp64& f) {
    double z = c.log_partition(alpha);
    Array &d_emissions = f.at("d_emissions"), &d_transitions = f.at("d_transitions");
    for (int64_t t = 0; t < c.count; ++t)
      for (int64_t j = 0; j < c.labels; ++j) {
        double own = factor * (std::exp(alpha[t][j] + beta[t][j] - z) - (c.target(t) == j));
        d_emissions(c.first + t, j) = own;
        if (t == 0) d_transitions(c.labels, j) += own;
        if (t + 1 == c.count) d_transitions(c.labels + 1, j) += own;
        for (int64_t i = 0; i < c.labels && t > 0; ++i) {
          double both = std::exp(alpha[t - 1][i] + c.transition(i, j) + c.emission(t, j) + beta[t][j] - z);
          d_transitions(i, j) += factor * (both - (c.target(t - 1) == i && c.target(t) == j));
        }
      }
  }

  std::vector<Gradient> gradients(const Case& c) const override {
    if (c("no_gradient")) return {};
    return {{"emissions", "d_emissions"}, {"transitions", "d_transitions"}};
  }
  double objective(const Case& c) const override {
    double total = 0;
    for (int64_t s = 0; s < c("S"); ++s)
      if (Chain chain(c, s); chain.count > 0) total += scale * weight(c, s) * chain.loss(chain.forward());
    return total;
  }

  void run(Device& device, const Case& c, Bound& d) const override {
    device.crf_loss({.emissions = d["emissions"],
                     .d_transitions = d["d_transitions"],
                     .loss = d["loss"],
                     .transitions = d["transitions"],
                     .starts = d["starts"],
                     .targets = d["targets"],
                     .weights = d["weights"],
                     .scale = static_cast<float>(scale),
                     .gradient = !c("no_gradient")});
  }
  Cost cost(const Sizes& s, Dtype) const override {
    double rows = static_cast<double>(starts_of(s).back());
    return {2 * rows * s["L"] * 4, 12 * steps(s)};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"S", 256}, {"L", 9}, {"longest", 128}}}; }
};

struct CrfDecodeRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list = chain_shapes();
    list.push_back({{"S", 20}, {"L", 4}, {"longest", 11}, {"ties", 1}});
    return list;
  }
  std::vector<Dtype> types(const Sizes&) const override { return {Dtype::fp32}; }
  void inputs(Case& c, Random& random) const override {
    draw_chains(c, random);
    c.output("labels", {c["emissions"].size(0)}, Dtype::i32);
    c.output("score", {c("S")});
  }

  /// From the best last label back, the smaller where two are equal.
  void reference(const Case& c, Fp64& f) const override {
    for (int64_t s = 0; s < c("S"); ++s) {
      Chain chain(c, s);
      if (chain.count == 0) continue;
      Rows best = chain.forward(true);
      std::vector<double> last = best.back();
      for (int64_t j = 0; j < chain.labels; ++j) last[j] += chain.end(j);
      int64_t y = std::max_element(last.begin(), last.end()) - last.begin();
      f.at("score")(s) = last[y];
      for (int64_t t = chain.count - 1; t >= 0; --t) {
        f.at("labels")(chain.first + t) = static_cast<double>(y);
        int64_t from = 0;
        for (int64_t i = 0; i < chain.labels && t > 0; ++i)
          if (best[t - 1][i] + chain.transition(i, y) > best[t - 1][from] + chain.transition(from, y)) from = i;
        y = from;
      }
    }
  }
  void run(Device& device, const Case&, Bound& d) const override {
    device.crf_decode({.labels = d["labels"],
                       .score = d["score"],
                       .emissions = d["emissions"],
                       .transitions = d["transitions"],
                       .starts = d["starts"]});
  }
  Cost cost(const Sizes& s, Dtype) const override {
    double rows = static_cast<double>(starts_of(s).back());
    return {rows * (s["L"] * 4 + 4), 2 * steps(s)};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"S", 256}, {"L", 9}, {"longest", 128}}}; }
};

}  // namespace

std::unique_ptr<Operation> crf_loss_row() { return std::make_unique<CrfLossRow>(); }
std::unique_ptr<Operation> crf_decode_row() { return std::make_unique<CrfDecodeRow>(); }

}  // namespace longhand::ops
