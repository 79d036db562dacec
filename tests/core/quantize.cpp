// Weights of fewer bits: files, what reads them, and the decoder on them.
#include "longhand/quantize.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>

#include "longhand/files.h"
#include "longhand/generate.h"
#include "longhand/model.h"
#include "tests/core/train_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

ModelConfig model_of(int64_t vocabulary = 50) {
  ModelConfig config = small_model();
  config.vocab_size = vocabulary, config.d_model = 64, config.d_head = 32, config.d_ff = 192;
  return config;
}

/// A weight file of drawn weights.
std::string write_model(Device& device, const Scratch& scratch, const ModelConfig& config, Dtype type = Dtype::fp32) {
  ParameterSet weights("weights", config, type);
  weights.commit(device);
  initialize(device, weights, 3);
  std::vector<std::vector<char>> storage;
  std::string path = scratch / "model.safetensors";
  write_safetensors(path, host_tensors(device, weights, "", storage),
                    {{"longhand.kind", "weights"}, {"longhand.config", config.json()}});
  return path;
}

std::vector<float> logits_of(Device& device, const LoadedModel& model, int64_t chunk, int64_t neighbours = 0) {
  constexpr int64_t length = 24;
  Decoder decoder(device, model.config, model.weights, {.sequences = neighbours + 1, .window = 11, .chunk = 32});
  std::vector<int32_t> tokens(length);
  for (int64_t i = 0; i < length; ++i) tokens[i] = static_cast<int32_t>(i * 17 % model.config.vocab_size);
  std::vector<float> all;
  for (int64_t at = 0; at < length; at += chunk) {
    std::vector<Decoder::Input> inputs{{0, std::span(tokens).subspan(at, std::min(chunk, length - at)), true}};
    for (int64_t n = 1; n <= neighbours; ++n)
      inputs.push_back({static_cast<int32_t>(n), std::span(tokens).subspan((at + n) % length, 1)});
    Tensor logits = decoder.forward(inputs);
    std::vector<float> rows(logits.elements());
    device.download(rows.data(), logits);
    int64_t own = std::min(chunk, length - at) * model.config.vocab_size;
    all.insert(all.end(), rows.begin(), rows.begin() + own);
  }
  return all;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i)
    difference += std::pow(double(a[i]) - b[i], 2), norm += std::pow(double(b[i]), 2);
  return std::sqrt(difference / norm);
}

/// The values that a quantised file stands for, as a file of fp32.
std::string dequantized(Device& device, const Scratch& scratch, const std::string& path) {
  SafetensorsFile file(path);
  ModelConfig config = read_config(file);
  ParameterSet wide("weights", config, Dtype::fp32);
  wide.commit(device);
  for (size_t p = 0; p < wide.list().size(); ++p) {
    const ParameterInfo& info = wide.list()[p];
    ConstTensor from = file.tensor(info.name);
    if (from.type() != Dtype::i8 && from.type() != Dtype::u8) {
      store_parameter(device, wide, p, read_floats(file, info.name));
      continue;
    }
    std::vector<float> scales = read_floats(file, info.name + ".scales"), values(info.shape.elements());
    int64_t width = info.shape[1], groups = static_cast<int64_t>(scales.size()) / info.shape[0];
    for (int64_t i = 0; i < info.shape.elements(); ++i) {
      int integer = from.type() == Dtype::i8
                        ? from.as<int8_t>()[i]
                        : (i % 2 ? from.as<uint8_t>()[i / 2] >> 4 : from.as<uint8_t>()[i / 2] & 15) - 8;
      values[i] = static_cast<float>(integer) * scales[i / width * groups + i % width * groups / width];
    }
    store_parameter(device, wide, p, values);
  }
  std::vector<std::vector<char>> storage;
  std::string wide_path = scratch / "wide.safetensors";
  write_safetensors(wide_path, host_tensors(device, wide, "", storage), {{"longhand.config", config.json()}});
  return wide_path;
}

/// A copy of a file in which `change` has altered tensors or metadata.
struct Parts {
  std::map<std::string, ConstTensor> tensors;
  std::map<std::string, std::string> metadata;
};
std::string altered(const Scratch& scratch, const std::string& path, const std::function<void(Parts&)>& change) {
  SafetensorsFile file(path);
  Parts parts{{}, file.metadata()};
  for (const std::string& name : file.names()) parts.tensors[name] = file.tensor(name);
  change(parts);
  std::vector<NamedTensor> list;
  for (const auto& [name, tensor] : parts.tensors) list.push_back({name, tensor});
  std::string copy = scratch / "altered.safetensors";
  write_safetensors(copy, list, parts.metadata);
  return copy;
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

const WeightType all_types[] = {WeightType::fp32, WeightType::bf16, WeightType::fp16, WeightType::int8,
                                WeightType::int4};

}  // namespace

TEST_CASE("a quantised model gives the logits of the values that its file stands for") {
  auto device = make_device("cpu", {.threads = 2});
  Scratch scratch;
  std::string path = write_model(*device, scratch, model_of()), small = scratch / "small.safetensors";
  for (WeightType type : all_types)
    for (bool grouped : {false, true}) {
      QuantizeOptions options = QuantizeOptions::of(type);
      options.grouped = grouped;
      CAPTURE(options.json());
      quantize_model(*device, path, small, options);
      std::vector<float> got = logits_of(*device, load_model(*device, small, Dtype::fp32), 1);
      LoadedModel wide = load_model(*device, dequantized(*device, scratch, small), Dtype::fp32);
      CHECK(relative_error(got, logits_of(*device, wide, 1)) < 1e-4);
    }
}

TEST_CASE("on quantised weights a text's bits depend neither on its neighbours nor on how it is cut into calls") {
  auto device = make_device("cpu", {.threads = 2});
  Scratch scratch;
  ModelConfig config = model_of();
  config.d_ff = 512;  // rows of whole vectors, which may lie interleaved, as well as others
  std::string path = write_model(*device, scratch, config), small = scratch / "small.safetensors";
  for (WeightType type : all_types)
    for (Dtype activations : {Dtype::fp32, Dtype::bf16}) {
      CAPTURE(weight_type_name(type));
      quantize_model(*device, path, small, QuantizeOptions::of(type));
      LoadedModel model = load_model(*device, small, activations);
      std::vector<float> one = logits_of(*device, model, 1);
      auto check = [&] {
        for (int64_t chunk : {1, 2, 5, 24})
          for (int64_t neighbours : {0, 1, 7}) {
            std::vector<float> other = logits_of(*device, model, chunk, neighbours);
            CHECK(std::memcmp(one.data(), other.data(), one.size() * sizeof(float)) == 0);
          }
      };
      check();
      model.weights.interleave(*device);
      check();
      CHECK(model.weights.layers[0].down.rank() == 4);
      if (model.weights.quantize_activations() > 0) {
        CHECK(type == WeightType::int8);
        std::vector<float> rounded = logits_of(*device, model, 1);
        double error = relative_error(rounded, one);
        CHECK(error > 1e-4);
        CHECK(error < 0.05);
        one = std::move(rounded);
        check();
      }
      for (size_t i = 0; i < model.weights.list().size(); ++i)
        if (model.weights.tensors()[i].rank() == 4)
          CHECK_THROWS_AS(store_parameter(*device, model.weights, i, {}), Error);
    }
}

TEST_CASE("a pass scores quantised weights as the decoder does") {
  auto device = make_device("cpu", {.threads = 1});
  Scratch scratch;
  ModelConfig config = model_of();
  config.same_length = true;
  std::string path = write_model(*device, scratch, config), small = scratch / "small.safetensors";
  quantize_model(*device, path, small, QuantizeOptions::of(WeightType::int4));
  LoadedModel model = load_model(*device, small, Dtype::fp32);
  std::vector<float> expected = logits_of(*device, model, 24);
  model.weights.interleave(*device);
  constexpr int64_t length = 24;
  Pass pass(*device, config, model.weights, nullptr, {.lanes = 1, .segment = length, .training = false}, Dtype::fp32);
  std::vector<int32_t> tokens(length);
  for (int64_t i = 0; i < length; ++i) tokens[i] = static_cast<int32_t>(i * 17 % config.vocab_size);
  Batch batch;
  batch.tokens = ConstTensor(tokens.data(), Dtype::i32, {length, 1});
  pass.forward(batch, {}, {}, 0, 0);
  std::vector<float> logits(length * config.vocab_size);
  pass.logits(Tensor(logits.data(), Dtype::fp32, {length, config.vocab_size}),
              pass.hidden().reshape({length, config.d_model}));
  CHECK(relative_error(logits, expected) < 1e-4);
}

TEST_CASE("the embedding and the output layer are chosen separately") {
  auto device = make_device("cpu", {.threads = 1});
  Scratch scratch;
  std::string path = write_model(*device, scratch, model_of()), small = scratch / "small.safetensors";
  QuantizeOptions options = QuantizeOptions::of(WeightType::int4);
  options.embedding = WeightType::bf16;
  quantize_model(*device, path, small, options);
  SafetensorsFile file(small);
  CHECK(file.tensor("embedding.weight").type() == Dtype::bf16);
  CHECK(file.tensor("output.weight").type() == Dtype::i8);
  CHECK(file.tensor("layers.1.feedforward.down.weight").type() == Dtype::u8);
  CHECK(file.tensor("layers.1.feedforward.down.weight").shape() == Shape{64, 96});
  CHECK(file.tensor("layers.1.feedforward.down.weight.scales").type() == Dtype::fp16);
  CHECK(file.tensor("layers.1.feedforward.down.bias").type() == Dtype::fp32);
  CHECK(file.metadata().at("longhand.quantization") ==
        R"({"type":"int4","group":"64","embedding":"bf16","output_layer":"int8"})");
  LoadedModel model = load_model(*device, small, Dtype::fp32);
  CHECK(logits_of(*device, model, 3) == logits_of(*device, model, 8));
}

TEST_CASE("matrices too narrow for groups have a scale a row, odd ones of int4 become int8") {
  ModelConfig config = small_model();
  config.d_ff = 23;
  QuantizeOptions options = QuantizeOptions::of(WeightType::int4);
  WeightFormats formats = quantized_formats(config, options, Dtype::fp32);
  CHECK(formats.matrices.at("layers.0.attention.qkv.weight").type == Dtype::u8);
  CHECK_FALSE(formats.matrices.at("layers.0.attention.qkv.weight").grouped);
  CHECK(formats.matrices.at("layers.0.feedforward.down.weight").type == Dtype::i8);
  CHECK_FALSE(formats.matrices.contains("layers.0.attention.norm.weight"));
}

TEST_CASE("broken quantised files are refused with the tensor and what it should be") {
  auto device = make_device("cpu", {.threads = 1});
  Scratch scratch;
  std::string path = write_model(*device, scratch, model_of()), small = scratch / "small.safetensors";
  quantize_model(*device, path, small, QuantizeOptions::of(WeightType::int8));
  const std::string matrix = "layers.0.attention.output.weight", scales = matrix + ".scales";
  std::vector<float> values(4096, 1);
  std::vector<int8_t> bytes(64 * 64);
  auto refused = [&](const std::function<void(Parts&)>& change, const char* text) {
    std::string copy = altered(scratch, small, change);
    std::string message = message_of([&] { load_model(*device, copy, Dtype::fp32); });
    CAPTURE(message);
    CHECK(message.find(text) != std::string::npos);
    CHECK(message.find('\n') == std::string::npos);
  };
  refused([&](Parts& p) { p.tensors.erase(scales); }, "there is no layers.0.attention.output.weight.scales");
  refused([&](Parts& p) { p.tensors[scales] = ConstTensor(values.data(), Dtype::fp32, {63}); }, "does not fit");
  refused([&](Parts& p) { p.tensors[scales] = ConstTensor(values.data(), Dtype::fp32, {64, 1}); }, "does not fit");
  refused([&](Parts& p) { p.tensors[scales] = ConstTensor(values.data(), Dtype::i32, {64}); }, "does not fit");
  refused([&](Parts& p) { p.tensors[matrix] = ConstTensor(bytes.data(), Dtype::i8, {64, 63}); }, "needs integers for");
  refused([&](Parts& p) { p.tensors[matrix] = ConstTensor(bytes.data(), Dtype::u8, {64, 64}); }, "needs integers for");
  refused([&](Parts& p) { p.tensors[matrix] = ConstTensor(bytes.data(), Dtype::i16, {64, 32}); }, "is i16");
  refused([&](Parts& p) { p.tensors["layers.0.attention.norm.weight"] = ConstTensor(bytes.data(), Dtype::i8, {64}); },
          "is i8");
  values[7] = std::nanf("");
  refused([&](Parts& p) { p.tensors[scales] = ConstTensor(values.data(), Dtype::fp32, {64}); }, "nan at 7");
  values[7] = -1;
  refused([&](Parts& p) { p.tensors[scales] = ConstTensor(values.data(), Dtype::fp32, {64}); }, "-1 at 7");
}

TEST_CASE("what cannot be quantised is refused and leaves the output as it was") {
  auto device = make_device("cpu", {.threads = 1});
  Scratch scratch;
  std::string path = write_model(*device, scratch, model_of()), small = scratch / "small.safetensors";
  auto quantize = [&](const std::string& from, WeightType type) {
    return message_of([&] { quantize_model(*device, from, small, QuantizeOptions::of(type)); });
  };
  CHECK(quantize(path, WeightType::int8).empty());
  std::string before = read_bytes(small);
  CHECK(quantize(small, WeightType::int4).find("is quantised already") != std::string::npos);
  std::vector<float> values(64 * 64, 0.1f);
  auto with = [&](float value) {
    values[100] = value;
    return altered(scratch, path, [&](Parts& p) {
      p.tensors["layers.1.attention.output.weight"] = ConstTensor(values.data(), Dtype::fp32, {64, 64});
    });
  };
  CHECK(quantize(with(7e4f), WeightType::fp16).find("70000 at 100: more than fp16 can hold") != std::string::npos);
  CHECK(quantize(with(std::nanf("")), WeightType::int8).find("nan at 100") != std::string::npos);
  CHECK(quantize(with(HUGE_VALF), WeightType::bf16).find("inf at 100") != std::string::npos);
  std::string missing = altered(scratch, path, [](Parts& p) { p.tensors.erase("layers.1.attention.qkv.weight"); });
  CHECK(quantize(missing, WeightType::int8).find("layers.1.attention.qkv.weight") != std::string::npos);
  CHECK(read_bytes(small) == before);
}

TEST_CASE("training from quantised weights is refused") {
  auto device = make_device("cpu", {.threads = 1});
  Scratch scratch;
  std::string path = write_model(*device, scratch, model_of()), small = scratch / "small.safetensors";
  for (WeightType type : {WeightType::int8, WeightType::int4}) {
    quantize_model(*device, path, small, QuantizeOptions::of(type));
    SafetensorsFile file(small);
    ParameterSet weights("weights", read_config(file), Dtype::fp32);
    weights.commit(*device);
    std::string message = message_of([&] { load_parameters(*device, weights, file); });
    CHECK(message.find("quantised weights are read, not trained, merged or exported") != std::string::npos);
  }
  LoadedModel model = load_model(*device, small, Dtype::fp32);
  ParameterSet gradients("gradients", model.config, Dtype::fp32);
  CHECK_THROWS_AS(
      Pass(*device, model.config, model.weights, &gradients, {.lanes = 1, .segment = 4, .training = true}, Dtype::fp32),
      Error);
}

namespace {

std::vector<int32_t> some_text(int64_t length, int64_t vocabulary) {
  std::vector<int32_t> text(length);
  for (int64_t i = 0; i < length; ++i) text[i] = static_cast<int32_t>((i * 17 + i / 7) % vocabulary);
  return text;
}

/// Weights whose activations differ between channels, as trained ones' do.
std::string write_uneven_model(Device& device, const Scratch& scratch, const ModelConfig& config) {
  std::string path = write_model(device, scratch, config);
  SafetensorsFile file(path);
  ParameterSet weights("weights", config, Dtype::fp32);
  weights.commit(device);
  for (size_t p = 0; p < weights.list().size(); ++p) {
    std::vector<float> values = read_floats(file, weights.list()[p].name);
    bool norm = weights.list()[p].name.find("norm") != std::string::npos;
    for (size_t i = 0; norm && i < values.size(); i += 9) values[i] *= 8;
    store_parameter(device, weights, p, values);
  }
  std::vector<std::vector<char>> storage;
  std::string uneven = scratch / "uneven.safetensors";
  write_safetensors(uneven, host_tensors(device, weights, "", storage),
                    {{"longhand.kind", "weights"}, {"longhand.config", config.json()}});
  return uneven;
}

}  // namespace

TEST_CASE("factors of input channels that are folded away leave the logits as they were") {
  auto device = make_device("cpu", {.threads = 2});
  Scratch scratch;
  for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post}) {
    ModelConfig config = model_of();
    config.norm = norm, config.final_norm = norm == NormPlacement::pre;
    SafetensorsFile file(write_model(*device, scratch, config));
    LoadedModel model = load_model(*device, file.path(), Dtype::fp32);
    std::vector<float> before = logits_of(*device, model, 24);
    WeightValues values;
    for (const ParameterInfo& info : model.weights.list()) values[info.name] = read_floats(file, info.name);
    auto factors = [](int64_t count) {
      std::vector<float> s(count);
      for (int64_t i = 0; i < count; ++i) s[i] = 0.25f + static_cast<float>(i * 7 % 16) / 4;
      return s;
    };
    for (int64_t l = 0; l < config.n_layer; ++l) {
      ChannelFactors all{.output = factors(config.n_head * config.d_head)};
      if (norm == NormPlacement::pre) all.qkv = all.up = factors(config.d_model);
      fold_factors(config, l, all, values);
    }
    for (size_t i = 0; i < model.weights.list().size(); ++i)
      store_parameter(*device, model.weights, i, values[model.weights.list()[i].name]);
    CHECK(relative_error(logits_of(*device, model, 24), before) < 1e-5);
  }
}

TEST_CASE("calibration brings integers closer to the logits, the same bits in every run and for every thread count") {
  Scratch scratch;
  auto device = make_device("cpu", {.threads = 2}), alone = make_device("cpu", {.threads = 1});
  std::string path = write_uneven_model(*device, scratch, model_of());
  std::vector<float> exact = logits_of(*device, load_model(*device, path, Dtype::fp32), 24);
  for (WeightType type : {WeightType::int8, WeightType::int4})
    for (bool grouped : {false, true}) {
      QuantizeOptions options = QuantizeOptions::of(type);
      options.grouped = grouped, options.embedding = options.output = WeightType::fp32;
      CAPTURE(options.json());
      std::string plain = scratch / "plain.safetensors", fitted = scratch / "fitted.safetensors";
      CHECK(quantize_model(*device, path, plain, options).empty());
      options.calibration = some_text(600, 50);
      std::vector<MatrixFit> fits = quantize_model(*device, path, fitted, options);
      CHECK(fits.size() == 4 * model_of().n_layer);
      for (const MatrixFit& fit : fits) CHECK(fit.error_after <= fit.error_before * 1.0001);
      double before = relative_error(logits_of(*device, load_model(*device, plain, Dtype::fp32), 24), exact);
      double after = relative_error(logits_of(*device, load_model(*device, fitted, Dtype::fp32), 24), exact);
      CHECK(after < before);
      std::string again = scratch / "again.safetensors";
      quantize_model(*alone, path, again, options);
      CHECK(read_file(again) == read_file(fitted));
    }
}

TEST_CASE("calibration refuses what it cannot read") {
  auto device = make_device("cpu", {.threads = 1});
  Scratch scratch;
  std::string path = write_model(*device, scratch, model_of()), small = scratch / "small.safetensors";
  QuantizeOptions options = QuantizeOptions::of(WeightType::int4);
  options.calibration = some_text(15, 50);
  CHECK(message_of([&] { quantize_model(*device, path, small, options); }).find("15 tokens") != std::string::npos);
  options.calibration = some_text(40, 60);
  CHECK(message_of([&] { quantize_model(*device, path, small, options); }).find("token 5") != std::string::npos);
  CHECK(!std::filesystem::exists(small));
}
