// The decoder against the pass: the same numbers, however the text is cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "longhand/generate.h"
#include "longhand/model.h"

using namespace longhand;

namespace {

constexpr int64_t window = 13, length = 3 * window;

ModelConfig small_model() {
  ModelConfig config;
  config.vocab_size = 67, config.d_model = 24, config.n_layer = 3, config.n_head = 3, config.d_head = 8;
  config.d_ff = 40, config.mem_len = window, config.same_length = true;
  return config;
}

ModelConfig post_norm_model() {
  ModelConfig config = small_model();
  config.norm = NormPlacement::post, config.final_norm = false, config.activation = Activation::relu;
  config.output_bias = true, config.scale_embedding = false;
  return config;
}

// Weights large enough that attention is far from uniform and greedy tokens differ from row to row.
ParameterSet weights_of(Device& device, const ModelConfig& config, Dtype type = Dtype::fp32) {
  ParameterSet weights("weights", config, type);
  weights.commit(device);
  for (size_t p = 0; p < weights.tensors().size(); ++p) {
    const Tensor& tensor = weights.tensors()[p];
    RandomStream random{7, 0, RandomUse::initialization, static_cast<uint32_t>(p)};
    bool gain = tensor.rank() == 1 && weights.list()[p].name.ends_with("norm.weight");
    std::vector<float> wide(tensor.elements());
    std::vector<bf16> narrow(tensor.elements());
    for (size_t i = 0; i < wide.size(); ++i) {
      wide[i] = (uniform(random.bits(i)) - 0.5f) * 0.6f + (gain ? 1.0f : 0.0f);
      narrow[i] = bf16(wide[i]);
    }
    device.upload(tensor, type == Dtype::fp32 ? static_cast<const void*>(wide.data()) : narrow.data());
  }
  return weights;
}

std::vector<int32_t> some_tokens(int64_t count, int64_t vocabulary, uint64_t seed = 3) {
  RandomStream random{seed, 0, RandomUse::shuffle, 0};
  std::vector<int32_t> tokens(count);
  for (int64_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(random.bits(i) % vocabulary);
  return tokens;
}

std::vector<float> host(Device& device, const ConstTensor& tensor) {
  std::vector<float> values(tensor.elements());
  device.download(values.data(), tensor);
  return values;
}

// Logits [length, V] of one pass over the whole text: same_length with mem_len = W masks to 0 <= d <= W - 1.
std::vector<float> whole_pass(Device& device, const ModelConfig& config, const ParameterSet& weights,
                              const std::vector<int32_t>& tokens) {
  int64_t count = static_cast<int64_t>(tokens.size());
  Pass pass(device, config, weights, nullptr, {.lanes = 1, .segment = count, .memory = 0, .training = false},
            Dtype::fp32);
  std::vector<int32_t> targets(count, -1);
  std::vector<uint8_t> segments(count, 0);
  Batch batch;
  batch.tokens = ConstTensor(tokens.data(), Dtype::i32, {count, 1});
  batch.targets = ConstTensor(targets.data(), Dtype::i32, {count, 1});
  if (config.segments) batch.segment_ids = ConstTensor(segments.data(), Dtype::u8, {count, 1});
  pass.forward(batch, {}, {}, 0, 0);
  Arena arena("logits");
  arena.take(Dtype::fp32, {count, config.vocab_size});
  arena.commit(device);
  Tensor logits = arena.take(Dtype::fp32, {count, config.vocab_size});
  pass.logits(logits, pass.hidden().reshape({count, config.d_model}));
  return host(device, logits);
}

// Logits of all tokens, decoded in calls of `chunk` tokens.
std::vector<float> decoded(Device& device, Decoder& decoder, const std::vector<int32_t>& tokens, int64_t chunk,
                           int32_t sequence = 0) {
  std::vector<float> all;
  std::span<const int32_t> text = tokens;
  for (size_t at = 0; at < text.size(); at += chunk) {
    Decoder::Input input{sequence, text.subspan(at, std::min<size_t>(chunk, text.size() - at)), true};
    std::vector<float> rows = host(device, decoder.forward({&input, 1}));
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += (double(a[i]) - b[i]) * (double(a[i]) - b[i]);
    norm += double(b[i]) * b[i];
  }
  return std::sqrt(difference / norm);
}

std::vector<int64_t> greedy(const std::vector<float>& logits, int64_t vocabulary) {
  std::vector<int64_t> tokens;
  for (auto row = logits.begin(); row < logits.end(); row += vocabulary)
    tokens.push_back(std::max_element(row, row + vocabulary) - row);
  return tokens;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_against_pass(const ModelConfig& config) {
  auto device = make_device("cpu", {.threads = 2});
  ParameterSet weights = weights_of(*device, config);
  std::vector<int32_t> tokens = some_tokens(length, config.vocab_size);
  std::vector<float> expected = whole_pass(*device, config, weights, tokens);
  Decoder decoder(*device, config, weights, {.window = window, .chunk = 16});
  std::vector<float> got = decoded(*device, decoder, tokens, 1);
  REQUIRE(got.size() == expected.size());
  CHECK(relative_error(got, expected) < 1e-4);
  CHECK(greedy(got, config.vocab_size) == greedy(expected, config.vocab_size));
}

}  // namespace

TEST_CASE("decoding with a ring of W keys over 3 W tokens equals one masked pass") {
  ModelConfig config = small_model();
  SUBCASE("pre-norm") {}
  SUBCASE("post-norm, relu, output bias, unscaled embedding") { config = post_norm_model(); }
  SUBCASE("clamped distances") { config.clamp_len = 5; }
  SUBCASE("top-k") { config.topk = 4; }
  SUBCASE("segment term: one segment cancels") { config.segments = true; }
  SUBCASE("adapters") { config.adapter_width = 6; }
  SUBCASE("an adapter behind attention, post-norm") {
    config = post_norm_model();
    config.adapter_width = 6, config.adapter_sites = "attention";
  }
  check_against_pass(config);
}

TEST_CASE("how a text is cut into calls does not change a bit") {
  auto device = make_device("cpu", {.threads = 2});
  for (Dtype type : {Dtype::fp32, Dtype::bf16})
    for (ModelConfig config : {small_model(), post_norm_model()}) {
      config.adapter_width = 6;
      ParameterSet weights = weights_of(*device, config, type);
      std::vector<int32_t> tokens = some_tokens(length, config.vocab_size);
      Decoder decoder(*device, config, weights, {.window = window, .chunk = 32});
      std::vector<float> one = decoded(*device, decoder, tokens, 1);
      for (int64_t chunk : {2, 7, 16, 32}) {
        decoder.reset(0);
        CHECK_MESSAGE(same_bits(decoded(*device, decoder, tokens, chunk), one), "chunk ", chunk, " in ",
                      dtype_name(type));
      }
    }
}

TEST_CASE("rings of fewer bits, top-k and pages: no bit depends on the cut, and pages without end are dense") {
  auto device = make_device("cpu", {.threads = 2});
  ModelConfig config = small_model();
  config.same_length = false;
  ParameterSet weights = weights_of(*device, config);
  std::vector<int32_t> tokens = some_tokens(500, config.vocab_size);
  auto shape = [](Dtype ring, KeyChoice choice) {
    return DecoderShape{.window = 280, .chunk = 64, .ring = ring, .choice = choice};
  };
  Decoder dense(*device, config, weights, shape(Dtype::fp32, {}));
  std::vector<float> expected = decoded(*device, dense, tokens, 1);
  struct Line {
    Dtype ring;
    KeyChoice choice;
    double error;
  };
  for (const Line& line :
       {Line{Dtype::fp32, {64 * 6, TopkMode::block}, 1e-5}, Line{Dtype::bf16, {}, 0.01}, Line{Dtype::i8, {}, 0.03},
        Line{Dtype::i8, {5, TopkMode::exact}, 1}, Line{Dtype::i8, {64 * 3, TopkMode::block}, 1},
        Line{Dtype::fp32, {64 * 3, TopkMode::block}, 1}}) {
    Decoder decoder(*device, config, weights, shape(line.ring, line.choice));
    std::vector<float> one = decoded(*device, decoder, tokens, 1);
    CHECK(relative_error(one, expected) < line.error);
    for (int64_t chunk : {7, 64}) {
      decoder.reset(0);
      CHECK(same_bits(decoded(*device, decoder, tokens, chunk), one));
    }
  }
}

TEST_CASE("a model trained with block top-k decodes by pages") {
  auto device = make_device("cpu", {.threads = 2});
  ModelConfig config = small_model();
  config.same_length = false, config.topk = 192, config.topk_mode = TopkMode::block;
  ParameterSet weights = weights_of(*device, config);
  Decoder own(*device, config, weights, {.window = 400, .chunk = 32});
  CHECK(own.attention() == "pages 3");
  std::vector<int32_t> tokens = some_tokens(400, config.vocab_size);
  config.topk = 0;
  Decoder told(*device, config, weights, {.window = 400, .chunk = 32, .choice = KeyChoice{3 * 64, TopkMode::block}});
  CHECK(same_bits(decoded(*device, own, tokens, 32), decoded(*device, told, tokens, 1)));
}

TEST_CASE("texts side by side do not change each other by a bit") {
  auto device = make_device("cpu", {.threads = 2});
  ModelConfig config = small_model();
  ParameterSet weights = weights_of(*device, config);
  std::vector<std::vector<int32_t>> texts;
  for (uint64_t seed : {1, 2, 3}) texts.push_back(some_tokens(length, config.vocab_size, seed));
  Decoder together(*device, config, weights, {.sequences = 3, .window = window, .chunk = 8});
  std::vector<float> rows[3];
  for (int64_t at = 0; at < length; ++at) {
    std::vector<Decoder::Input> inputs;
    for (int32_t s : {2, 0, 1}) inputs.push_back({s, std::span(texts[s]).subspan(at, 1)});
    std::vector<float> logits = host(*device, together.forward(inputs));
    for (size_t n = 0; n < inputs.size(); ++n)
      rows[inputs[n].sequence].insert(rows[inputs[n].sequence].end(), logits.begin() + n * config.vocab_size,
                                      logits.begin() + (n + 1) * config.vocab_size);
  }
  for (int32_t s = 0; s < 3; ++s) {
    Decoder alone(*device, config, weights, {.window = window, .chunk = 8});
    CHECK(same_bits(decoded(*device, alone, texts[s], 1), rows[s]));
  }
}

TEST_CASE("a copied sequence goes on as the original would") {
  auto device = make_device("cpu", {.threads = 2});
  ModelConfig config = small_model();
  ParameterSet weights = weights_of(*device, config);
  std::vector<int32_t> start = some_tokens(20, config.vocab_size, 1), rest = some_tokens(20, config.vocab_size, 2);
  Decoder decoder(*device, config, weights, {.sequences = 2, .window = window, .chunk = 8});
  decoded(*device, decoder, start, 8, 0);
  decoder.copy(1, 0);
  CHECK(decoder.position(1) == 20);
  std::vector<float> original = decoded(*device, decoder, rest, 5, 0);
  CHECK(same_bits(decoded(*device, decoder, rest, 5, 1), original));
}

TEST_CASE("a token outside the vocabulary is refused with its position") {
  auto device = make_device("cpu", {.threads = 1});
  ModelConfig config = small_model();
  ParameterSet weights = weights_of(*device, config);
  Decoder decoder(*device, config, weights, {.window = window});
  std::vector<int32_t> tokens = {1, 2, 67};
  Decoder::Input input{0, tokens};
  CHECK_THROWS_WITH_AS(decoder.forward({&input, 1}), "token 67 at position 2: the model's vocabulary has 67 entries",
                       Error);
  CHECK(decoder.position(0) == 0);
}

TEST_CASE("written texts depend on seed and sample alone") {
  auto device = make_device("cpu", {.threads = 2});
  ModelConfig config = small_model();
  ParameterSet weights = weights_of(*device, config);
  std::vector<int32_t> prompt = some_tokens(30, config.vocab_size);
  auto write = [&](std::vector<uint64_t> samples, float penalty) {
    Decoder decoder(*device, config, weights,
                    {.sequences = static_cast<int64_t>(samples.size()), .window = window, .chunk = 8});
    Writer writer(*device, decoder);
    std::vector<WrittenText> texts;
    for (uint64_t sample : samples) {
      SamplingParameters rules;
      rules.repetition_penalty = penalty;
      rules.stream.seed = 11, rules.stream.step = sample;
      texts.push_back({static_cast<int32_t>(texts.size()), prompt, rules});
    }
    std::vector<WrittenText*> pointers;
    for (WrittenText& text : texts) pointers.push_back(&text);
    for (int i = 0; i < 25; ++i) writer.next(pointers);
    std::vector<std::vector<int32_t>> tokens;
    for (const WrittenText& text : texts) tokens.push_back(text.tokens);
    return tokens;
  };
  for (float penalty : {1.0f, 1.3f}) {
    auto both = write({0, 1}, penalty);
    CHECK(both == write({0, 1}, penalty));
    CHECK(both[0] != both[1]);
    CHECK(write({1}, penalty)[0] == both[1]);
    CHECK(both[0].size() == 55);
  }
}

TEST_CASE("a stop string that straddles pieces does not leak") {
  auto through = [](std::vector<std::string> stops, std::vector<std::string> pieces, bool& stopped) {
    StopFilter filter(std::move(stops));
    std::string shown;
    for (const std::string& piece : pieces) shown += filter.push(piece);
    stopped = filter.stopped();
    return shown + filter.finish();
  };
  bool stopped = false;
  CHECK(through({"\nUser:"}, {"Hi", "\n", "Us", "er", ": more"}, stopped) == "Hi");
  CHECK(stopped);
  CHECK(through({"\nUser:"}, {"Hi", "\n", "Use", "ful"}, stopped) == "Hi\nUseful");
  CHECK_FALSE(stopped);
  CHECK(through({"aab"}, {"a", "a", "a", "b", "c"}, stopped) == "a");
  CHECK(through({"xyz", "y"}, {"x", "y", "z"}, stopped) == "x");
  CHECK(through({""}, {"all", " of it"}, stopped) == "all of it");
  CHECK_FALSE(stopped);

  StopFilter filter({"END"});
  CHECK(filter.push("to the E") == "to the ");
  CHECK(filter.push("ast") == "East");
}
