#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/core/example_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

/// The first tokens of the examples in a batch of rows that hold one example each: example e begins with e.
std::vector<int32_t> examples_of(Loader& loader) {
  bool fresh = false;
  Batch batch = loader.next(0, fresh);
  std::vector<int32_t> list;
  for (int64_t lane = 0; lane < batch.tokens.size(1); ++lane)
    if (batch.targets.as<const int32_t>()[lane + batch.targets.size(1)] >= 0 || batch.tokens.as<const int32_t>()[lane])
      list.push_back(batch.tokens.as<const int32_t>()[lane]);
  return list;
}

TokenContent two_tasks(int64_t count) {
  TokenContent c = some_examples(count, 1);
  c.task_names = {"many", "few"};
  for (int64_t e = 0; e < count; ++e) c.tasks.push_back(e % 10 == 0);
  return c;
}

}  // namespace

TEST_CASE("the share of a curriculum grows from its start to all, by each pacing") {
  for (Pacing pacing : {Pacing::linear, Pacing::root, Pacing::step}) {
    Curriculum c{.difficulty = Difficulty::length, .pacing = pacing, .start = 0.2, .steps = 100};
    CHECK(c.share(0) == doctest::Approx(0.2));
    CHECK(c.share(100) == 1);
    for (int64_t t = 1; t < 100; ++t) CHECK(c.share(t) >= c.share(t - 1));
  }
  Curriculum c{.difficulty = Difficulty::length, .pacing = Pacing::linear, .start = 0.2, .steps = 100};
  CHECK(c.share(50) == doctest::Approx(0.6));
  c.pacing = Pacing::root;
  CHECK(c.share(50) == doctest::Approx(std::sqrt(0.52)));
  c.pacing = Pacing::step;
  CHECK(c.share(49) == doctest::Approx(0.4));
  CHECK(c.share(50) == doctest::Approx(0.6));
}

TEST_CASE("a curriculum draws from its easiest share alone, and what follows it is an ordinary epoch") {
  TokenFile data = example_file();
  ExampleOptions options{.lanes = 4, .segment = 16, .pack = false, .seed = 3};
  options.curriculum = {.difficulty = Difficulty::length, .start = 0.25, .steps = 10};
  ExampleLoader loader(data.train(), options);
  std::vector<float> difficulty = example_difficulty(data.train(), Difficulty::length);
  std::vector<float> sorted = difficulty;
  std::sort(sorted.begin(), sorted.end());
  for (int64_t step = 0; step < 10; ++step) {
    float limit = sorted[std::llround(options.curriculum.share(step) * 40) - 1];
    std::vector<int32_t> drawn = examples_of(loader);
    CHECK(std::set<int32_t>(drawn.begin(), drawn.end()).size() == drawn.size());
    for (int32_t e : drawn) CHECK(difficulty[e] <= limit);
  }
  ExampleOptions plain = options;
  plain.curriculum = {};
  ExampleLoader ordinary(data.train(), plain);
  CHECK(ordinary.batches_per_epoch() == loader.batches_per_epoch());
  for (int64_t step = 0; step < 10; ++step) examples_of(ordinary);
  std::multiset<int32_t> seen;
  for (int64_t step = 0; step < 10; ++step) {
    std::vector<int32_t> with = examples_of(loader), without = examples_of(ordinary);
    CHECK(with == without);
    seen.insert(with.begin(), with.end());
  }
  CHECK(seen.size() >= 39);  // the example that begins with token 0 may look like padding
}

TEST_CASE("rare tokens make an example hard") {
  TokenContent c{.name = "train"};
  for (uint32_t token : {1u, 1u, 1u, 1u, 2u, 2u, 3u, 3u, 3u, 1u, 1u, 1u}) c.tokens.push_back(token);
  c.documents = {0, 4, 6, 9}, c.answers.assign(12, 1);
  TokenFile data({c}, 50, "");
  std::vector<float> difficulty = example_difficulty(data.train(), Difficulty::rarity);
  CHECK(difficulty[0] == doctest::Approx(std::log(12.0 / 7)));
  CHECK(difficulty[1] == doctest::Approx(std::log(12.0 / 2)));
  CHECK(difficulty[3] < difficulty[2]);
}

TEST_CASE("losses that a curriculum ranks by are those of each example alone") {
  TokenFile data = example_file();
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = example_options();
  options.curriculum = Difficulty::loss, options.dropout = {}, options.micro_batch = 2;
  Scratch scratch;
  Trainer trainer(*device, options, data, 0);
  trainer.step();
  trainer.save_checkpoint(scratch / "one.safetensors", "");
  SafetensorsFile file(scratch / "one.safetensors");
  ConstTensor losses = file.tensor("curriculum.losses");
  REQUIRE(losses.elements() == 40);

  ParameterSet weights("weights", options.config, Dtype::fp32);
  weights.commit(*device);
  initialize(*device, weights, options.seed);
  Pass pass(*device, options.config, weights, nullptr, {.lanes = 1, .segment = 16, .memory = 0, .training = false},
            Dtype::fp32);
  ExampleRows alone(data.train(), 16, false, 0);
  for (int64_t row = 0; row < alone.size(); ++row) {
    ExampleRows::Columns c = alone.columns(1);
    double targets = static_cast<double>(alone.fill(row, c, 0));
    double loss = pass.forward(c.batch(16), {}, {}, 0, 0) / targets;
    CHECK(losses.as<const float>()[alone.examples(row)[0]] == doctest::Approx(loss).epsilon(1e-4));
  }
}

TEST_CASE("a temperature evens out the tasks, and in the long run every example comes") {
  TokenFile data({two_tasks(50)}, 50, "");
  for (double temperature : {1.0, 1e6}) {
    ExampleOptions options{.lanes = 5, .segment = 16, .pack = false, .seed = 3, .task_temperature = temperature};
    ExampleLoader loader(data.train(), options);
    int64_t few = 0, all = 0;
    std::set<int32_t> seen;
    for (int64_t b = 0; b < 3 * loader.batches_per_epoch(); ++b)
      for (int32_t e : examples_of(loader)) few += e % 10 == 0, ++all, seen.insert(e);
    CHECK(static_cast<double>(few) / static_cast<double>(all) ==
          doctest::Approx(temperature == 1 ? 0.1 : 0.5).epsilon(0.05));
    CHECK(seen.size() == 50);
  }
  ExampleOptions options{.lanes = 5, .segment = 16, .task_temperature = 2};
  TokenContent one = two_tasks(20);
  std::fill(one.tasks.begin(), one.tasks.end(), 0);
  CHECK_THROWS_WITH_AS(ExampleLoader(TokenFile({one}, 50, "").train(), options), doctest::Contains("two tasks"),
                       UsageError);
}

TEST_CASE("a task's weight multiplies the loss of its answers") {
  TokenFile data({two_tasks(40)}, 50, "");
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = example_options();
  options.dropout = {};
  auto first_loss = [&](const std::string& weights) {
    TrainOptions o = options;
    o.task_weight = weights;
    return Trainer(*device, o, data, 0).step().loss;
  };
  double plain = first_loss(""), many = first_loss("few=0"), few = first_loss("many=0");
  CHECK(many + few == doctest::Approx(plain).epsilon(1e-5));
  CHECK(first_loss("few=2,many=0.5") == doctest::Approx(2 * few + 0.5 * many).epsilon(1e-5));
  CHECK_THROWS_WITH_AS(first_loss("fewer=1"), doctest::Contains("there are many, few"), UsageError);
  CHECK_THROWS_WITH_AS(first_loss("few"), doctest::Contains("de-en=0.5"), UsageError);
}

TEST_CASE("a curriculum, tasks and unfreezing, saved and restored, end in the same bits") {
  Scratch scratch;
  TokenFile data({two_tasks(40)}, 50, "");
  auto device = make_device("cpu", {.threads = 1});
  for (Difficulty kind : {Difficulty::length, Difficulty::rarity, Difficulty::loss}) {
    TrainOptions options = example_options();
    options.curriculum = kind, options.pacing = Pacing::root, options.curriculum_steps = 8;
    options.task_temperature = 3, options.task_weight = "few=2", options.unfreeze = true, options.fgm = 0.3;
    auto save = [&](Trainer& trainer, const char* name) { trainer.save_checkpoint(scratch / name, ""); };
    Trainer through(*device, options, data, 0);
    for (int i = 0; i < 5; ++i) through.step();
    save(through, "middle.safetensors");
    for (int i = 0; i < 16; ++i) through.step();
    save(through, "late.safetensors");
    for (int i = 0; i < 5; ++i) through.step();
    save(through, "through.safetensors");
    for (auto [name, left] : {std::pair("middle.safetensors", 21), std::pair("late.safetensors", 5)}) {
      Trainer restored(*device, options, data, 0);
      restored.restore(SafetensorsFile(scratch / name));
      for (int i = 0; i < left; ++i) restored.step();
      save(restored, "restored.safetensors");
      CHECK(read_bytes(scratch / "through.safetensors") == read_bytes(scratch / "restored.safetensors"));
    }
  }
}
