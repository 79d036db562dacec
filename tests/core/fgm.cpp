#include <doctest/doctest.h>

#include <cmath>

#include "tests/core/example_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

using Values = std::vector<std::vector<float>>;

Values values_of(const ParameterSet& set) {
  Values all;
  for (const Tensor& t : set.tensors()) all.emplace_back(t.as<float>(), t.as<float>() + t.elements());
  return all;
}

void put(const ParameterSet& set, const Values& values) {
  for (size_t i = 0; i < values.size(); ++i)
    std::copy(values[i].begin(), values[i].end(), set.tensors()[i].as<float>());
}

TrainOptions fgm_options() {
  TrainOptions o = small_options();
  o.fgm = 0.5, o.clip = 0, o.weight_decay = 0, o.schedule = ScheduleKind::constant;
  return o;
}

/// The gradients of a trainer's next step: without momentum and with eps 1, AdamW moves by rate g / (|g| + 1).
Values gradients_by_update(const TrainOptions& like, const TokenFile& data, int64_t steps_before) {
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions o = like;
  o.beta1 = o.beta2 = 0, o.eps = 1, o.learning_rate = 1;
  if (steps_before > 0) o.warmup_steps = 0;
  Trainer trainer(*device, o, data, 0);
  for (int64_t i = 0; i < steps_before; ++i) trainer.step();
  Values before = values_of(trainer.weights());
  trainer.step();
  Values after = values_of(trainer.weights());
  for (size_t i = 0; i < after.size(); ++i)
    for (size_t e = 0; e < after[i].size(); ++e) {
      double u = static_cast<double>(before[i][e]) - after[i][e];
      after[i][e] = static_cast<float>(u / (1 - std::abs(u)));
    }
  return after;
}

double dot(const Values& a, const Values& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t e = 0; e < a[i].size(); ++e) sum += static_cast<double>(a[i][e]) * b[i][e];
  return sum;
}

}  // namespace

TEST_CASE("FGM's gradient is that of the loss here plus the loss up the embedding's gradient, by finite differences") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 1000));
  auto device = make_device("cpu", {.threads = 1});
  for (int64_t micro : {4, 2}) {
    TrainOptions options = fgm_options();
    options.micro_batch = micro;
    Values given = gradients_by_update(options, data, 0);

    ParameterSet weights("weights", options.config, Dtype::fp32), gradients("gradients", options.config, Dtype::fp32);
    weights.commit(*device), gradients.commit(*device);
    initialize(*device, weights, options.seed);
    Values start = values_of(weights);
    PassShape shape = options.pass_shape();
    shape.lanes = 4;
    Pass pass(*device, options.config, weights, &gradients, shape, Dtype::fp32);
    bool fresh = false;
    std::unique_ptr<Loader> loader = make_loader(options, data.train());
    Batch batch = loader->next(0, fresh);
    auto loss_at = [&](const Values& at) {
      put(weights, at);
      pass.reset_memory();
      return pass.forward(batch, {.scale = 1.0f / 28}, {}, 0, 0) / 28;
    };
    // r from the gradient of one plain pass
    loss_at(start);
    pass.backward();
    double norm = 0;
    const float* g = gradients.embedding.as<float>();
    for (int64_t e = 0; e < gradients.embedding.elements(); ++e) norm += static_cast<double>(g[e]) * g[e];
    std::vector<float> r(g, g + gradients.embedding.elements());
    for (float& x : r) x = static_cast<float>(0.5 * x / std::sqrt(norm));
    auto both = [&](Values at) {
      double plain = loss_at(at);
      for (size_t e = 0; e < r.size(); ++e) at[0][e] += r[e];
      return plain + loss_at(at);
    };
    // along the gradient itself, the embedding's part of it, and the rest
    for (int part : {0, 1, 2}) {
      Values direction = given;
      for (size_t i = 0; i < direction.size(); ++i)
        if ((part == 1 && i > 0) || (part == 2 && i == 0)) std::fill(direction[i].begin(), direction[i].end(), 0.0f);
      double length = std::sqrt(dot(direction, direction)), h = 2e-2;
      Values up = start, down = start;
      for (size_t i = 0; i < up.size(); ++i)
        for (size_t e = 0; e < up[i].size(); ++e) {
          up[i][e] += static_cast<float>(h * direction[i][e] / length);
          down[i][e] -= static_cast<float>(h * direction[i][e] / length);
        }
      double slope = (both(up) - both(down)) / (2 * h);
      CHECK(slope == doctest::Approx(dot(given, direction) / length).epsilon(2e-3));
    }
  }
}

TEST_CASE("FGM leaves the embedding and the memory as one plain pass does") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 1000));
  auto device = make_device("cpu", {.threads = 1});
  for (int64_t micro : {4, 2}) {
    TrainOptions options = fgm_options();
    options.micro_batch = micro, options.freeze = "embedding.*,layers.*",
    options.dropout = {0.1f, 0.1f, 0.1f, 0.1f, 0.1f};
    Trainer with(*device, options, data, 0);
    options.fgm = 0;
    Trainer without(*device, options, data, 0);
    std::vector<float> before = values_of(with.weights())[0];
    for (int i = 0; i < 4; ++i) {
      with.step(), without.step();
      with.save_checkpoint(scratch / "with.safetensors", ""),
          without.save_checkpoint(scratch / "without.safetensors", "");
      SafetensorsFile a(scratch / "with.safetensors"), b(scratch / "without.safetensors");
      // Of what trains only the last normalisation differs, which no memory sees.
      for (const char* name : {"memory.0", "memory.1", "embedding.weight"}) {
        ConstTensor x = a.tensor(name), y = b.tensor(name);
        REQUIRE(x.bytes() == y.bytes());
        CHECK(std::memcmp(x.data(), y.data(), x.bytes()) == 0);
      }
      ConstTensor x = a.tensor("norm.weight"), y = b.tensor("norm.weight");
      CHECK(std::memcmp(x.data(), y.data(), x.bytes()) != 0);
    }
    CHECK(before == values_of(with.weights())[0]);
  }
}

TEST_CASE("adversarial training that is saved and restored ends in the same bits, and its memory is planned") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 230));
  auto device = make_device("cpu", {.threads = 1});
  for (int mode : {0, 1, 2}) {
    TrainOptions options = small_options();
    options.fgm = 0.5, options.dropout = {0.1f, 0.1f, 0.1f, 0.1f, 0.1f};
    if (mode == 1) options.micro_batch = 2, options.type = Dtype::bf16;
    if (mode == 2) options.config.lora_rank = 2, options.config.lora_sites = "q,up";
    int64_t embedding = options.config.vocab_size * options.config.d_model * dtype_bytes(options.type);
    CHECK(plan_memory(options, false).bytes("adversarial") >= embedding);
    Trainer through(*device, options, data, 0);
    for (int i = 0; i < 4; ++i) through.step();
    through.save_checkpoint(scratch / "middle.safetensors", "");
    for (int i = 0; i < 5; ++i) through.step();
    through.save_checkpoint(scratch / "through.safetensors", "");
    Trainer restored(*device, options, data, 0);
    restored.restore(SafetensorsFile(scratch / "middle.safetensors"));
    for (int i = 0; i < 5; ++i) restored.step();
    restored.save_checkpoint(scratch / "restored.safetensors", "");
    CHECK(read_bytes(scratch / "through.safetensors") == read_bytes(scratch / "restored.safetensors"));
  }
}
