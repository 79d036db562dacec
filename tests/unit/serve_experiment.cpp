// A/B tests: shares are kept, users are known again, verdicts are counted once, intervals are those of the papers.
#include <doctest/doctest.h>

#include "longhand/error.h"
#include "src/serve/experiment.h"

using namespace longhand;
using namespace longhand::serve;

namespace {

Variant variant(const char* name, double share) {
  Variant v;
  v.name = name, v.model = "tiny", v.share = share;
  return v;
}

Experiment three() { return Experiment("ab", {variant("a", 1), variant("b", 2), variant("c", 5)}); }

}  // namespace

TEST_CASE("users are shared out as asked, and the same user gets the same variant") {
  Experiment experiment = three(), again = three();
  std::vector<int> counts(3);
  for (int user = 0; user < 8000; ++user) {
    size_t chosen = experiment.choose(fmt::format("user {}", user), 0);
    CHECK(again.choose(fmt::format("user {}", user), 0.9) == chosen);
    ++counts[chosen];
  }
  CHECK(counts[0] == doctest::Approx(1000).epsilon(0.1));
  CHECK(counts[1] == doctest::Approx(2000).epsilon(0.1));
  CHECK(counts[2] == doctest::Approx(5000).epsilon(0.1));
  CHECK(experiment.choose("", 0.1) == 0);
  CHECK(experiment.choose("", 0.2) == 1);
  CHECK(experiment.choose("", 0.99) == 2);
}

TEST_CASE("an answer's last verdict counts, once") {
  Experiment experiment = three();
  experiment.answered("x", 1, 10), experiment.answered("y", 1, 5);
  CHECK(experiment.rate("x", true));
  CHECK(experiment.rate("x", true));
  CHECK(experiment.rate("y", true));
  CHECK(experiment.rate("y", false));
  CHECK_FALSE(experiment.rate("z", true));
  Experiment::Count count = experiment.counts()[1];
  CHECK(count.answers == 2);
  CHECK(count.tokens == 15);
  CHECK(count.up == 1);
  CHECK(count.down == 1);
}

TEST_CASE("what was said long ago is forgotten, so that memory is bounded") {
  Experiment experiment = three();
  for (int i = 0; i <= 100000; ++i) experiment.answered(std::to_string(i), 0, 1);
  CHECK_FALSE(experiment.rate("0", true));
  CHECK(experiment.rate("1", true));
}

TEST_CASE("intervals are Wilson's and Newcombe's") {
  CHECK(wilson(5, 10).low == doctest::Approx(0.2366).epsilon(1e-3));
  CHECK(wilson(5, 10).high == doctest::Approx(0.7634).epsilon(1e-3));
  CHECK(wilson(0, 10).low == 0);
  CHECK(wilson(0, 10).high == doctest::Approx(0.2775).epsilon(1e-3));
  CHECK(wilson(0, 0).high == 1);
  Interval apart = newcombe(56, 70, 48, 80);  // example (a) of the paper's table II, method 10
  CHECK(apart.low == doctest::Approx(0.0524).epsilon(1e-2));
  CHECK(apart.high == doctest::Approx(0.3339).epsilon(1e-3));
}

TEST_CASE("an experiment that cannot be run is refused") {
  CHECK_THROWS_WITH_AS(Experiment("ab", {variant("a", 1)}), doctest::Contains("two variants"), Error);
  CHECK_THROWS_WITH_AS(Experiment("ab", {variant("a", 1), variant("a", 1)}), doctest::Contains("twice"), Error);
  CHECK_THROWS_WITH_AS(Experiment("ab", {variant("a", 1), variant("b", 0)}), doctest::Contains("above 0"), Error);
}
