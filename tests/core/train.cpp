#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "src/train/guard.h"
#include "tests/core/train_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

std::vector<StepReport> train(const TrainOptions& options, const TokenFile& data, int64_t steps) {
  auto device = make_device("cpu", {.threads = 1});
  Trainer trainer(*device, options, data, 0);
  std::vector<StepReport> reports;
  for (int64_t i = 0; i < steps; ++i) reports.push_back(trainer.step());
  return reports;
}

}  // namespace

TEST_CASE("the first loss is near ln V, the first step is 0, and what follows from the token before is learnt") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 2000));
  TrainOptions options = small_options();
  options.steps = 60;
  std::vector<StepReport> reports = train(options, data, 60);
  CHECK(reports[0].step == 0);
  CHECK(reports[0].loss == doctest::Approx(std::log(50.0)).epsilon(0.05));
  CHECK(reports[0].tokens == 28);
  CHECK(reports[0].grad_norm > 0);
  CHECK(reports[0].learning_rate == options.make_schedule().rate(0));
  CHECK(reports[59].learning_rate == doctest::Approx(1e-3));
  CHECK(reports[59].loss < 0.7 * reports[0].loss);
}

TEST_CASE("growing segments learn, and saved and restored end in the same bits") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 1200));
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = small_options();
  options.segment = 24, options.segment_start = 5, options.segment_steps = 0, options.steps = 30;
  options.mask_documents = true, options.dropout.attention = 0.1f, options.micro_batch = 2,
  options.pacing = Pacing::root;
  options.resolve(0);
  CHECK(options.segment_steps == 15);
  Trainer through(*device, options, data, 0);
  std::vector<StepReport> reports;
  for (int64_t i = 0; i < options.steps; ++i) {
    if (i == 7) through.save_checkpoint(scratch / "middle.safetensors", "");
    reports.push_back(through.step());
    CHECK(reports.back().segment == options.segments().length(i));
    CHECK(reports.back().tokens == 4 * reports.back().segment);
  }
  CHECK(reports[0].segment == 5);
  CHECK(reports[20].segment == 24);
  CHECK(reports.back().loss < 0.8 * reports[0].loss);
  Trainer restored(*device, options, data, 0);
  restored.restore(SafetensorsFile(scratch / "middle.safetensors"));
  for (int64_t i = 7; i < options.steps; ++i) restored.step();
  through.save_checkpoint(scratch / "through.safetensors", ""),
      restored.save_checkpoint(scratch / "restored.safetensors", "");
  CHECK(read_bytes(scratch / "through.safetensors") == read_bytes(scratch / "restored.safetensors"));
}

TEST_CASE("accumulation over micro-batches gives the numbers of the undivided step") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 1000));
  for (bool masked : {false, true})
    for (bool recompute : {false, true}) {
      TrainOptions options = small_options();
      options.mask_documents = masked;
      std::vector<StepReport> whole = train(options, data, 8);
      options.recompute = recompute;
      for (int64_t micro : {1, 2}) {
        options.micro_batch = micro;
        std::vector<StepReport> parts = train(options, data, 8);
        for (size_t i = 0; i < whole.size(); ++i) {
          CHECK(parts[i].loss == doctest::Approx(whole[i].loss).epsilon(1e-4));
          CHECK(parts[i].grad_norm == doctest::Approx(whole[i].grad_norm).epsilon(1e-3));
        }
      }
    }
}

TEST_CASE("mixed precision with bf16 master weights and moments follows fp32") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 2000));
  TrainOptions options = small_options();
  options.steps = 40;
  double fp32 = train(options, data, 40).back().loss;
  options.type = options.moments = Dtype::bf16;
  for (Dtype master : {Dtype::fp32, Dtype::bf16}) {
    options.master = master;
    CHECK(train(options, data, 40).back().loss == doctest::Approx(fp32).epsilon(0.15));
  }
}

TEST_CASE("a step whose loss is not finite is skipped and leaves weights, moments and memory clean") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 1000));
  auto device = make_device("cpu", {.threads = 1});
  Trainer trainer(*device, small_options(), data, 0);
  trainer.step();
  float* weight = trainer.weights().final_norm.gain.as<float>();
  float kept = *weight, other = weight[1];
  *weight = std::numeric_limits<float>::infinity();
  StepReport bad = trainer.step();
  CHECK(bad.skipped == "the loss is not finite");
  CHECK(bad.skipped_in_a_row == 1);
  CHECK(weight[1] == other);
  *weight = kept;
  StepReport good = trainer.step();
  CHECK(good.skipped == "");
  CHECK(good.skipped_in_a_row == 0);
  CHECK(std::isfinite(good.loss));
}

TEST_CASE("the guard lets a run settle, then stops what leaps") {
  Guard guard;
  for (int i = 0; i < Guard::settle; ++i) {
    CHECK(guard.judge(i % 2 ? 9.0 : 3.0, 1, 2) == "");
    guard.accept(3);
  }
  CHECK(guard.mean == doctest::Approx(3));
  CHECK(guard.judge(4.9, 1, 2) == "");
  CHECK(guard.judge(5.1, 1, 2) != "");
  CHECK(guard.judge(5.1, 1, 0) == "");
  CHECK(guard.judge(3, INFINITY, 0) == "the gradient is not finite");
}

TEST_CASE("validation predicts every token once and knows bits a byte") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 1000));
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = small_options();
  Trainer trainer(*device, options, data, 1 << 20);
  std::vector<ValidationRow> rows = trainer.validate();
  REQUIRE(rows.size() == 2);
  CHECK(rows[0].name == "de");
  CHECK(rows[0].tokens == 60);
  CHECK(rows[1].tokens == 39);
  CHECK(rows[0].bits_per_byte == doctest::Approx(rows[0].nats / std::log(2.0) * 61 / 122));
  CHECK(rows[1].nats == doctest::Approx(std::log(50.0)).epsilon(0.1));
  ValidationRow mean = mean_of(rows);
  CHECK(mean.nats == doctest::Approx((rows[0].nats + rows[1].nats) / 2));
  CHECK(trainer.validate()[0].nats == rows[0].nats);

  Trainer capped(*device, options, data, 20);
  CHECK(capped.validate()[0].tokens == 20);

  options.micro_batch = 1;  // one lane instead of four: other cuts of the memory, nearly the same loss
  Trainer single(*device, options, data, 1 << 20);
  CHECK(single.validate()[0].nats == doctest::Approx(rows[0].nats).epsilon(0.02));
}

TEST_CASE("validation leaves the run's numbers alone") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 1000));
  auto device = make_device("cpu", {.threads = 1});
  Trainer with(*device, small_options(), data, 100), without(*device, small_options(), data, 0);
  for (int i = 0; i < 4; ++i) {
    CHECK(with.step().loss == without.step().loss);
    with.validate();
  }
}
