// Adapters beside the decoder's weights: the numbers of merged weights, whoever stands beside a text.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "longhand/generate.h"
#include "longhand/quantize.h"

using namespace longhand;

namespace {

constexpr int64_t window = 13, length = 30;

ModelConfig small_model(NormPlacement norm = NormPlacement::pre) {
  ModelConfig config;
  config.vocab_size = 67, config.d_model = 24, config.n_layer = 2, config.n_head = 3, config.d_head = 8;
  config.d_ff = 40, config.mem_len = window, config.norm = norm, config.final_norm = norm == NormPlacement::pre;
  return config;
}

void fill(Device& device, const ParameterSet& set, uint64_t seed) {
  for (size_t p = 0; p < set.tensors().size(); ++p) {
    if (set.tensors()[p].empty()) continue;
    RandomStream random{seed, 0, RandomUse::initialization, static_cast<uint32_t>(p)};
    bool gain = set.list()[p].name.ends_with("norm.weight");
    std::vector<float> values(set.list()[p].shape.elements());
    for (size_t i = 0; i < values.size(); ++i) values[i] = (uniform(random.bits(i)) - 0.5f) * 0.6f + (gain ? 1 : 0);
    store_parameter(device, set, p, values);
  }
}

ParameterSet filled(Device& device, const ModelConfig& config, const WeightFormats& formats) {
  ParameterSet set("weights", config, formats);
  set.commit(device);
  fill(device, set, 7);
  return set;
}

// With B as it stands: alpha is the rank, so that the factor is 1.
Adapter adapter_of(Device& device, ModelConfig config, Dtype type, const std::string& sites, uint64_t seed,
                   int64_t bottleneck = 0) {
  config.lora_rank = 3, config.lora_alpha = 3, config.lora_sites = sites, config.adapter_width = bottleneck;
  Adapter adapter{
      config,
      ParameterSet("adapter", config, type, [](const std::string& name) { return is_lora(name) || is_adapter(name); }),
      {}};
  adapter.added.commit(device);
  fill(device, adapter.added, seed);
  return adapter;
}

std::vector<int32_t> some_tokens(uint64_t seed) {
  RandomStream random{seed, 0, RandomUse::shuffle, 0};
  std::vector<int32_t> tokens(length);
  for (int64_t i = 0; i < length; ++i) tokens[i] = static_cast<int32_t>(random.bits(i) % 67);
  return tokens;
}

// Logits of every token of each text, all texts side by side.
std::vector<std::vector<float>> logits_of(Device& device, Decoder& decoder,
                                          const std::vector<std::vector<int32_t>>& texts, int64_t piece) {
  std::vector<std::vector<float>> all(texts.size());
  int64_t vocabulary = decoder.config().vocab_size;
  for (int64_t at = 0; at < length; at += piece) {
    std::vector<Decoder::Input> inputs;
    for (size_t s = 0; s < texts.size(); ++s)
      inputs.push_back({static_cast<int32_t>(s), std::span(texts[s]).subspan(at, std::min(piece, length - at)), true});
    Tensor logits = decoder.forward(inputs);
    std::vector<float> rows(logits.elements());
    device.download(rows.data(), logits);
    int64_t each = std::min(piece, length - at) * vocabulary;
    for (size_t s = 0; s < texts.size(); ++s)
      all[s].insert(all[s].end(), rows.begin() + s * each, rows.begin() + (s + 1) * each);
  }
  return all;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i)
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]), norm += double(b[i]) * b[i];
  return std::sqrt(difference / norm);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

constexpr const char* every_site = "q,k,v,position,output,up,down";

}  // namespace

TEST_CASE("an adapter beside the weights gives the logits of merged weights") {
  auto device = make_device("cpu", {.threads = 2});
  for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post})
    for (const char* sites : {"q,v", "position", "up", every_site}) {
      ModelConfig config = small_model(norm);
      ParameterSet weights = filled(*device, config, {}), merged = filled(*device, config, {});
      Adapter first = adapter_of(*device, config, Dtype::fp32, sites, 11);
      Adapter second = adapter_of(*device, config, Dtype::fp32, "q,up,down", 12);
      for (const Adapter* adapter : {&first, &second}) merge_lora(*device, adapter->config, merged, adapter->added);
      DecoderShape shape{.window = window, .chunk = 8};
      Decoder beside(*device, config, weights, shape, {{&first, &second}}), plain(*device, config, merged, shape);
      beside.adapt(0, 0);
      std::vector<std::vector<int32_t>> text = {some_tokens(1)};
      CHECK_MESSAGE(
          relative_error(logits_of(*device, beside, text, 5)[0], logits_of(*device, plain, text, 5)[0]) < 1e-5,
          "sites ", sites);
    }
}

TEST_CASE("a bottleneck adapter beside the weights is the one that a model has itself") {
  auto device = make_device("cpu", {.threads = 2});
  ModelConfig config = small_model(), extended = config;
  extended.adapter_width = 6;
  Adapter adapter = adapter_of(*device, config, Dtype::fp32, "q", 11, 6);
  ParameterSet weights = filled(*device, config, {}), whole = filled(*device, extended, {});
  for (size_t i = 0; i < whole.list().size(); ++i) {
    const std::string& name = whole.list()[i].name;
    device->copy(whole.tensors()[i], is_adapter(name) ? adapter.added.tensor(name) : weights.tensor(name));
  }
  merge_lora(*device, adapter.config, whole, adapter.added);
  DecoderShape shape{.window = window, .chunk = 8};
  Decoder beside(*device, config, weights, shape, {{&adapter}}), plain(*device, extended, whole, shape);
  beside.adapt(0, 0);
  std::vector<std::vector<int32_t>> text = {some_tokens(1)};
  CHECK(relative_error(logits_of(*device, beside, text, 5)[0], logits_of(*device, plain, text, 5)[0]) < 1e-5);
}

TEST_CASE("texts under different adapters do not change each other by a bit, whatever holds the weights") {
  auto device = make_device("cpu", {.threads = 2});
  ModelConfig config = small_model();
  for (Dtype type : {Dtype::fp32, Dtype::bf16})
    for (bool integers : {false, true}) {
      WeightFormats formats{type, {}};
      if (integers) formats = quantized_formats(config, QuantizeOptions::of(WeightType::int8), type);
      ParameterSet weights = filled(*device, config, formats);
      Adapter a = adapter_of(*device, config, type, every_site, 11),
              b = adapter_of(*device, config, type, "q,v", 12, 6);
      std::vector<AdapterStack> stacks = {{&a}, {&b}, {&b, &a}};
      std::vector<std::vector<int32_t>> texts;
      for (uint64_t seed = 0; seed < 6; ++seed) texts.push_back(some_tokens(seed));
      const int32_t chosen[] = {0, Decoder::no_adapters, 1, 0, 2, Decoder::no_adapters};
      for (int64_t piece : {1, 4}) {
        Decoder together(*device, config, weights, {.sequences = 6, .window = window, .chunk = 24}, stacks);
        for (int32_t s = 0; s < 6; ++s) together.adapt(s, chosen[s]);
        auto rows = logits_of(*device, together, texts, piece);
        for (int32_t s = 0; s < 6; ++s) {
          std::vector<AdapterStack> own;
          if (chosen[s] != Decoder::no_adapters) own = {stacks[chosen[s]]};
          Decoder alone(*device, config, weights, {.window = window, .chunk = 8}, own);
          if (!own.empty()) alone.adapt(0, 0);
          CHECK_MESSAGE(same_bits(logits_of(*device, alone, {texts[s]}, 7)[0], rows[s]), "text ", s, " of ",
                        dtype_name(type), integers ? " integers" : "");
        }
        CHECK_FALSE(same_bits(rows[1], rows[0]));
      }
    }
}

TEST_CASE("a sequence keeps its adapters when it is reset, and gives them to its copies") {
  auto device = make_device("cpu", {.threads = 1});
  ModelConfig config = small_model();
  ParameterSet weights = filled(*device, config, {});
  Adapter adapter = adapter_of(*device, config, Dtype::fp32, "q,v", 11);
  Decoder decoder(*device, config, weights, {.sequences = 2, .window = window}, {{&adapter}});
  decoder.adapt(0, 0);
  std::vector<std::vector<int32_t>> text = {some_tokens(1)};
  std::vector<float> first = logits_of(*device, decoder, text, 30)[0];
  CHECK_THROWS_WITH_AS(decoder.adapt(0, Decoder::no_adapters), doctest::Contains("has begun"), Error);
  CHECK_THROWS_WITH_AS(decoder.adapt(1, 1), doctest::Contains("stack 1"), Error);
  decoder.reset(0);
  CHECK(same_bits(logits_of(*device, decoder, text, 30)[0], first));
  decoder.reset(0);
  decoder.copy(1, 0);
  decoder.reset(1);
  Decoder::Input input{1, text[0], true};
  std::vector<float> copied(first.size());
  device->download(copied.data(), decoder.forward({&input, 1}));
  CHECK(same_bits(copied, first));
}
