// Cross-entropy, log-probabilities, sampling.
#include "tests/core/elementwise.h"

#include <algorithm>
#include <map>
#include <set>

using namespace longhand;

struct LossReference {
  double smoothing, gamma;

  double operator()(const std::vector<double>& z, int target) const {
    double largest = *std::max_element(z.begin(), z.end()), total = 0, mean = 0;
    for (double x : z) total += std::exp(x - largest), mean += x / z.size();
    double log_total = largest + std::log(total), log_p = z[target] - log_total;
    double ce = -(1 - smoothing) * log_p - smoothing * (mean - log_total);
    return std::pow(-std::expm1(log_p), gamma) * ce;
  }
};

TEST_CASE("cross-entropy and its gradient match finite differences with smoothing and focal loss together") {
  auto one = make_device("cpu", {.threads = 1}), three = make_device("cpu", {.threads = 3});
  for (Dtype type : float_types)
    for (double smoothing : {0.0, 0.1})
      for (double gamma : {0.0, 0.5, 1.0, 2.0})
        for (int64_t v : {2, 13, 259, 5003}) {
          int64_t rows = 5;
          Box logits = random_box(type, {rows, v}, 21, -4, 4), loss(Dtype::fp32, {rows}), again(Dtype::fp32, {rows});
          Box targets = random_box(Dtype::i32, {rows}, 22, 0, v), weights = random_box(Dtype::fp32, {rows}, 23, 0.5, 2);
          targets.set(2, -1);
          Box d = logits, d2 = logits, only = logits;
          auto run = [&](Device& device, Box& z, Box& l, bool gradient) {
            device.cross_entropy({.logits = z,
                                  .loss = l,
                                  .targets = targets,
                                  .weights = weights,
                                  .smoothing = static_cast<float>(smoothing),
                                  .gamma = static_cast<float>(gamma),
                                  .scale = 0.25f,
                                  .gradient = gradient});
          };
          run(*one, d, loss, true);
          run(*three, d2, again, true);
          CHECK(d == d2);
          CHECK(loss == again);
          run(*one, only, again, false);
          CHECK(only == logits);
          CHECK(loss == again);
          LossReference reference{static_cast<float>(smoothing), gamma};
          for (int64_t r = 0; r < rows; ++r) {
            int target = static_cast<int>(targets[r]);
            std::vector<double> z(v);
            for (int64_t c = 0; c < v; ++c) z[c] = logits[r * v + c];
            double norm = 0;
            for (int64_t c = 0; c < v; ++c) norm += d[r * v + c];
            if (target < 0) {
              CHECK(loss[r] == 0);
              CHECK(norm == 0);
              continue;
            }
            CHECK(loss[r] == doctest::Approx(weights[r] * reference(z, target)).epsilon(1e-6));
            CHECK(std::abs(norm) < (type == Dtype::bf16 ? 2e-3 : 2e-6));
            for (int64_t c = target % (v / 2 + 1); c < v; c += v / 2) {
              int64_t at = c == target % (v / 2 + 1) ? target : c;
              double step = 1e-5, kept = z[at];
              z[at] = kept + step;
              double up = reference(z, target);
              z[at] = kept - step;
              double slope = 0.25 * weights[r] * (up - reference(z, target)) / (2 * step);
              z[at] = kept;
              CHECK(std::abs(d[r * v + at] - slope) < (type == Dtype::bf16 ? 5e-3 : 1e-5) * std::abs(slope) + 2e-9);
            }
          }
        }
}

TEST_CASE("a confident prediction keeps its small loss, extreme logits stay finite") {
  auto device = make_device("cpu", {.threads = 1});
  Box logits(Dtype::fp32, {2, 40}), loss(Dtype::fp32, {2}), targets(Dtype::i32, {2});
  logits.set(7, 25);
  targets.set(0, 7), targets.set(1, 3);
  logits.set(40, 3e38), logits.set(43, -3e38);
  device->cross_entropy({.logits = logits, .loss = loss, .targets = targets});
  CHECK(loss[0] == doctest::Approx(39 * std::exp(-25.0)).epsilon(1e-5));
  CHECK(logits[7] == doctest::Approx(-39 * std::exp(-25.0)).epsilon(1e-5));
  CHECK(logits[40] == 1);
  CHECK(logits[43] == -1);
}

TEST_CASE("log-probabilities are those of a softmax in double") {
  auto device = make_device("cpu", {.threads = 2});
  for (Dtype type : float_types)
    for (int64_t v : {3, 65521}) {
      Box logits = random_box(type, {3, v}, 31, -9, 9), tokens = random_box(Dtype::i32, {3}, 32, 0, v);
      Box logprob(Dtype::fp32, {3});
      device->log_probability({.logprob = logprob, .logits = logits, .tokens = tokens});
      for (int64_t r = 0; r < 3; ++r) {
        double total = 0;
        for (int64_t c = 0; c < v; ++c) total += std::exp(logits[r * v + c]);
        CHECK(logprob[r] ==
              doctest::Approx(logits[r * v + static_cast<int64_t>(tokens[r])] - std::log(total)).epsilon(1e-6));
      }
    }
}

/// The kept tokens and their probabilities, rule by rule, the slow way.
static std::map<int, double> kept_tokens(std::vector<double> z, const std::set<int>& seen,
                                         const SamplingParameters& p) {
  for (int t : seen) z[t] = z[t] > 0 ? z[t] / p.repetition_penalty : z[t] * p.repetition_penalty;
  std::vector<int> order(z.size());
  for (size_t i = 0; i < z.size(); ++i) order[i] = static_cast<int>(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return z[a] > z[b]; });
  if (p.top_k > 0 && p.top_k < static_cast<int>(order.size())) order.resize(p.top_k);
  auto weight = [&](int t) { return std::exp((z[t] - z[order[0]]) / p.temperature); };
  double total = 0, reached = 0;
  for (int t : order) total += weight(t);
  std::map<int, double> kept;
  for (int t : order) {
    if (reached >= p.top_p * total * (1 - 1e-6)) break;
    reached += weight(t);
    if (weight(t) >= p.min_p) kept[t] = weight(t);
  }
  total = 0;
  for (auto& [t, w] : kept) total += w;
  for (auto& [t, w] : kept) w /= total;
  return kept;
}

TEST_CASE("sampled tokens follow the distribution that the rules leave (chi-square)") {
  auto device = make_device("cpu", {.threads = 3});
  constexpr int v = 19, draws = 20000;
  Box row = random_box(Dtype::fp32, {v}, 41, -2, 3), logits(Dtype::fp32, {draws, v}), history(Dtype::i32, {draws, 4});
  for (int64_t i = 0; i < draws * v; ++i) logits.set(i, row[i % v]);
  for (int64_t i = 0; i < draws * 4; ++i) history.set(i, std::vector<int>{3, 3, 8, -1}[i % 4]);
  std::vector<double> z(v);
  for (int i = 0; i < v; ++i) z[i] = row[i];
  SamplingParameters cases[] = {
      {},
      {.temperature = 0.7f},
      {.top_k = 5},
      {.top_p = 0.8f},
      {.min_p = 0.1f},
      {.repetition_penalty = 1.5f},
      {.temperature = 1.3f, .top_k = 9, .top_p = 0.9f, .min_p = 0.1f, .repetition_penalty = 2}};
  for (auto& p : cases) {
    std::vector<SamplingParameters> rules(draws, p);
    for (int i = 0; i < draws; ++i) rules[i].stream = {.seed = 4, .use = RandomUse::sampling}, rules[i].element = i;
    Box tokens(Dtype::i32, {draws}), logprob(Dtype::fp32, {draws}), again(Dtype::i32, {draws});
    device->sample({.tokens = tokens, .logprob = logprob, .logits = logits, .history = history, .rules = rules});
    make_device("cpu", {.threads = 1})->sample({.tokens = again, .logits = logits, .history = history, .rules = rules});
    CHECK(tokens == again);
    auto kept = kept_tokens(z, {3, 8}, p);
    std::map<int, int> counts;
    for (int i = 0; i < draws; ++i) ++counts[static_cast<int>(tokens[i])];
    double chi_square = 0;
    for (auto [t, n] : counts) CHECK(kept.count(t) == 1);
    for (auto [t, w] : kept) chi_square += (counts[t] - draws * w) * (counts[t] - draws * w) / (draws * w);
    CHECK(chi_square < kept.size() + 5 * std::sqrt(2.0 * kept.size()) + 5);
    double total = 0;
    for (double x : z) total += std::exp(x);
    CHECK(logprob[0] == doctest::Approx(z[static_cast<int>(tokens[0])] - std::log(total)));
  }
}

TEST_CASE("in a large vocabulary the rules keep exactly their tokens, ties going to the smaller id") {
  auto device = make_device("cpu", {.threads = 1});
  int64_t v = 30011;
  for (Dtype type : float_types) {
    Box logits = random_box(type, {1, v}, 51, -3, 3), tokens(Dtype::i32, {1});
    std::vector<double> z(v);
    for (int64_t i = 0; i < v; ++i) z[i] = logits[i];
    for (SamplingParameters p : {SamplingParameters{.temperature = 0.5f, .top_p = 0.5f},
                                 SamplingParameters{.top_k = 700, .top_p = 0.7f, .min_p = 0.99f},
                                 SamplingParameters{.top_k = 1}, SamplingParameters{.temperature = 0.01f}}) {
      auto kept = kept_tokens(z, {}, p);
      for (p.element = 0; p.element < 40; ++p.element) {
        device->sample({.tokens = tokens, .logits = logits, .rules = {&p, 1}});
        CHECK(kept.count(static_cast<int>(tokens[0])) == 1);
      }
    }
    SamplingParameters greedy{.temperature = 0};
    logits.set(20000, 100), logits.set(77, 100), logits.set(29999, 100);
    device->sample({.tokens = tokens, .logits = logits, .rules = {&greedy, 1}});
    CHECK(tokens[0] == 77);
    SamplingParameters first{.top_k = 1};
    device->sample({.tokens = tokens, .logits = logits, .rules = {&first, 1}});
    CHECK(tokens[0] == 77);
  }
}

TEST_CASE("rows without numbers fail, with their index") {
  auto device = make_device("cpu", {.threads = 2});
  Box logits(Dtype::fp32, {2, 7}), tokens(Dtype::i32, {2});
  SamplingParameters rules[2] = {{.top_p = 0.5f}, {.temperature = 0}};
  for (float bad : {NAN, INFINITY}) {
    logits.set(9, bad);
    CHECK_THROWS_WITH_AS(device->sample({.tokens = tokens, .logits = logits, .rules = rules}),
                         doctest::Contains("row 1"), Error);
  }
  for (int i = 7; i < 14; ++i) logits.set(i, -INFINITY);
  CHECK_THROWS_AS(device->sample({.tokens = tokens, .logits = logits, .rules = rules}), Error);
  logits.set(13, 0);
  device->sample({.tokens = tokens, .logits = logits, .rules = rules});
  CHECK(tokens[1] == 6);
  uint64_t allowed[2] = {1 << 2 | 1 << 5, 0};
  ConstTensor words(allowed, Dtype::u64, {2, 1});
  CHECK_THROWS_WITH_AS(device->sample({.tokens = tokens, .logits = logits, .allowed = words, .rules = rules}),
                       doctest::Contains("row 1"), Error);
  for (int i = 7; i < 14; ++i) logits.set(i, i == 10 ? 2 : 1);
  allowed[1] = ~uint64_t{0};
  device->sample({.tokens = tokens, .logits = logits, .allowed = words, .rules = rules});
  CHECK(tokens[1] == 3);
  rules[0].top_p = 0;
  CHECK_THROWS_AS(device->sample({.tokens = tokens, .logits = logits, .rules = rules}), Error);
}
