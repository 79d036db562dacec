#include <doctest/doctest.h>

#include "src/train/run_log.h"
#include "tests/core/train_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

struct Mode {
  const char* name;
  Dtype type, master, moments;
  int64_t micro_batch;
};
constexpr Mode modes[] = {{"fp32", Dtype::fp32, Dtype::fp32, Dtype::fp32, 4},
                          {"fp32, accumulated", Dtype::fp32, Dtype::fp32, Dtype::fp32, 2},
                          {"bf16 with fp32 master", Dtype::bf16, Dtype::fp32, Dtype::fp32, 4},
                          {"bf16 is its own master", Dtype::bf16, Dtype::bf16, Dtype::bf16, 1}};

TrainOptions options_of(const Mode& mode) {
  TrainOptions o = small_options();
  o.type = mode.type, o.master = mode.master, o.moments = mode.moments, o.micro_batch = mode.micro_batch;
  o.mask_documents = true;
  o.dropout = {0.1f, 0.1f, 0.1f, 0.1f, 0.1f};
  return o;
}

void steps(Trainer& trainer, int count) {
  for (int i = 0; i < count; ++i) trainer.step();
}

}  // namespace

TEST_CASE("a run that is saved and restored ends in the same bits as one that went through") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 230));  // 8 batches: the end of an epoch is crossed
  for (const Mode& mode : modes)
    for (int threads : {1, 2}) {
      CAPTURE(mode.name);
      CAPTURE(threads);
      auto device = make_device("cpu", {.threads = threads});
      Trainer through(*device, options_of(mode), data, 0);
      steps(through, 5);
      through.save_checkpoint(scratch / "middle.safetensors", "");
      steps(through, 7);
      through.save_checkpoint(scratch / "through.safetensors", "");

      Trainer restored(*device, options_of(mode), data, 0);
      CHECK(restored.restore(SafetensorsFile(scratch / "middle.safetensors")) == "");
      CHECK(restored.steps_done() == 5);
      restored.save_checkpoint(scratch / "again.safetensors", "");
      CHECK(read_bytes(scratch / "middle.safetensors") == read_bytes(scratch / "again.safetensors"));
      steps(restored, 7);
      restored.save_checkpoint(scratch / "restored.safetensors", "");
      CHECK(read_bytes(scratch / "through.safetensors") == read_bytes(scratch / "restored.safetensors"));
    }
}

TEST_CASE("a checkpoint is a usable weights file with its tokenizer, and carries no path and no time") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 230));
  auto device = make_device("cpu", {.threads = 1});
  Trainer trainer(*device, small_options(), data, 0);
  steps(trainer, 2);
  trainer.save_checkpoint(scratch / "checkpoint.safetensors", "tokenizer");
  SafetensorsFile file(scratch / "checkpoint.safetensors");
  CHECK(file.verify() > 0);
  CHECK(read_config(file) == trainer.options().config);
  CHECK(file.tensor("tokenizer.model").bytes() == 9);
  CHECK(file.tensor("memory.1").shape() == Shape{11, 4, 16});
  ParameterSet weights("weights", read_config(file), Dtype::fp32);
  weights.commit(*device);
  load_parameters(*device, weights, file);
  for (const auto& [key, value] : file.metadata()) CHECK(value.find("longhand-train-") == std::string::npos);
}

TEST_CASE("a checkpoint of another configuration, other flags or other data is refused with one line") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 230));
  auto device = make_device("cpu", {.threads = 1});
  Trainer trainer(*device, small_options(), data, 0);
  trainer.save_checkpoint(scratch / "checkpoint.safetensors", "");
  trainer.save_weights(scratch / "weights.safetensors", "");
  SafetensorsFile file(scratch / "checkpoint.safetensors");

  auto refused = [&](const TrainOptions& options, const TokenFile& tokens, const SafetensorsFile& from,
                     const std::string& words) {
    Trainer other(*device, options, tokens, 0);
    try {
      other.restore(from);
      FAIL("it was taken");
    } catch (const UsageError& error) {
      std::string text = error.what();
      CAPTURE(text);
      CHECK(text.find(words) != std::string::npos);
      CHECK(text.find('\n') == std::string::npos);
    }
  };
  TrainOptions wider = small_options();
  wider.config.d_ff = 40;
  refused(wider, data, file, "d_ff 24, this run has 40");
  TrainOptions faster = small_options();
  faster.learning_rate = 0.5;
  refused(faster, data, file, "--learning-rate 0.01, this run has 0.5");
  TrainOptions seeded = small_options();
  seeded.seed = 6;
  refused(seeded, data, file, "--seed 5, this run has 6");
  refused(small_options(), TokenFile(write_tokens(scratch, "other.safetensors", 230, 2)), file, "other data");
  refused(small_options(), data, SafetensorsFile(scratch / "weights.safetensors"), "--init, not --resume");

  TrainOptions longer = small_options();
  longer.steps = 100, longer.spike = 0;
  Trainer goes_on(*device, longer, data, 0);
  CHECK(goes_on.restore(file) == "");
}

TEST_CASE("a new run starts from a checkpoint's master weights") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 230));
  auto device = make_device("cpu", {.threads = 1});
  Trainer mixed(*device, options_of(modes[2]), data, 0);
  steps(mixed, 2);
  mixed.save_checkpoint(scratch / "checkpoint.safetensors", "");
  Trainer wide(*device, small_options(), data, 0);
  SafetensorsFile file(scratch / "checkpoint.safetensors");
  wide.load_weights(file);
  ConstTensor master = file.tensor("master.embedding.weight");
  CHECK(std::memcmp(wide.weights().embedding.data(), master.data(), master.bytes()) == 0);
}

TEST_CASE("a resumed log keeps what led to the checkpoint and drops what came after") {
  Scratch scratch;
  std::string path = scratch / "log.jsonl";
  std::ofstream(path) << R"({"type":"meta"})"
                         "\n"
                         R"({"type":"step","step":0})"
                         "\n"
                         R"({"type":"step","step":1})"
                         "\n"
                         R"({"type":"validation","step":2})"
                         "\n"
                         R"({"type":"step","step":2})"
                         "\n"
                         R"({"type":"end","step":2})"
                         "\n"
                         R"({"type":"st)";
  {
    RunLog log(path, 2);
    CHECK(log.continued());
    log.event(2, "resumed", "here");
  }
  CHECK(read_bytes(path) == R"({"type":"meta"})"
                            "\n"
                            R"({"type":"step","step":0})"
                            "\n"
                            R"({"type":"step","step":1})"
                            "\n"
                            R"({"type":"validation","step":2})"
                            "\n"
                            R"({"type":"event","step":2,"event":"resumed","text":"here"})"
                            "\n");
}
