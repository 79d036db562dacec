#include <doctest/doctest.h>

#include "tests/core/train_fixture.h"

using namespace longhand;
using namespace longhand::testing;

TEST_CASE("bytes a parameter are 16, 16, 12 and 8, and the 7b preset's leanest mode keeps its promise") {
  TrainOptions options;
  options.config = preset("7b");
  options.lanes = 1;
  options.resolve(0);
  struct Mode {
    Dtype type, master, moments;
    double bytes;
  };
  const Mode modes[] = {{Dtype::fp32, Dtype::fp32, Dtype::fp32, 16},
                        {Dtype::bf16, Dtype::fp32, Dtype::fp32, 16},
                        {Dtype::bf16, Dtype::fp32, Dtype::bf16, 12},
                        {Dtype::bf16, Dtype::bf16, Dtype::bf16, 8}};
  for (const Mode& mode : modes) {
    options.type = mode.type, options.master = mode.master, options.moments = mode.moments;
    CHECK(plan_memory(options, false).bytes_per_parameter() == doctest::Approx(mode.bytes).epsilon(0.001));
  }
  options.recompute = true;
  CHECK(plan_memory(options, true).total() < 80'000'000'000);
}

TEST_CASE("bf16 training takes at least 40% less memory than fp32 where the moments and the master are bf16") {
  for (const char* name : {"tiny", "small", "base", "large", "7b"}) {
    TrainOptions options;
    options.config = preset(name);
    options.resolve(0);
    int64_t wide = plan_memory(options, true).total();
    options.type = options.master = options.moments = Dtype::bf16;
    CHECK(static_cast<double>(plan_memory(options, true).total()) < 0.6 * static_cast<double>(wide));
  }
}

TEST_CASE("flags that are said to make a plan fit do so, and a plan that cannot fit is told") {
  TrainOptions options;
  options.config = preset("base");
  options.resolve(0);
  int64_t limit = plan_memory(options, true).total() / 3;
  std::string flags = flags_that_fit(options, true, limit);
  CAPTURE(flags);
  REQUIRE(!flags.empty());
  TrainOptions changed = options;
  changed.recompute = flags.find("--recompute") != std::string::npos;
  if (size_t at = flags.find("--micro-batch "); at != std::string::npos)
    changed.micro_batch = std::stoll(flags.substr(at + 14));
  if (flags.find("--dtype bf16") != std::string::npos) changed.type = Dtype::bf16;
  if (flags.find("--moments bf16") != std::string::npos) changed.moments = Dtype::bf16;
  if (flags.find("--master bf16") != std::string::npos) changed.master = Dtype::bf16;
  CHECK(plan_memory(changed, true).total() <= limit);
  CHECK(flags_that_fit(options, true, 1'000'000) == "");
}

TEST_CASE("the plan's table adds up and every row has its share") {
  TrainOptions options;
  options.config = preset("tiny");
  options.resolve(0);
  MemoryPlan plan = plan_memory(options, true);
  std::string table = plan.table();
  for (const char* name :
       {"weights", "gradients", "master", "moments", "activations", "memory", "scratch", "validation", "total"})
    CHECK(table.find(name) != std::string::npos);
  CHECK(table.find("100.0%") != std::string::npos);
  CHECK(human_bytes(999) == "999 B");
  CHECK(human_bytes(1.4e10) == "14.0 GB");
  CHECK(human_bytes(999'960) == "1.0 MB");
}

TEST_CASE("epochs become steps and steps cap them") {
  auto steps = [](int64_t asked, double epochs) {
    TrainOptions options = small_options();
    options.steps = asked, options.epochs = epochs;
    options.resolve(static_cast<int64_t>(40 * (epochs > 0 ? epochs : 1)));
    return options.steps;
  };
  CHECK(steps(0, 0) == 40);
  CHECK(steps(0, 2.5) == 100);
  CHECK(steps(30, 0) == 30);
  CHECK(steps(30, 2) == 30);
  CHECK(steps(300, 2) == 80);
}

TEST_CASE("constant schedules have no warm-up unless it is asked for") {
  TrainOptions options = small_options();
  options.steps = 1000;
  CHECK(options.make_schedule().warmup == 20);
  options.schedule = ScheduleKind::constant;
  CHECK(options.make_schedule().warmup == 0);
  options.warmup_steps = 5;
  CHECK(options.make_schedule().warmup == 5);
  options.warmup_steps = -1, options.warmup_ratio = 0.1;
  CHECK(options.make_schedule().warmup == 100);
}

TEST_CASE("options come back from their JSON") {
  TrainOptions options = small_options();
  options.dropout.attention = 0.1f, options.type = Dtype::bf16, options.schedule = ScheduleKind::wsd;
  options.seed = 0xffffffffffffffff, options.mask_documents = true, options.eps = 1e-12;
  CHECK(parse_train_options(options.json(), options.config, "test").json() == options.json());
  CHECK_THROWS_AS(parse_train_options("[]", options.config, "test"), Error);
  CHECK_THROWS_AS(parse_train_options(R"({"batch-size": "four"})", options.config, "test"), Error);
}

TEST_CASE("impossible settings are refused as wrong usage") {
  auto refused = [](auto change) {
    TrainOptions options = small_options();
    change(options);
    CHECK_THROWS_AS(options.resolve(0), UsageError);
  };
  refused([](TrainOptions& o) { o.micro_batch = 3; });
  refused([](TrainOptions& o) { o.segment_start = o.segment + 1; });
  refused([](TrainOptions& o) { o.segment_start = 2, o.examples = true; });
  refused([](TrainOptions& o) { o.segment_start = 2, o.steps = 0; });
  refused([](TrainOptions& o) { o.segment_steps = 2; });
  refused([](TrainOptions& o) { o.lanes = 0, o.micro_batch = 1; });
  refused([](TrainOptions& o) { o.master = Dtype::bf16; });
  refused([](TrainOptions& o) { o.dropout.residual = 1; });
  refused([](TrainOptions& o) { o.beta2 = 1; });
  refused([](TrainOptions& o) { o.min_lr = 1; });
  refused([](TrainOptions& o) { o.learning_rate = -1; });
  refused([](TrainOptions& o) { o.label_smoothing = 2; });
  refused([](TrainOptions& o) { o.config.d_model = 15; });
}
