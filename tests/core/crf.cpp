#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "longhand/device.h"
#include "longhand/random.h"

using namespace longhand;

namespace {

struct Chain {
  int64_t rows, labels;
  std::vector<float> emissions, transitions;

  Chain(int64_t rows, int64_t labels, uint64_t seed) : rows(rows), labels(labels) {
    RandomStream random{.seed = seed};
    uint64_t next = 0;
    auto draw = [&](int64_t count) {
      std::vector<float> values(count);
      for (float& x : values) x = 4 * uniform(random.bits(next++)) - 2;
      return values;
    };
    emissions = draw(rows * labels), transitions = draw((labels + 2) * labels);
  }

  double score(const std::vector<int32_t>& y) const {
    double sum = transitions[labels * labels + y[0]] + transitions[(labels + 1) * labels + y[rows - 1]];
    for (int64_t t = 0; t < rows; ++t)
      sum += emissions[t * labels + y[t]] + (t > 0 ? transitions[y[t - 1] * labels + y[t]] : 0);
    return sum;
  }

  /// Calls on(labels) for every sequence of labels.
  template <class Visitor>
  void each(Visitor&& on) const {
    std::vector<int32_t> y(rows, 0);
    for (int64_t t = 0; t < rows;) {
      on(y);
      for (t = 0; t < rows && ++y[t] == labels; ++t) y[t] = 0;
    }
  }
};

}  // namespace

TEST_CASE("a conditional random field agrees with the enumeration of every sequence of labels") {
  auto device = make_device("cpu", {.threads = 2});
  for (auto [rows, labels] : {std::pair<int64_t, int64_t>{1, 2}, {3, 2}, {4, 3}, {2, 5}, {5, 4}}) {
    Chain chain(rows, labels, static_cast<uint64_t>(rows * 10 + labels));
    std::vector<int32_t> target(rows), starts{0, static_cast<int32_t>(rows)}, best;
    for (int64_t t = 0; t < rows; ++t) target[t] = static_cast<int32_t>((t * 2 + 1) % labels);

    double all = 0, most = -1e30;
    std::vector<double> marginal(rows * labels, 0), pair((labels + 2) * labels, 0);
    chain.each([&](const std::vector<int32_t>& y) {
      double weight = std::exp(chain.score(y));
      all += weight;
      for (int64_t t = 0; t < rows; ++t) {
        marginal[t * labels + y[t]] += weight;
        pair[(t > 0 ? y[t - 1] : labels) * labels + y[t]] += weight;
      }
      pair[(labels + 1) * labels + y[rows - 1]] += weight;
      if (chain.score(y) > most) most = chain.score(y), best = y;
    });

    Shape emission_shape{rows, labels}, transition_shape{labels + 2, labels};
    std::vector<float> emissions = chain.emissions, d_transitions(chain.transitions.size(), 0), loss(1), score(1);
    std::vector<int32_t> said(rows);
    auto list = [](std::vector<int32_t>& v) { return Tensor(v.data(), Dtype::i32, {static_cast<int64_t>(v.size())}); };
    Tensor e(emissions.data(), Dtype::fp32, emission_shape), l(loss.data(), Dtype::fp32, {1});
    ConstTensor t(chain.transitions.data(), Dtype::fp32, transition_shape);
    device->crf_decode({.labels = list(said),
                        .score = Tensor(score.data(), Dtype::fp32, {1}),
                        .emissions = e,
                        .transitions = t,
                        .starts = list(starts)});
    CHECK(said == best);
    CHECK(score[0] == doctest::Approx(most).epsilon(1e-5));
    device->crf_loss({.emissions = e,
                      .d_transitions = Tensor(d_transitions.data(), Dtype::fp32, transition_shape),
                      .loss = l,
                      .transitions = t,
                      .starts = list(starts),
                      .targets = list(target)});
    CHECK(loss[0] == doctest::Approx(std::log(all) - chain.score(target)).epsilon(1e-5));
    for (int64_t i = 0; i < rows * labels; ++i)
      CHECK(emissions[i] ==
            doctest::Approx(marginal[i] / all - (target[i / labels] == i % labels)).epsilon(1e-4).scale(1));
    for (int64_t t = 0; t < rows; ++t) pair[(t > 0 ? target[t - 1] : labels) * labels + target[t]] -= all;
    pair[(labels + 1) * labels + target[rows - 1]] -= all;
    for (size_t i = 0; i < pair.size(); ++i)
      CHECK(d_transitions[i] == doctest::Approx(pair[i] / all).epsilon(1e-4).scale(1));
  }
}

TEST_CASE("a chain refuses labels and sequences that are not there") {
  auto device = make_device("cpu", {.threads = 1});
  std::vector<float> emissions(6), transitions(10), loss(1);
  std::vector<int32_t> targets{0, 1, 2}, starts{0, 3}, short_starts{0, 2};
  auto list = [](std::vector<int32_t>& v) { return Tensor(v.data(), Dtype::i32, {static_cast<int64_t>(v.size())}); };
  CrfLoss a{.emissions = Tensor(emissions.data(), Dtype::fp32, {3, 2}),
            .loss = Tensor(loss.data(), Dtype::fp32, {1}),
            .transitions = ConstTensor(transitions.data(), Dtype::fp32, {4, 2}),
            .starts = list(starts),
            .targets = list(targets)};
  CHECK_THROWS_WITH_AS(device->crf_loss(a), doctest::Contains("target 2 of row 2 is none of 2 labels"), Error);
  targets[2] = 1, a.starts = list(short_starts);
  CHECK_THROWS_WITH_AS(device->crf_loss(a), doctest::Contains("starts does not ascend from 0 to 3"), Error);
}
