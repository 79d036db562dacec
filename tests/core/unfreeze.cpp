#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "src/train/unfreeze.h"
#include "tests/core/example_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

std::string bytes_of(const Trainer& trainer, const std::string& name) {
  const Tensor& t = trainer.weights().tensor(name);
  return {static_cast<const char*>(t.data()), static_cast<size_t>(t.bytes())};
}

std::vector<float> values_of(const Trainer& trainer, const std::string& name) {
  const Tensor& t = trainer.weights().tensor(name);
  return {t.as<float>(), t.as<float>() + t.elements()};
}

}  // namespace

TEST_CASE("unfreezing begins with the top feed-forward layer, attention layers join one an epoch from the third on") {
  TokenFile data = example_file();
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = example_options();
  options.unfreeze = true, options.train_only = "norm.*";
  Trainer trainer(*device, options, data, 0);
  int64_t batches = make_loader(options, data.train())->batches_per_epoch();
  std::vector<std::string> order{"layers.1.feedforward.up.weight", "layers.1.attention.qkv.weight",
                                 "layers.0.attention.qkv.weight"};
  std::vector<std::string> never{"embedding.weight", "layers.0.feedforward.up.weight"}, events;
  for (int64_t epoch = 0; epoch < 5; ++epoch)
    for (int64_t b = 0; b < batches; ++b) {
      std::vector<std::string> before, after;
      for (const auto* list : {&order, &never})
        for (const std::string& name : *list) before.push_back(bytes_of(trainer, name));
      std::string norm = bytes_of(trainer, "norm.weight");
      StepReport report = trainer.step();
      if (!report.thawed.empty()) events.push_back(fmt::format("{} {}", report.step / batches, report.thawed));
      for (const auto* list : {&order, &never})
        for (const std::string& name : *list) after.push_back(bytes_of(trainer, name));
      for (size_t i = 0; i < after.size(); ++i) {
        bool trains = i == 0 || (i < order.size() && epoch >= static_cast<int64_t>(i) + 1);
        CHECK((before[i] != after[i]) == trains);
      }
      CHECK(norm != bytes_of(trainer, "norm.weight"));
    }
  CHECK(events == std::vector<std::string>{"2 layers.1.attention", "3 layers.0.attention"});
}

// With beta1 = beta2 the first update of a tensor is rate * g / (|g| + eps'), whatever came before it: a tensor that
// joins late takes a full first step only where its bias correction begins then.
TEST_CASE("a tensor that thaws late makes its first update as a new one does") {
  TokenFile data = example_file();
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = example_options();
  options.unfreeze = true, options.dropout = {}, options.weight_decay = 0, options.clip = 0;
  options.schedule = ScheduleKind::constant, options.beta1 = 0.9, options.beta2 = 0.95, options.eps = 1e-12;
  options.resolve(0);
  Trainer trainer(*device, options, data, 0);
  int64_t batches = make_loader(options, data.train())->batches_per_epoch();
  for (int64_t i = 0; i < 2 * batches; ++i) trainer.step();
  std::vector<float> before = values_of(trainer, "layers.1.attention.output.weight");
  trainer.step();
  std::vector<float> after = values_of(trainer, "layers.1.attention.output.weight");
  for (size_t i = 0; i < before.size(); ++i)
    CHECK(std::abs(after[i] - before[i]) == doctest::Approx(options.learning_rate).epsilon(1e-3));
}

TEST_CASE("the rate falls by its factor a layer, the embedding learns slowest") {
  TokenFile data = example_file();
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = example_options();
  options.layer_decay = 0.5, options.dropout = {}, options.weight_decay = 0, options.clip = 0;
  options.schedule = ScheduleKind::constant, options.eps = 1e-12;
  options.resolve(0);
  Trainer trainer(*device, options, data, 0);
  auto moved = [&](const std::string& name, auto&& step) {
    std::vector<float> before = values_of(trainer, name);
    step();
    std::vector<float> after = values_of(trainer, name);
    double most = 0;
    for (size_t i = 0; i < before.size(); ++i) most = std::max<double>(most, std::abs(after[i] - before[i]));
    return most / options.learning_rate;
  };
  CHECK(moved("layers.1.attention.qkv.weight", [&] {
          CHECK(moved("layers.0.feedforward.up.weight", [&] {
                  CHECK(moved("norm.bias", [&] {
                          CHECK(moved("embedding.weight", [&] { trainer.step(); }) ==
                                doctest::Approx(0.25).epsilon(1e-3));
                        }) == doctest::Approx(1).epsilon(1e-3));
                }) == doctest::Approx(0.5).epsilon(1e-3));
        }) == doctest::Approx(1).epsilon(1e-3));
}

TEST_CASE("unfreezing over updates that the first epochs do not have is refused") {
  TrainOptions options = example_options();
  options.unfreeze = true, options.config.lora_rank = 2, options.config.lora_sites = "q,v";
  CHECK_THROWS_WITH_AS(options.resolve(0), doctest::Contains("--unfreeze: nothing trains"), UsageError);
  options.config.lora_sites = "q,v,up";
  options.resolve(0);
  CHECK(options.stage("layers.1.feedforward.up.lora_a") == 0);
  CHECK(options.stage("layers.0.feedforward.up.lora_a") == -1);
  CHECK(options.stage("layers.0.attention.q.lora_a") == 2);
  CHECK(options.stage("layers.1.feedforward.up.weight") == -1);
  options.config = options.config.plain(), options.config.adapter_width = 4;
  CHECK(options.stage("layers.1.feedforward.adapter.up.weight") == 0);
  CHECK(options.stage("layers.0.feedforward.adapter.up.weight") == -1);
  CHECK(options.stage("layers.0.attention.adapter.down.bias") == 2);
  CHECK(options.stage("layers.1.feedforward.up.weight") == -1);
  options.config.adapter_sites = "attention";
  CHECK_THROWS_WITH_AS(options.resolve(0), doctest::Contains("--unfreeze: nothing trains"), UsageError);
}
