// The model against PyTorch: the formulas with autograd, and Hugging Face's Transfo-XL and XLNet. The fixtures and what
// is in them: scripts/goldens/fixture.py.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "longhand/generate.h"
#include "longhand/model.h"

using namespace longhand;

namespace {

// A model with an adaptive softmax is not trained: its golden has no gradients.
enum class Goldens { all, trained };

std::vector<std::string> goldens(Goldens which) {
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("tests/goldens")) {
    std::string name = entry.path().filename().string();
    if (which == Goldens::trained && entry.path().parent_path().filename() == "hf_transfo_xl_adaptive") continue;
    if (name == "golden.safetensors" || (name.starts_with("reference_") && name.ends_with(".safetensors")))
      paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

double relative_error(const float* have, const float* want, int64_t count) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < count; ++i) {
    difference += std::pow(static_cast<double>(have[i]) - want[i], 2);
    size += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(difference / size);
}

void log_softmax(float* row, int64_t count) {
  double sum = 0, largest = *std::max_element(row, row + count);
  for (int64_t i = 0; i < count; ++i) sum += std::exp(row[i] - largest);
  for (int64_t i = 0; i < count; ++i) row[i] = static_cast<float>(row[i] - largest - std::log(sum));
}

// A golden with the model that it is for, its weights loaded.
struct Golden {
  SafetensorsFile file;
  ModelConfig config = read_config(file);
  int64_t lanes = number("golden.lanes"), segment = number("golden.segment");
  std::unique_ptr<Device> device = make_device("cpu", {.threads = 2});
  ParameterSet weights{"weights", config, Dtype::fp32}, gradients{"gradients", config, Dtype::fp32};
  Pass pass;

  explicit Golden(const std::string& path)
      : file(path),
        pass(commit(), config, weights, &gradients,
             {.lanes = lanes, .segment = segment, .memory = config.mem_len, .training = config.cutoffs.empty()},
             Dtype::fp32) {}

  Device& commit() {
    weights.commit(*device), gradients.commit(*device);
    load_parameters(*device, weights, file);
    return *device;
  }
  int64_t number(const std::string& key) const { return std::stoll(file.metadata().at(key)); }
  float real(const std::string& key) const { return std::stof(file.metadata().at(key)); }

  // [T, B] of a tensor [10, T, B]; empty where the golden has none.
  ConstTensor step_of(const std::string& name, int64_t step) const {
    if (!file.has(name)) return {};
    return file.tensor(name).slice(0, step, 1).reshape({segment, lanes});
  }
  double forward(int64_t step, float scale) {
    Batch batch{.tokens = step_of("tokens", step),
                .targets = step_of("targets", step),
                .weights = {},
                .document_start = step_of("document_start", step),
                .segment_ids = step_of("segment_ids", step)};
    return pass.forward(batch, {.scale = scale}, {}, 0, static_cast<uint64_t>(step));
  }
};

std::vector<double> train(Golden& golden, float decay) {
  int64_t steps = golden.file.tensor("losses").size(0), targets = golden.segment * golden.lanes;
  ParameterSet m("m", golden.config, Dtype::fp32), v("v", golden.config, Dtype::fp32);
  m.commit(*golden.device), v.commit(*golden.device);
  std::vector<AdamWParameter> parameters;
  for (size_t p = 0; p < golden.weights.list().size(); ++p)
    parameters.push_back({.weight = golden.weights.tensors()[p],
                          .master = {},
                          .m = m.tensors()[p],
                          .v = v.tensors()[p],
                          .gradient = golden.gradients.tensors()[p],
                          .weight_decay = golden.weights.list()[p].matrix ? decay : 0.0f,
                          .index = static_cast<uint32_t>(p)});
  std::vector<double> losses;
  for (int64_t step = 0; step < steps; ++step) {
    for (const Tensor& gradient : golden.gradients.tensors()) golden.device->zero(gradient);
    losses.push_back(golden.forward(step, 1.0f / static_cast<float>(targets)) / static_cast<double>(targets));
    golden.pass.backward();
    golden.device->adamw({.parameters = parameters,
                          .learning_rate = golden.real("golden.rate"),
                          .step = step + 1,
                          .rounding = {.use = RandomUse::stochastic_rounding}});
  }
  return losses;
}

}  // namespace

TEST_CASE("logits of three segments with memory are PyTorch's to 1e-5") {
  CHECK(goldens(Goldens::all).size() == 15);
  for (const std::string& path : goldens(Goldens::all)) {
    CAPTURE(path);
    Golden golden(path);
    bool logprobs = golden.file.has("logprobs");
    ConstTensor want = golden.file.tensor(logprobs ? "logprobs" : "logits");
    int64_t rows = golden.segment * golden.lanes, vocabulary = golden.config.vocab_size;
    std::vector<float> logits(static_cast<size_t>(rows * vocabulary));
    Arena arena("logits");
    arena.take(Dtype::fp32, {rows, vocabulary});
    arena.commit(*golden.device);
    Tensor out = arena.take(Dtype::fp32, {rows, vocabulary});
    for (int64_t s = 0; s < want.size(0); ++s) {
      golden.forward(s, 1);
      golden.pass.logits(out, golden.pass.hidden().reshape({rows, golden.config.d_model}));
      golden.device->download(logits.data(), out);
      if (logprobs)
        for (int64_t row = 0; row < rows; ++row) log_softmax(logits.data() + row * vocabulary, vocabulary);
      CHECK(relative_error(logits.data(), want.as<float>() + s * rows * vocabulary, rows * vocabulary) <= 1e-5);
    }
  }
}

TEST_CASE("an adaptive softmax has Hugging Face's losses, and is not trained") {
  Golden golden("tests/goldens/hf_transfo_xl_adaptive/golden.safetensors");
  ConstTensor want = golden.file.tensor("logprobs"), targets = golden.file.tensor("targets");
  int64_t rows = golden.segment * golden.lanes, vocabulary = golden.config.vocab_size;
  for (int64_t s = 0; s < want.size(0); ++s) {
    golden.forward(s, 1);
    std::vector<float> losses(static_cast<size_t>(rows));
    golden.device->download(losses.data(), golden.pass.losses());
    for (int64_t row = 0; row < rows; ++row) {
      int32_t target = targets.as<int32_t>()[s * rows + row];
      CHECK(std::abs(losses[row] + want.as<float>()[(s * rows + row) * vocabulary + target]) <= 1e-5);
    }
  }
  CHECK_THROWS_WITH_AS(Pass(*golden.device, golden.config, golden.weights, &golden.gradients,
                            {.lanes = 1, .segment = 4, .memory = 0}, Dtype::fp32),
                       doctest::Contains("adaptive softmax"), UsageError);
}

TEST_CASE("the decoder gives an adaptive softmax's log-probabilities token by token") {
  Golden golden("tests/goldens/hf_transfo_xl_adaptive/golden.safetensors");
  ConstTensor want = golden.file.tensor("logprobs"), tokens = golden.file.tensor("tokens");
  int64_t lanes = golden.lanes, vocabulary = golden.config.vocab_size;
  Decoder decoder(*golden.device, golden.config, golden.weights, {.sequences = lanes, .chunk = 1});
  std::vector<float> logits(static_cast<size_t>(lanes * vocabulary));
  for (int64_t position = 0; position < want.size(0) * golden.segment; ++position) {
    std::vector<Decoder::Input> inputs;
    for (int64_t lane = 0; lane < lanes; ++lane)
      inputs.push_back({static_cast<int32_t>(lane), {tokens.as<int32_t>() + position * lanes + lane, 1}});
    golden.device->download(logits.data(), decoder.forward(inputs));
    for (int64_t lane = 0; lane < lanes; ++lane) log_softmax(logits.data() + lane * vocabulary, vocabulary);
    int64_t size = lanes * vocabulary;
    CHECK(relative_error(logits.data(), want.as<float>() + position * size, size) <= 1e-5);
  }
}

TEST_CASE("all gradients of three segments with memory are autograd's to 1e-4") {
  for (const std::string& path : goldens(Goldens::trained)) {
    CAPTURE(path);
    Golden golden(path);
    int64_t segments = golden.file.tensor(golden.file.has("logits") ? "logits" : "logprobs").size(0);
    for (int64_t s = 0; s < segments; ++s) {
      golden.forward(s, 1.0f / static_cast<float>(segments * golden.segment * golden.lanes));
      golden.pass.backward();
    }
    for (size_t p = 0; p < golden.gradients.list().size(); ++p) {
      const std::string& name = golden.gradients.list()[p].name;
      CAPTURE(name);
      ConstTensor want = golden.file.tensor("gradient." + name);
      std::vector<float> have(static_cast<size_t>(want.elements()));
      golden.device->download(have.data(), golden.gradients.tensors()[p]);
      CHECK(relative_error(have.data(), want.as<float>(), want.elements()) <= 1e-4);
    }
  }
}

TEST_CASE("ten AdamW steps, with and without weight decay, have PyTorch's losses to 1e-4") {
  for (const std::string& path : goldens(Goldens::trained)) {
    CAPTURE(path);
    for (const std::string name : {"losses", "losses_decay"}) {
      CAPTURE(name);
      Golden golden(path);
      std::vector<double> have = train(golden, name == "losses_decay" ? golden.real("golden.decay") : 0.0f);
      const double* want = reinterpret_cast<const double*>(golden.file.tensor(name).data());
      for (size_t step = 0; step < have.size(); ++step) {
        CAPTURE(step);
        CHECK(std::abs(have[step] - want[step]) <= 1e-4 * want[step]);
      }
    }
  }
}
