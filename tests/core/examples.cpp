#include <doctest/doctest.h>

#include <map>

#include "tests/core/example_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

std::map<int32_t, int64_t> targets_of_an_epoch(ExampleLoader& loader) {
  std::map<int32_t, int64_t> seen;
  for (int64_t b = 0; b < loader.batches_per_epoch(); ++b) {
    bool fresh = false;
    Batch batch = loader.next(0, fresh);
    CHECK(fresh);
    for (int64_t i = 0; i < batch.targets.elements(); ++i)
      if (int32_t t = batch.targets.as<const int32_t>()[i]; t >= 0) ++seen[t];
  }
  return seen;
}

}  // namespace

TEST_CASE("every answer is learnt once an epoch, packed or not, and nothing else is") {
  TokenFile data = example_file();
  std::map<int32_t, int64_t> wanted;
  for (int64_t i = 0; i < data.train().size(); ++i)
    if (data.train().answers.as<const uint8_t>()[i]) ++wanted[data.train().at(i)];
  for (bool pack : {true, false}) {
    ExampleLoader loader(data.train(), {.lanes = 3, .segment = 16, .pack = pack, .seed = 1});
    CHECK(loader.batches_per_epoch() == (pack ? 6 : 14));
    CHECK(targets_of_an_epoch(loader) == wanted);
    CHECK(targets_of_an_epoch(loader) == wanted);
  }
}

TEST_CASE("an example in a row sees itself alone") {
  TokenFile data = example_file();
  ExampleRows rows(data.train(), 16, true, 1);
  for (int64_t r = 0; r < rows.size(); ++r) {
    ExampleRows::Columns c = rows.columns(1);
    rows.fill(r, c, 0);
    for (int32_t i = 1; i < 16; ++i) {
      bool starts = c.document_start[i] == i;
      CHECK((starts || c.document_start[i] == c.document_start[i - 1]));
      if (!starts) CHECK(c.tokens[i] == (c.tokens[i - 1] + 1) % 50);
    }
  }
  CHECK_THROWS_WITH_AS(ExampleRows(data.train(), 8, true, 1), doctest::Contains("rows of 8 take 2 to 9"), Error);
}

TEST_CASE("packing changes no example's loss") {
  TokenFile data = example_file();
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = example_options();
  auto nats = [&](bool pack) {
    options.pack = pack;
    Trainer trainer(*device, options, data, 1 << 20);
    return trainer.validate()[0];
  };
  CHECK(nats(true).nats == doctest::Approx(nats(false).nats).epsilon(1e-5));
  CHECK(nats(true).tokens == nats(false).tokens);
}

TEST_CASE("fine-tuning that is saved and restored ends in the same bits, low-rank, with adapters and frozen too") {
  Scratch scratch;
  TokenFile data = example_file();
  auto device = make_device("cpu", {.threads = 1});
  for (int mode : {0, 1, 2, 3, 4}) {
    TrainOptions options = example_options();
    if (mode == 1) {
      options.config.lora_rank = 2, options.config.lora_sites = "q,k,v,position,output,up,down";
      options.dropout.lora = 0.1f;
    }
    if (mode == 2) options.train_only = "*.bias", options.type = Dtype::bf16;
    if (mode == 3) options.config.adapter_width = 3, options.recompute = true;
    if (mode == 4) options.config.adapter_width = 3, options.type = Dtype::bf16, options.unfreeze = true;
    auto save = [&](Trainer& trainer, const char* name) { trainer.save_checkpoint(scratch / name, ""); };
    Trainer through(*device, options, data, 0);
    ConstTensor qkv = through.weights().layers[0].qkv;
    std::string before(static_cast<const char*>(qkv.data()), qkv.bytes());
    for (int i = 0; i < 4; ++i) through.step();
    save(through, "middle.safetensors");
    for (int i = 0; i < 8; ++i) through.step();
    save(through, "through.safetensors");
    Trainer restored(*device, options, data, 0);
    restored.restore(SafetensorsFile(scratch / "middle.safetensors"));
    for (int i = 0; i < 8; ++i) restored.step();
    save(restored, "restored.safetensors");
    CHECK(read_bytes(scratch / "through.safetensors") == read_bytes(scratch / "restored.safetensors"));
    std::string after(static_cast<const char*>(qkv.data()), qkv.bytes());
    CHECK((before == after) == (mode > 0));
  }
}

TEST_CASE("fine-tuning learns the answers, and low-rank updates or adapters of those weights learn others") {
  Scratch scratch;
  auto device = make_device("cpu", {.threads = 1});
  TrainOptions options = example_options();
  options.dropout = {}, options.epochs = 0, options.steps = 80;
  options.resolve(0);
  auto learns = [&](Trainer& trainer) {
    double before = trainer.validate()[0].nats;
    for (int i = 0; i < options.steps; ++i) trainer.step();
    CHECK(trainer.validate()[0].nats < 0.5 * before);
  };
  TokenFile first = example_file(), second = example_file(2);
  Trainer whole(*device, options, first, 1 << 20);
  learns(whole);
  whole.save_checkpoint(scratch / "whole.safetensors", "");
  options.steps = 200, options.learning_rate = 3e-2;
  options.config.lora_rank = 4, options.config.lora_sites = "q,v,output,up,down";
  options.resolve(0);
  Trainer low_rank(*device, options, second, 1 << 20);
  low_rank.load_weights(SafetensorsFile(scratch / "whole.safetensors"));
  learns(low_rank);
  options.config = options.config.plain(), options.config.adapter_width = 8;
  Trainer adapters(*device, options, second, 1 << 20);
  adapters.load_weights(SafetensorsFile(scratch / "whole.safetensors"));
  learns(adapters);
}

TEST_CASE("patterns choose what is trained, and nothing is refused") {
  TrainOptions options = example_options();
  options.train_only = "*.bias,embedding.*", options.freeze = "layers.1.*";
  CHECK(options.trains("embedding.weight"));
  CHECK(options.trains("layers.0.feedforward.up.bias"));
  CHECK_FALSE(options.trains("layers.1.feedforward.up.bias"));
  CHECK_FALSE(options.trains("layers.0.attention.qkv.weight"));
  options.freeze = "*";
  CHECK_THROWS_WITH_AS(options.resolve(0), doctest::Contains("nothing is left to train"), UsageError);
  options.freeze = options.train_only = "", options.config.lora_rank = 2, options.config.lora_sites = "q";
  CHECK(options.trains("layers.1.attention.q.lora_a"));
  CHECK_FALSE(options.trains("embedding.weight"));
}
