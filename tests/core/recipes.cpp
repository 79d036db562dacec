// Every recipe of training on the kernels that a card runs, here on the host: the losses are the cpu device's.
#include <doctest/doctest.h>

#include <functional>

#include "tests/core/example_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

std::vector<double> losses(const char* device_name, const TrainOptions& options, const TokenFile& data) {
  auto device = make_device(device_name, {.threads = 1});
  Trainer trainer(*device, options, data, 0);
  std::vector<double> all;
  for (int64_t i = 0; i < options.steps; ++i) {
    StepReport report = trainer.step();
    CHECK(report.skipped.empty());
    all.push_back(report.loss);
  }
  return all;
}

void check_same_losses(const char* name, const TrainOptions& options, const TokenFile& data) {
  CAPTURE(name);
  std::vector<double> cpu = losses("cpu", options, data), simt = losses("simt", options, data);
  CHECK(cpu.front() != cpu.back());
  for (size_t i = 0; i < cpu.size(); ++i) CHECK(simt[i] == doctest::Approx(cpu[i]).epsilon(1e-4));
}

/// Every example backwards, as augmentation would give another form of it.
class Backwards : public ExampleVariants {
 public:
  explicit Backwards(TokenContent content) : content_(std::move(content)) {}
  Variant make(int64_t example, int64_t step) const override {
    if (step % 2) return {};
    int64_t first = content_.documents[example], count = static_cast<int64_t>(content_.documents.size());
    int64_t end = example + 1 < count ? content_.documents[example + 1] : static_cast<int64_t>(content_.tokens.size());
    Variant variant{.tokens = {content_.tokens.begin() + first, content_.tokens.begin() + end},
                    .answers = {content_.answers.begin() + first, content_.answers.begin() + end}};
    std::reverse(variant.tokens.begin(), variant.tokens.end());
    return variant;
  }
  uint32_t checksum() const override { return 1; }

 private:
  TokenContent content_;
};

struct Recipe {
  const char* name;
  std::function<void(TrainOptions&)> set;
};

const Recipe recipes[] = {
    {"dropout at every site",
     [](TrainOptions& o) {
       o.dropout = {0.1f, 0.2f, 0.1f, 0.1f, 0.3f};
     }},
    {"label smoothing", [](TrainOptions& o) { o.label_smoothing = 0.1; }},
    {"focal loss", [](TrainOptions& o) { o.focal_gamma = 2; }},
    {"FGM", [](TrainOptions& o) { o.fgm = 0.5; }},
    {"curriculum by length", [](TrainOptions& o) { o.curriculum = Difficulty::length; }},
    {"curriculum by loss", [](TrainOptions& o) { o.curriculum = Difficulty::loss, o.pacing = Pacing::root; }},
    {"unfreezing", [](TrainOptions& o) { o.unfreeze = true; }},
    {"rates by layer", [](TrainOptions& o) { o.layer_decay = 0.8; }},
    {"low-rank updates",
     [](TrainOptions& o) { o.config.lora_rank = 2, o.config.lora_sites = "q,k,v,position,output,up,down"; }},
    {"biases alone", [](TrainOptions& o) { o.train_only = "*.bias"; }},
    {"rows of the embedding", [](TrainOptions& o) { o.train_only = "embedding.weight[20:]"; }},
};

}  // namespace

TEST_CASE("each recipe of fine-tuning has the cpu's losses on the simt device") {
  TokenFile data = example_file();
  for (const Recipe& recipe : recipes) {
    TrainOptions options = example_options();
    options.dropout = {}, options.steps = 6;
    recipe.set(options);
    options.resolve(0);
    check_same_losses(recipe.name, options, data);
  }
}

TEST_CASE("recipes together, over epochs in which attention joins, have the cpu's losses on the simt device") {
  TokenContent train = some_examples(16, 1);
  train.variants = std::make_shared<Backwards>(train);
  TokenFile data({train}, 50, "");
  TrainOptions options = example_options();
  options.unfreeze = true, options.fgm = 0.3, options.layer_decay = 0.9, options.label_smoothing = 0.1;
  options.curriculum = Difficulty::length, options.curriculum_steps = 2, options.steps = 10, options.augment = true;
  CHECK(make_loader(options, data.train())->batches_per_epoch() <= 3);
  check_same_losses("all", options, data);
}

TEST_CASE("growing segments have the cpu's losses on the simt device") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 600));
  TrainOptions options = small_options();
  options.segment = 24, options.segment_start = 5, options.steps = 8;
  options.resolve(0);
  check_same_losses("growing segments", options, data);
}
