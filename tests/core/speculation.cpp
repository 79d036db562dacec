// Drafts change the time that a text takes and nothing else; a text of choices becomes one of them.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "longhand/generate.h"
#include "longhand/model.h"
#include "longhand/session.h"

using namespace longhand;

namespace {

constexpr int64_t window = 13;

struct Bench {
  std::unique_ptr<Device> device;
  ModelConfig config;
  std::unique_ptr<ParameterSet> weights;

  explicit Bench(const char* name = "cpu") : device(make_device(name, {.threads = 2})) {
    config.vocab_size = 72, config.d_model = 24, config.n_layer = 2, config.n_head = 3, config.d_head = 8;
    config.d_ff = 40, config.mem_len = window, config.same_length = true;
    weights = std::make_unique<ParameterSet>("weights", config, Dtype::fp32);
    weights->commit(*device);
    initialize(*device, *weights, 5);
  }
};

// Texts that repeat themselves, one more than another, so that drafts are made, kept and refused.
std::vector<WrittenText> some_texts(int64_t drafts, float temperature, float penalty, int count) {
  std::vector<WrittenText> texts;
  for (int t = 0; t < count; ++t) {
    WrittenText text{t};
    for (int i = 0; i < 24 + 5 * t; ++i) text.tokens.push_back((i % (5 + t)) * 3 + t);
    text.rules.temperature = temperature, text.rules.repetition_penalty = penalty, text.rules.top_k = 6;
    text.rules.stream.seed = 9, text.rules.stream.step = static_cast<uint64_t>(t);
    text.speculation.most = drafts;
    texts.push_back(std::move(text));
  }
  return texts;
}

struct Result {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  int64_t accepted = 0;
  Session session;
};

// `length` tokens of each text; what was drawn beyond them is taken back.
std::vector<Result> write(Bench& bench, std::vector<WrittenText> texts, size_t length, int64_t chunk = 40) {
  Decoder decoder(*bench.device, bench.config, *bench.weights,
                  {.sequences = static_cast<int64_t>(texts.size()), .window = window, .chunk = chunk});
  Writer writer(*bench.device, decoder);
  std::vector<Result> results(texts.size());
  for (;;) {
    std::vector<WrittenText*> open;
    for (size_t i = 0; i < texts.size(); ++i)
      if (results[i].tokens.size() < length) open.push_back(&texts[i]);
    if (open.empty()) break;
    auto drawn = writer.next(open);
    for (size_t i = 0; i < open.size(); ++i) {
      Result& result = results[static_cast<size_t>(open[i]->sequence)];
      size_t taken = 0;
      for (; taken < drawn[i].size() && result.tokens.size() < length; ++taken)
        result.tokens.push_back(drawn[i][taken].token), result.logprobs.push_back(drawn[i][taken].logprob);
      writer.take_back(*open[i], static_cast<int64_t>(drawn[i].size() - taken));
    }
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    results[i].accepted = texts[i].speculation.accepted;
    results[i].session = take_session(*bench.device, decoder, texts[i], "");
  }
  return results;
}

void check_same(const std::vector<Result>& some, const std::vector<Result>& other) {
  REQUIRE(some.size() == other.size());
  for (size_t i = 0; i < some.size(); ++i) {
    CHECK(some[i].tokens == other[i].tokens);
    CHECK(some[i].logprobs == other[i].logprobs);
    CHECK(some[i].session.position == other[i].session.position);
    CHECK(some[i].session.tokens == other[i].session.tokens);
    CHECK(some[i].session.rings == other[i].session.rings);  // keys and values, to the bit
  }
}

}  // namespace

TEST_CASE("a draft is the continuation of the longest repetition, the last one among equals") {
  auto draft = [](std::vector<int32_t> text, int64_t count) { return find_draft(text, count); };
  using Tokens = std::vector<int32_t>;
  CHECK(draft({1, 2, 3, 4, 1, 2}, 2) == Tokens{3, 4});
  CHECK(draft({1, 2, 3, 1, 2, 5, 1, 2}, 1) == Tokens{5});
  CHECK(draft({9, 1, 2, 3, 1, 2, 5, 9, 1, 2}, 2) == Tokens{3, 1});
  CHECK(draft({1, 2, 1, 2, 1, 2}, 5) == Tokens{1, 2, 1, 2, 1});  // beyond its end it goes on into itself
  CHECK(draft({4, 4, 4}, 3) == Tokens{4, 4, 4});
  CHECK(draft({1, 2, 3, 2}, 3).empty());  // one token is too little
  CHECK(draft({7}, 3).empty());
  CHECK(draft({}, 3).empty());
}

TEST_CASE("the depth of drafts follows what holds") {
  Speculation s{.most = 8};
  auto depth_after = [&](int64_t drafted, int64_t accepted) {
    s.learn(drafted, accepted);
    return s.depth;
  };
  CHECK(depth_after(1, 1) == 3);
  CHECK(depth_after(3, 3) == 7);
  CHECK(depth_after(7, 4) == 7);
  CHECK(depth_after(7, 2) == 3);
  CHECK(depth_after(3, 1) == 1);
  CHECK(depth_after(1, 0) == 1);
  CHECK(depth_after(0, 0) == 1);
  CHECK(s.drafted == 22);
  CHECK(s.accepted == 11);
}

TEST_CASE("drafts change no token, no log-probability and no key: greedy, drawn, with penalties, side by side") {
  Bench bench;
  for (float temperature : {0.0f, 0.7f})
    for (float penalty : {1.0f, 1.2f})
      for (int count : {1, 3}) {
        std::vector<Result> plain = write(bench, some_texts(0, temperature, penalty, count), 3 * window);
        int64_t accepted = 0;
        for (int64_t drafts : {1, 4, 31}) {
          std::vector<Result> drafted = write(bench, some_texts(drafts, temperature, penalty, count), 3 * window);
          check_same(drafted, plain);
          for (const Result& result : drafted) accepted += result.accepted;
        }
        if (temperature == 0 && penalty == 1) CHECK(accepted > 0);
      }
}

TEST_CASE("the same on the simt device, and with few rows to share") {
  Bench bench("simt");
  check_same(write(bench, some_texts(8, 0, 1, 2), 16), write(bench, some_texts(0, 0, 1, 2), 16));
  Bench cpu;
  check_same(write(cpu, some_texts(8, 0, 1, 3), 20, 5), write(cpu, some_texts(0, 0, 1, 3), 20));
}

TEST_CASE("tokens that are taken back leave no trace in a ring that has come round") {
  Bench bench;
  DecoderShape shape{.window = window, .chunk = 16};
  SUBCASE("as it is") {}
  SUBCASE("a ring of int8") { shape.ring = Dtype::i8; }
  SUBCASE("attention by pages") {
    bench.config.same_length = false;
    shape.window = 140, shape.choice = KeyChoice{2 * 64, TopkMode::block};
  }
  std::vector<int32_t> text(3 * shape.window), wrong(16, 71);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<int32_t>(i * 7 % 72);
  Decoder plain(*bench.device, bench.config, *bench.weights, shape);
  Decoder other(*bench.device, bench.config, *bench.weights, shape);
  auto logits = [&](Decoder& decoder, std::span<const int32_t> tokens) {
    Decoder::Input input{0, tokens};
    Tensor rows = decoder.forward({&input, 1});
    std::vector<float> values(static_cast<size_t>(rows.elements()));
    bench.device->download(values.data(), rows);
    return values;
  };
  bool same = true;
  for (size_t at = 0; at < text.size(); ++at) {
    logits(other, wrong);
    other.take_back(0, static_cast<int64_t>(at));
    std::span<const int32_t> one = std::span<const int32_t>(text).subspan(at, 1);
    std::vector<float> a = logits(plain, one), b = logits(other, one);
    same = same && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }
  CHECK(same);
  CHECK_THROWS_AS(other.take_back(0, static_cast<int64_t>(text.size()) - 17), Error);
  CHECK_THROWS_AS(other.take_back(0, static_cast<int64_t>(text.size()) + 1), Error);
}

TEST_CASE("a text of choices becomes one of them, as often as the model has it") {
  Bench bench;
  std::vector<std::vector<int32_t>> choices = {{10, 11}, {10, 11, 12, 13}, {20}, {30, 31}};
  const int32_t end = 1;
  auto tree = std::make_shared<ChoiceTree>(choices, std::span(&end, 1));
  std::map<std::vector<int32_t>, int> counts;
  for (int64_t drafts : {0, 6}) {
    std::map<std::vector<int32_t>, int> found;
    for (uint64_t seed = 0; seed < 60; ++seed) {
      Decoder decoder(*bench.device, bench.config, *bench.weights, {.window = window, .chunk = 32});
      Writer writer(*bench.device, decoder);
      WrittenText text{0, {1, 10, 11, 12, 13, 1, 10, 11, 12, 13, 1, 5}, {}, {.most = drafts}, tree};
      text.rules.stream.seed = seed, text.rules.top_p = 0.99f, text.rules.repetition_penalty = 1.3f;
      WrittenText* one = &text;
      size_t prompt = text.tokens.size();
      while (!text.complete()) writer.next({&one, 1});
      CHECK_THROWS_AS(writer.next({&one, 1}), Error);
      std::vector<int32_t> written(text.tokens.begin() + static_cast<int64_t>(prompt), text.tokens.end());
      if (written.back() == end) written.pop_back();
      CHECK(std::count(choices.begin(), choices.end(), written) == 1);
      ++found[written];
    }
    if (drafts == 0) counts = found;
    CHECK(found == counts);
  }
  CHECK(counts.size() == 4);
}

TEST_CASE("constrained and free texts stand side by side") {
  Bench bench;
  std::vector<WrittenText> texts = some_texts(4, 0.7f, 1, 3);
  std::vector<Result> free = write(bench, texts, 6);
  std::vector<std::vector<int32_t>> choices = {{40, 41, 42, 43, 44, 45}, {50, 51, 52, 53, 54, 55}};
  texts[1].choices = std::make_shared<ChoiceTree>(choices, std::span<const int32_t>());
  std::vector<Result> mixed = write(bench, texts, 6);
  CHECK(mixed[0].tokens == free[0].tokens);
  CHECK(mixed[2].tokens == free[2].tokens);
  CHECK(std::count(choices.begin(), choices.end(), mixed[1].tokens) == 1);
}

TEST_CASE("choices that are none are refused") {
  std::vector<std::vector<int32_t>> none, empty = {{3}, {}};
  CHECK_THROWS_AS(ChoiceTree(none, {}), Error);
  CHECK_THROWS_AS(ChoiceTree(empty, {}), Error);
}
