// Choosing tokens. How a device walks through the candidates is its own affair, so the row holds the choice against the
// rules: which tokens may come, how often, and with what log-probability.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/ops/operation.h"

namespace longhand::ops {
namespace {

/// rules: 0 greedy, 1 temperature, 2 top-k, 3 top-p, 4 min-p, 5 all of them. alike: every row has the same logits, so
/// that the rows' tokens follow one distribution. allowed: one token in so many may be drawn.
struct SampleRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t rules : {0, 1, 2, 3, 4, 5}) {
      list.push_back({{"rows", 4000}, {"V", 23}, {"rules", rules}, {"alike", 1}, {"history", rules % 2 ? 5 : 0}});
      list.push_back({{"rows", 5}, {"V", 1003}, {"rules", rules}, {"history", rules == 3 ? 0 : 40}});
    }
    for (int64_t rules : {1, 5})
      list.push_back({{"rows", 4000}, {"V", 23}, {"rules", rules}, {"alike", 1}, {"allowed", 3}});
    for (int64_t rules : {0, 2, 3, 4}) list.push_back({{"rows", 5}, {"V", 1003}, {"rules", rules}, {"allowed", 7}});
    list.push_back({{"rows", 9}, {"V", 64}, {"rules", 6}, {"history", 6}, {"allowed", 40}});
    list.push_back({{"rows", 3}, {"V", 1}, {"rules", 5}});
    list.push_back({{"rows", 7}, {"V", 50}, {"rules", 0}, {"ties", 1}, {"history", 4}});
    list.push_back({{"rows", 50}, {"V", 40}, {"rules", 6}, {"history", 6}});
    return list;
  }
  bool comparable(const Case&) const override { return false; }

  static SamplingParameters rule(const Case& c, int64_t row) {
    int64_t kind = c("rules") == 6 ? row % 6 : c("rules");  // 6: every row its own
    SamplingParameters s;
    s.temperature = kind == 0 ? 0.0f : kind == 1 ? 1.5f : 0.8f;
    s.top_k = kind == 2 ? 4 : kind == 5 ? 9 : 0;
    s.top_p = kind == 3 ? 0.7f : kind == 5 ? 0.9f : 1.0f;
    s.min_p = kind == 4 ? 0.1f : kind == 5 ? 0.05f : 0.0f;
    s.repetition_penalty = c("history") ? 1.3f : 1.0f;
    s.stream = {.seed = 3, .step = 0, .use = RandomUse::sampling};
    s.element = static_cast<uint64_t>(row);
    return s;
  }

  static bool may(const Case& c, int64_t row, int64_t token) {
    return !c("allowed") || (token + (c("alike") ? 0 : row)) % c("allowed") == 0;
  }

  void inputs(Case& c, Random& random) const override {
    Array& logits = c.input("logits", {c("rows"), c("V")}, [&] { return 2 * random.normal(); });
    for (int64_t e = 0; e < logits.elements(); ++e) {
      if (c("alike")) logits.value[e] = logits.value[e % c("V")];
      if (c("ties")) logits.value[e] = std::round(logits.value[e] / 2);
    }
    if (c("history")) {
      Array& history = c.input(
          "history", {c("rows"), c("history")}, [&] { return random.below(c("V")); }, Dtype::i32);
      for (int64_t e = 0; e < history.elements(); ++e) {
        if (c("alike")) history.value[e] = history.value[e % c("history")];
        if (e % c("history") >= c("history") - 1) history.value[e] = -1;
      }
    }
    if (int64_t words = (c("V") + 63) / 64; c("allowed")) {
      Array& allowed = c.input(
          "allowed", {c("rows"), words}, [] { return 0; }, Dtype::u64);
      for (int64_t r = 0; r < c("rows"); ++r)
        for (int64_t t = 0; t < c("V"); ++t)
          if (may(c, r, t)) allowed.words[r * words + t / 64] |= uint64_t{1} << t % 64;
    }
    c.output("tokens", {c("rows")}, Dtype::i32);
    c.output("logprob", {c("rows")}, Dtype::fp32);
  }

  /// The probabilities of a row's tokens, 0 where a rule cuts. `slack` widens every cut, for tokens that stand on it.
  static std::vector<double> distribution(const Case& c, int64_t row, double slack) {
    SamplingParameters s = rule(c, row);
    int64_t width = c("V");
    std::vector<double> z(width);
    for (int64_t x = 0; x < width; ++x) z[x] = c["logits"](row, x);
    std::vector<bool> counted(width);
    for (int64_t n = 0; n < c("history"); ++n)
      if (double token = c["history"](row, n); token >= 0) counted[static_cast<size_t>(token)] = true;
    for (int64_t x = 0; x < width; ++x)
      if (counted[x]) z[x] = z[x] > 0 ? z[x] / s.repetition_penalty : z[x] * s.repetition_penalty;
    for (int64_t x = 0; x < width; ++x)
      if (!may(c, row, x)) z[x] = -INFINITY;
    std::vector<int64_t> order(width);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return z[x] > z[y]; });
    std::vector<double> p(width, 0);
    if (s.temperature == 0) {
      p[order[0]] = 1;
      return p;
    }
    size_t kept = 0;
    while (kept < order.size() &&
           (s.top_k == 0 || kept < static_cast<size_t>(s.top_k) || z[order[kept]] > z[order[s.top_k - 1]] - slack))
      ++kept;
    auto mass = [&](size_t n) { return std::exp((z[order[n]] - z[order[0]]) / s.temperature); };
    double total = 0, before = 0;
    for (size_t n = 0; n < kept; ++n) total += mass(n);
    for (size_t n = 0; n < kept && before < s.top_p * total + slack; before += mass(n++))
      if (mass(n) >= s.min_p - slack) p[order[n]] = mass(n);
    double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= sum;
    return p;
  }

  /// logprob of the device's own token.
  void reference(const Case& c, Fp64& f) const override {
    Array tokens = f.device("tokens");
    f.judged_by_row("tokens");
    for (int64_t r = 0; r < c("rows"); ++r) {
      auto token = static_cast<int64_t>(tokens(r));
      if (token < 0 || token >= c("V")) continue;  // check() says so
      double largest = -INFINITY, total = 0;
      for (int64_t x = 0; x < c("V"); ++x) largest = std::max(largest, c["logits"](r, x));
      for (int64_t x = 0; x < c("V"); ++x) total += std::exp(c["logits"](r, x) - largest);
      f.at("logprob")(r) = f.store(c["logits"](r, token) - largest - std::log(total));
    }
  }

  void check(const Case& c, const Arrays& result, const Fp64&, const Complaint& complain) const override {
    const Array& tokens = result["tokens"];
    int64_t forbidden = 0;
    std::vector<double> count(c("V"), 0), allowed, p;
    for (int64_t r = 0; r < c("rows"); ++r) {
      auto token = static_cast<int64_t>(tokens(r));
      if (r == 0 || !c("alike")) allowed = distribution(c, r, 1e-5), p = distribution(c, r, 0);
      if (token < 0 || token >= c("V") || allowed[token] == 0)
        ++forbidden;
      else
        ++count[token];
    }
    if (forbidden) complain("tokens that the rules forbid", static_cast<double>(forbidden), 0);
    if (!c("alike")) return;
    double n = static_cast<double>(c("rows")), worst = 0;
    for (int64_t x = 0; x < c("V"); ++x)
      if (p[x] > 0 && p[x] < 1)
        worst = std::max(worst, std::abs(count[x] - n * p[x]) / (std::sqrt(n * p[x] * (1 - p[x])) + 1));
    if (worst > 5) complain("a token's frequency, in standard deviations from its probability", worst, 5);
  }

  void run(Device& device, const Case& c, Bound& d) const override {
    std::vector<SamplingParameters> rules;
    for (int64_t r = 0; r < c("rows"); ++r) rules.push_back(rule(c, r));
    device.sample({.tokens = d["tokens"],
                   .logprob = d["logprob"],
                   .logits = d["logits"],
                   .history = d["history"],
                   .allowed = d["allowed"],
                   .rules = rules});
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["V"];
    return {elements * dtype_bytes(type), 4 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 16}, {"V", 32768}, {"rules", 5}}}; }
};

}  // namespace

std::unique_ptr<Operation> sample_row() { return std::make_unique<SampleRow>(); }

}  // namespace longhand::ops
