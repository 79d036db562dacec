#include "longhand/heads.h"

#include <doctest/doctest.h>

#include <cmath>

#include "tests/core/example_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

const std::vector<HeadConfig> some_heads = {
    {.name = "topic", .kind = HeadKind::label, .labels = {"a", "b", "c"}},
    {.name = "chain", .kind = HeadKind::tags, .crf = true, .labels = {"O", "B-x", "I-x"}},
    {.name = "plain", .kind = HeadKind::tags, .lookahead = 1, .labels = {"O", "B-x", "I-x"}},
    {.name = "mood", .kind = HeadKind::state, .labels = {"good", "bad"}}};

/// Examples whose labels follow from their tokens: the first of them is e % 50.
TokenContent labelled_examples(int64_t count, const std::string& name) {
  TokenContent c = some_examples(count, 1);
  c.name = name;
  for (int64_t e = 0; e < count; ++e) {
    int64_t length = (e + 1 < count ? c.documents[e + 1] : static_cast<int64_t>(c.tokens.size())) - c.documents[e];
    std::vector<ExampleLabel>& labels = c.labels.emplace_back();
    labels.push_back({0, static_cast<int32_t>(length - 2), static_cast<int32_t>(e % 3)});
    labels.push_back({3, 0, static_cast<int32_t>(e % 2)});
    for (int32_t head : {1, 2})
      for (int32_t t = 0; t + 1 < length; ++t) labels.push_back({head, t, t % 4 == 1 ? 1 : t % 4 == 2 ? 2 : 0});
  }
  return c;
}

TokenFile labelled_file() {
  return TokenFile({labelled_examples(40, "train"), labelled_examples(10, "answers")}, 50, "");
}

TrainOptions head_options(const std::string& names = "topic,chain,plain,mood") {
  TrainOptions o = example_options();
  o.config.heads = some_heads, o.heads = names;
  o.resolve(0);
  return o;
}

}  // namespace

TEST_CASE("the gradients of heads, and through them of the model, are those of finite differences") {
  auto device = make_device("cpu", {.threads = 2});
  TrainOptions o = head_options();
  o.dropout = {};
  TokenFile data = labelled_file();
  for (size_t head = 0; head < some_heads.size(); ++head) {
    ParameterSet weights("weights", o.config, Dtype::fp32), gradients("gradients", o.config, Dtype::fp32);
    weights.commit(*device), gradients.commit(*device);
    initialize(*device, weights, 3);
    for (const Tensor& t : weights.tensors())  // away from the small first values, transitions away from 0
      for (int64_t e = 0; e < t.elements(); ++e)
        t.as<float>()[e] = 3 * t.as<float>()[e] + 0.1f * static_cast<float>(e % 5 - 2);
    Pass pass(*device, o.config, weights, &gradients, o.pass_shape(), Dtype::fp32);
    Heads heads(*device, o.config, weights, &gradients, o.lanes * o.segment, Dtype::fp32);
    bool fresh = false;
    auto loader = make_loader(o, data.train());
    Batch batch = loader->next(0, fresh);
    batch.targets = {};
    auto loss = [&](bool gradient) {
      pass.reset_memory();
      pass.forward(batch, {}, {}, 0, 0);
      return heads.loss(head, pass.hidden(), gradient ? pass.d_hidden() : Tensor(), batch.heads, {.scale = 1});
    };
    loss(true);
    pass.backward();
    for (size_t i = 0; i < weights.list().size(); ++i) {
      const std::string& name = weights.list()[i].name;
      std::string_view of = head_of(name);
      if (!of.empty() && of != some_heads[head].name) continue;
      const Tensor &w = weights.tensors()[i], &g = gradients.tensors()[i];
      double expected = 0, length = 0, size = 0;
      std::vector<float> at(w.as<float>(), w.as<float>() + w.elements()), direction(at.size());
      RandomStream random{.seed = 9, .step = i};
      for (size_t e = 0; e < at.size(); ++e) direction[e] = 2 * uniform(random.bits(e)) - 1;
      for (size_t e = 0; e < at.size(); ++e) {
        expected += static_cast<double>(g.as<float>()[e]) * direction[e], size += g.as<float>()[e] * g.as<float>()[e];
        length += direction[e] * direction[e];
      }
      auto along = [&](float step) {
        for (size_t e = 0; e < at.size(); ++e) w.as<float>()[e] = at[e] + step * direction[e];
        return loss(false);
      };
      float h = static_cast<float>(2e-2 / std::sqrt(length));
      double difference = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h);
      std::copy(at.begin(), at.end(), w.as<float>());
      INFO(name, ": ", expected, " against ", difference);
      CHECK(std::abs(difference - expected) < 2e-3 * (std::sqrt(size) + std::abs(expected)) + 2e-2);
    }
  }
}

TEST_CASE("heads learn what their examples say, beside the language or alone") {
  auto device = make_device("cpu", {.threads = 2});
  for (bool alone : {false, true}) {
    TrainOptions o = head_options();
    o.dropout = {}, o.epochs = 40, o.learning_rate = 1e-2;
    if (alone) o.freeze = "embedding.*,layers.*,norm.*";
    TokenFile data = labelled_file();
    o.resolve(make_loader(o, data.train())->batches_in(o.epochs));
    Trainer trainer(*device, o, data, 1000);
    StepReport first = trainer.step(), last;
    CHECK(first.parts.size() == 5);
    double sum = 0;
    for (const LossPart& part : first.parts) sum += (part.name == "mood" ? 0.3 : 1.0) * part.nats;
    CHECK(first.loss == doctest::Approx(sum));
    while (trainer.steps_done() < o.steps) last = trainer.step();
    CHECK(last.loss < 0.9 * first.loss);
    std::vector<HeadScore> scores = trainer.validate()[0].heads;
    REQUIRE(scores.size() == 4);
    if (alone) continue;
    for (const HeadScore& score : scores) CHECK(score.accuracy() > score.majority() + 0.05);
    CHECK(scores[1].f1() > 0.8);
  }
}

TEST_CASE("a head that the data do not teach stays as it is, and so does what is frozen beside one") {
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions o = head_options("topic");
  o.train_only = "head.*";
  TokenContent train = labelled_examples(40, "train");
  for (auto& labels : train.labels) std::erase_if(labels, [](const ExampleLabel& l) { return l.head != 0; });
  TokenFile data({train}, 50, "");
  Trainer trainer(*device, o, data, 0);
  ParameterSet start("weights", o.config, Dtype::fp32);
  start.commit(*device);
  initialize(*device, start, o.seed);
  for (int i = 0; i < 3; ++i) trainer.step();
  for (size_t i = 0; i < start.list().size(); ++i) {
    const Tensor &a = start.tensors()[i], &b = trainer.weights().tensors()[i];
    bool same = std::equal(a.as<float>(), a.as<float>() + a.elements(), b.as<float>());
    CHECK(same == (head_of(start.list()[i].name) != "topic"));
  }
}

TEST_CASE("a run with heads goes on bit for bit, in fp32, in bf16 with micro-batches, and with low-rank updates") {
  Scratch scratch;
  auto device = make_device("cpu", {.threads = 2});
  for (int mode : {0, 1, 2}) {
    TrainOptions o = head_options();
    o.epochs = 0, o.steps = 9;
    if (mode == 1) o.micro_batch = 2, o.type = Dtype::bf16;
    if (mode == 2) o.config.lora_rank = 2, o.config.lora_sites = "q,up", o.fgm = 0.5;
    TokenFile data = labelled_file();
    Trainer through(*device, o, data, 0);
    for (int i = 0; i < 4; ++i) through.step();
    through.save_checkpoint(scratch / "middle.safetensors", "");
    for (int i = 0; i < 5; ++i) through.step();
    through.save_checkpoint(scratch / "through.safetensors", "");
    Trainer restored(*device, o, data, 0);
    restored.restore(SafetensorsFile(scratch / "middle.safetensors"));
    for (int i = 0; i < 5; ++i) restored.step();
    restored.save_checkpoint(scratch / "restored.safetensors", "");
    CHECK(read_bytes(scratch / "through.safetensors") == read_bytes(scratch / "restored.safetensors"));
    if (mode != 2) continue;
    restored.save_weights(scratch / "adapter.safetensors", "");
    CHECK(SafetensorsFile(scratch / "adapter.safetensors").has("head.chain.transitions"));
  }
}

TEST_CASE("micro-batches give the gradients of the whole batch, heads included") {
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions whole = head_options(), parts = whole;
  whole.dropout = parts.dropout = {}, parts.micro_batch = 1;
  TokenFile data = labelled_file();
  Trainer a(*device, whole, data, 0), b(*device, parts, data, 0);
  for (int i = 0; i < 3; ++i) {
    StepReport one = a.step(), other = b.step();
    CHECK(one.loss == doctest::Approx(other.loss).epsilon(1e-5));
    CHECK(one.grad_norm == doctest::Approx(other.grad_norm).epsilon(1e-4));
  }
}

TEST_CASE("new heads are made where weights have none, and a file that claims one must have it") {
  Scratch scratch;
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions plain = example_options(), with = head_options();
  Trainer(*device, plain, example_file(), 0).save_weights(scratch / "plain.safetensors", "");
  Trainer trainer(*device, with, labelled_file(), 0);
  trainer.load_weights(SafetensorsFile(scratch / "plain.safetensors"));
  trainer.save_weights(scratch / "heads.safetensors", "");
  SafetensorsFile file(scratch / "heads.safetensors");
  CHECK(read_config(file).heads == some_heads);
  CHECK(file.tensor("head.chain.transitions").shape() == Shape{5, 3});
  trainer.load_weights(file);
  std::vector<NamedTensor> without;
  for (const std::string& name : file.names())
    if (name != "head.topic.bias") without.push_back({name, file.tensor(name)});
  write_safetensors(scratch / "broken.safetensors", without, {{"longhand.config", with.config.json()}});
  CHECK_THROWS_WITH_AS(trainer.load_weights(SafetensorsFile(scratch / "broken.safetensors")),
                       doctest::Contains("head.topic.bias"), Error);
}

TEST_CASE("spans are counted whole, and what heads say keeps the rule of tags") {
  HeadConfig head{.name = "h", .kind = HeadKind::tags, .labels = {"O", "B-x", "I-x", "B-y", "I-y"}};
  std::vector<int32_t> wanted{1, 2, 0, 3, 1, 2, 2}, said{1, 2, 0, 1, 1, 2, 0};
  CHECK(tag_spans(head, wanted) == std::vector<TagSpan>{{0, 2, "x"}, {3, 4, "y"}, {4, 7, "x"}});
  HeadScore score{.kind = HeadKind::tags};
  score.add(head, wanted, said);
  CHECK(score.right_spans == 1);
  CHECK(score.found == 3);
  CHECK(score.wanted == 3);
  CHECK(score.f1() == doctest::Approx(1.0 / 3));
  CHECK(score.accuracy() == doctest::Approx(5.0 / 7));
  CHECK(score.majority() == doctest::Approx(3.0 / 7));
  CHECK(tag_follows("B-x", "I-x"));
  CHECK(!tag_follows("B-y", "I-x"));
  CHECK(!tag_follows("", "I-x"));

  auto device = make_device("cpu", {.threads = 1});
  TrainOptions o = head_options();
  ParameterSet weights("weights", o.config, Dtype::fp32);
  weights.commit(*device);
  initialize(*device, weights, 1);
  Heads heads(*device, o.config, weights, nullptr, 64, Dtype::fp32);
  std::vector<float> hidden(64 * 16);
  RandomStream random{.seed = 4};
  for (size_t e = 0; e < hidden.size(); ++e) hidden[e] = 40 * (uniform(random.bits(e)) - 0.5f);
  std::vector<HeadTarget> places;
  for (int32_t lane : {0, 1})
    for (int32_t row = 0; row < 32; ++row) places.push_back({2, lane, row, 0, lane, 1});
  ConstTensor states(hidden.data(), Dtype::fp32, {32, 2, 16});
  std::vector<int32_t> tags = heads.say(2, states, places).labels;
  int inside = 0;
  for (size_t i = 0; i < tags.size(); ++i) {
    std::string before = i % 32 ? some_heads[2].labels[tags[i - 1]] : "";
    CHECK(tag_follows(before, some_heads[2].labels[tags[i]]));
    inside += tags[i] == 2;
  }
  CHECK(inside > 3);
}

TEST_CASE("impossible heads are refused") {
  ModelConfig config = small_model();
  auto refused = [&](HeadConfig head, const char* why) {
    config.heads = {std::move(head)};
    CHECK_THROWS_WITH_AS(config.check(), doctest::Contains(why), UsageError);
  };
  refused({.name = "a.b", .labels = {"x", "y"}}, "a name is made of letters");
  refused({.name = "a", .labels = {"x"}}, "has 1 labels");
  refused({.name = "a", .labels = {"x", "x"}}, "stands there twice");
  refused({.name = "a", .kind = HeadKind::tags, .labels = {"O", "x"}}, "is no tag");
  refused({.name = "a", .crf = true, .labels = {"x", "y"}}, "are for tags");
  config.heads = {some_heads[0], some_heads[0]};
  CHECK_THROWS_WITH_AS(config.check(), doctest::Contains("two heads have the name topic"), UsageError);
  config.heads = some_heads;
  CHECK(parse_config(config.json(), "here") == config);
}
