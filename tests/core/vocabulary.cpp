// New words: rows behind those of a model that is there, and training of these rows alone.
#include "longhand/vocabulary.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "longhand/generate.h"
#include "longhand/quantize.h"
#include "tests/core/example_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

const std::vector<std::vector<int32_t>> pieces = {{3, 4}, {7}, {1, 2, 49, 2}};

std::string write_model(Device& device, const Scratch& scratch, Dtype type) {
  ModelConfig config = small_model();
  config.d_model = 64, config.d_head = 32, config.output_bias = true;
  ParameterSet weights("weights", config, type);
  weights.commit(device);
  initialize(device, weights, 3);
  std::vector<float> bias(50);
  for (int i = 0; i < 50; ++i) bias[i] = static_cast<float>(i) / 64;
  for (size_t p = 0; p < weights.list().size(); ++p)
    if (weights.list()[p].name == "output.bias") store_parameter(device, weights, p, bias);
  std::vector<std::vector<char>> storage;
  std::vector<NamedTensor> tensors = host_tensors(device, weights, "", storage);
  std::string tokenizer = "tok", path = scratch / "model.safetensors";
  tensors.push_back({"tokenizer.model", ConstTensor(tokenizer.data(), Dtype::u8, {3})});
  write_safetensors(path, tensors, {{"longhand.kind", "weights"}, {"longhand.config", config.json()}});
  return path;
}

std::vector<float> logits_of(Device& device, const std::string& path) {
  LoadedModel model = load_model(device, path, Dtype::fp32);
  Decoder decoder(device, model.config, model.weights, {.sequences = 1, .window = 11, .chunk = 32});
  std::vector<int32_t> tokens(24);
  for (int32_t i = 0; i < 24; ++i) tokens[i] = i * 17 % 50;
  Tensor logits = decoder.forward(std::vector<Decoder::Input>{{0, tokens, true}});
  std::vector<float> rows(logits.elements());
  device.download(rows.data(), logits);
  return rows;
}

void check_logits(Device& device, const std::string& old_path, const std::string& new_path, bool exact_mean) {
  std::vector<float> before = logits_of(device, old_path), after = logits_of(device, new_path);
  REQUIRE(before.size() / 50 == after.size() / 53);
  for (size_t row = 0; row < before.size() / 50; ++row) {
    const float *old_row = &before[row * 50], *new_row = &after[row * 53];
    CHECK(std::memcmp(old_row, new_row, 50 * sizeof(float)) == 0);
    if (!exact_mean) continue;
    for (size_t w = 0; w < pieces.size(); ++w) {
      double mean = 0;
      for (int32_t piece : pieces[w]) mean += old_row[piece] / static_cast<double>(pieces[w].size());
      CHECK(new_row[50 + w] == doctest::Approx(mean).epsilon(1e-4));
    }
  }
}

}  // namespace

TEST_CASE("new words leave the logits of old ones as they are; their own are the mean of their pieces'") {
  auto device = make_device("cpu", {.threads = 1});
  for (Dtype type : {Dtype::fp32, Dtype::bf16}) {
    Scratch scratch;
    std::string old_path = write_model(*device, scratch, type), new_path = scratch / "new.safetensors";
    extend_vocabulary(SafetensorsFile(old_path), new_path, pieces, "more");
    SafetensorsFile before(old_path), after(new_path);
    CHECK(read_config(after).vocab_size == 53);
    CHECK(after.tensor("tokenizer.model").bytes() == 4);
    CHECK(after.tensor("embedding.weight").type() == type);
    ConstTensor qkv = after.tensor("layers.1.attention.qkv.weight");
    CHECK(std::memcmp(qkv.data(), before.tensor("layers.1.attention.qkv.weight").data(), qkv.bytes()) == 0);
    check_logits(*device, old_path, new_path, type == Dtype::fp32);
  }
}

TEST_CASE("a quantised model takes new words, and an output layer of its own too") {
  auto device = make_device("cpu", {.threads = 1});
  Scratch scratch;
  std::string path = write_model(*device, scratch, Dtype::fp32);
  for (WeightType type : {WeightType::int8, WeightType::int4, WeightType::fp16}) {
    CAPTURE(weight_type_name(type));
    QuantizeOptions options = QuantizeOptions::of(type);
    if (type == WeightType::int4) options.embedding = WeightType::int4;
    std::string old_path = scratch / "quantised.safetensors", new_path = scratch / "new.safetensors";
    quantize_model(*device, path, old_path, options);
    extend_vocabulary(SafetensorsFile(old_path), new_path, pieces, "more");
    check_logits(*device, old_path, new_path, false);
    SafetensorsFile before(old_path), after(new_path);
    CHECK(after.has("output.weight") == before.has("output.weight"));
    CHECK(after.metadata().at("longhand.quantization") == before.metadata().at("longhand.quantization"));
  }
}

TEST_CASE("what is no weights file, and an adaptive softmax, take no new words") {
  auto device = make_device("cpu", {.threads = 1});
  Scratch scratch;
  ModelConfig config = small_model();
  float zero[50 * 16] = {};
  std::vector<NamedTensor> tensors{{"embedding.weight", ConstTensor(zero, Dtype::fp32, {50, 16})}};
  std::string path = scratch / "model.safetensors", output = scratch / "new.safetensors";
  auto refuses = [&](const char* kind, const char* text) {
    write_safetensors(path, tensors, {{"longhand.kind", kind}, {"longhand.config", config.json()}});
    CHECK_THROWS_WITH_AS(extend_vocabulary(SafetensorsFile(path), output, pieces, ""), doctest::Contains(text), Error);
    CHECK_FALSE(std::filesystem::exists(output));
  };
  refuses("checkpoint", "of kind checkpoint");
  config.cutoffs = {20}, config.tail_widths = {8};
  refuses("weights", "adaptive softmax");
}

TEST_CASE("rows from the one named on are trained, those before keep their bits") {
  TokenFile data = example_file();
  auto device = make_device("cpu", {.threads = 1});
  for (Dtype type : {Dtype::fp32, Dtype::bf16}) {
    TrainOptions options = example_options();
    options.train_only = "embedding.weight[40:],norm.bias", options.type = type;
    CHECK(options.trained_elements({"embedding.weight", {50, 16}, true}) == 160);
    CHECK(options.trained_elements({"norm.bias", {16}, false}) == 16);
    CHECK(options.trained_elements({"norm.weight", {16}, false}) == 0);
    Trainer trainer(*device, options, data, 0);
    const Tensor& embedding = trainer.weights().tensor("embedding.weight");
    auto copy = [&] { return std::string(static_cast<const char*>(embedding.data()), embedding.bytes()); };
    std::string before = copy();
    for (int i = 0; i < 3; ++i) trainer.step();
    std::string after = copy();
    size_t frozen = before.size() / 50 * 40;
    CHECK(before.substr(0, frozen) == after.substr(0, frozen));
    CHECK(before.substr(frozen) != after.substr(frozen));
  }
  TrainOptions options = example_options();
  auto refuses = [&](const char* patterns, const char* text) {
    options.train_only = patterns;
    CHECK_THROWS_WITH_AS(options.resolve(0), doctest::Contains(text), UsageError);
  };
  refuses("embedding.weight[50:]", "it has 50 rows");
  refuses("embedding.weight[8", "rows are written as");
  refuses("embedding.weight[-1:]", "rows are written as");
  options.train_only = "", options.freeze = "embedding.weight[3:]";
  CHECK_THROWS_WITH_AS(options.resolve(0), doctest::Contains("--freeze"), UsageError);
}
