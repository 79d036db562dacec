// Adapter files beside weights: what they do to a model, how several go together, and what is refused.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "longhand/generate.h"
#include "longhand/quantize.h"
#include "src/train/validate.h"
#include "tests/core/example_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

/// Weights, and adapter files that were trained for them.
struct Files {
  Scratch scratch;
  TokenFile data = example_file(2);
  std::unique_ptr<Device> device = make_device("cpu", {.threads = 1});
  std::string base = scratch / "base.safetensors";

  Files() { Trainer(*device, example_options(), data, 0).save_weights(base, ""); }

  /// An adapter file of a few steps, and the validation loss of the run that made it.
  std::string train(const std::string& name, TrainOptions options, double* nats = nullptr) {
    options.learning_rate = 3e-2;
    options.resolve(0);
    Trainer trainer(*device, options, data, 1 << 20);
    trainer.load_weights(SafetensorsFile(base));
    for (int i = 0; i < 12; ++i) trainer.step();
    if (nats) *nats = trainer.validate()[0].nats;
    trainer.save_weights(scratch / name, "");
    return scratch / name;
  }
  LoadedModel load(const std::vector<std::string>& adapters, const std::string& weights = "") {
    return load_model(*device, weights.empty() ? base : weights, Dtype::fp32, adapters);
  }
  /// What `longhand merge` writes.
  std::string merge(const std::vector<std::string>& adapters) {
    LoadedModel model = load(adapters);
    std::vector<std::vector<char>> storage;
    std::string path = scratch / "merged.safetensors";
    write_safetensors(path, host_tensors(*device, model.weights, "", storage),
                      {{"longhand.kind", "weights"}, {"longhand.config", model.config.json()}});
    return path;
  }
  std::vector<float> logits(const LoadedModel& model) {
    std::vector<int32_t> tokens{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
    Decoder decoder(*device, model.config, model.weights, {.window = 11, .chunk = 16});
    Decoder::Input input{0, tokens, true};
    Tensor rows = decoder.forward({&input, 1});
    std::vector<float> values(rows.elements());
    device->download(values.data(), rows);
    return values;
  }
};

TrainOptions with_adapters(int64_t width, const char* sites = "") {
  TrainOptions options = example_options();
  options.config.adapter_width = width, options.config.adapter_sites = sites;
  return options;
}

TrainOptions with_lora(const char* sites) {
  TrainOptions options = example_options();
  options.config.lora_rank = 2, options.config.lora_sites = sites;
  return options;
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  return largest;
}

}  // namespace

TEST_CASE("an adapter file holds the adapters alone, and the model that it makes is the one that was trained") {
  Files files;
  double nats = 0;
  for (const TrainOptions& options : {with_adapters(4), with_adapters(3, "feedforward"), with_lora("q,up,down")}) {
    std::string adapter = files.train("adapter.safetensors", options, &nats);
    for (const std::string& name : SafetensorsFile(adapter).names()) CHECK((is_adapter(name) || is_lora(name)));
    LoadedModel model = files.load({adapter});
    CHECK(model.config == options.config.without_lora());
    TrainOptions as_loaded = options;
    as_loaded.config = model.config;
    Validator validator(*files.device, as_loaded, model.weights, 1 << 20);
    CHECK(validator.run(files.data.validation())[0].nats == doctest::Approx(nats).epsilon(1e-5));
    CHECK(distance(files.logits(model), files.logits(files.load({}))) > 0.01);
    CHECK(distance(files.logits(model), files.logits(files.load({}, files.merge({adapter})))) == 0);
  }
}

TEST_CASE("low-rank updates and adapters go together, in one file or in several and in any order") {
  Files files;
  TrainOptions both = with_adapters(4);
  both.config.lora_rank = 2, both.config.lora_sites = "q,up";
  std::string narrow = files.train("narrow.safetensors", with_adapters(4)),
              low = files.train("low.safetensors", with_lora("q,v"));
  std::vector<float> plain = files.logits(files.load({}));
  std::vector<float> stacked = files.logits(files.load({narrow, low}));
  CHECK(distance(stacked, files.logits(files.load({low, narrow}))) == 0);
  CHECK(distance(stacked, files.logits(files.load({low}))) > 0.01);
  CHECK(distance(stacked, files.logits(files.load({narrow}))) > 0.01);
  std::string merged = files.merge({narrow, low});
  CHECK(distance(stacked, files.logits(files.load({}, merged))) == 0);
  std::string one = files.train("both.safetensors", both);
  CHECK(distance(plain, files.logits(files.load({one}))) > 0.01);
}

TEST_CASE("adapter files that do not go together or belong elsewhere are refused") {
  Files files;
  std::string four = files.train("four.safetensors", with_adapters(4)),
              three = files.train("three.safetensors", with_adapters(3));
  CHECK_THROWS_WITH_AS(files.load({four, three}), doctest::Contains("both hold bottleneck adapters"), Error);
  std::string merged = files.merge({four});
  CHECK_THROWS_WITH_AS(files.load({three}, merged), doctest::Contains("adapters of another form"), Error);
  CHECK(distance(files.logits(files.load({four}, merged)), files.logits(files.load({}, merged))) == 0);
  TrainOptions others = example_options();
  others.seed = 99;
  Trainer(*files.device, others, files.data, 0).save_weights(files.base, "");
  CHECK_THROWS_WITH_AS(files.load({four}), doctest::Contains("made for other weights"), Error);
}

TEST_CASE("a model with adapters is quantised, its adapters as they are") {
  Files files;
  std::string merged = files.merge({files.train("four.safetensors", with_adapters(4))});
  std::string small = files.scratch / "int8.safetensors";
  quantize_model(*files.device, merged, small, QuantizeOptions::of(WeightType::int8));
  CHECK(SafetensorsFile(small).tensor("layers.0.attention.adapter.down.weight").type() == Dtype::fp32);
  std::vector<float> whole = files.logits(files.load({}, merged)), few = files.logits(files.load({}, small));
  CHECK(distance(whole, few) > 0);
  CHECK(distance(whole, few) < 0.1);
}
