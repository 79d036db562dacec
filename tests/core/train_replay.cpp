#include <doctest/doctest.h>

#include "cuda/simt/host/config.h"
#include "tests/core/train_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

struct Run {
  std::vector<StepReport> steps;
  std::vector<std::vector<char>> weights;
  simt::Counters counted;
};

/// On the simt device; with a profiler every operation is run by itself.
Run run(const TrainOptions& options, const TokenFile& data, bool replayed) {
  auto device = make_device("simt");
  if (!replayed) device->profile(true);
  simt::counters() = {};
  Trainer trainer(*device, options, data, 0);
  Run result;
  for (int64_t i = 0; i < options.steps; ++i) result.steps.push_back(trainer.step());
  result.counted = simt::counters();
  for (const Tensor& tensor : trainer.weights().tensors())
    device->download(result.weights.emplace_back(tensor.bytes()).data(), tensor);
  return result;
}

void check_same_bits(const TrainOptions& options, const TokenFile& data, uint64_t most_updates) {
  Run plain = run(options, data, false), replayed = run(options, data, true);
  CHECK(plain.steps[0].loss > 3);
  CHECK(plain.counted.graphs_launched == 0);
  CHECK(replayed.counted.graphs_launched >= 30);  // of 40 halves of steps
  CHECK(replayed.counted.graphs_updated <= most_updates);
  CHECK(replayed.counted.graphs_built <= 6);
  for (size_t i = 0; i < plain.steps.size(); ++i) {
    CHECK(plain.steps[i].loss == replayed.steps[i].loss);
    CHECK(plain.steps[i].grad_norm == replayed.steps[i].grad_norm);
  }
  CHECK(plain.weights == replayed.weights);
}

TrainOptions twenty_steps() {
  TrainOptions options = small_options();
  options.steps = 20, options.lanes = options.micro_batch = 2;
  return options;
}

}  // namespace

TEST_CASE("twenty training steps leave the same bits whether a device replays them or not") {
  Scratch scratch;
  TokenFile data(write_tokens(scratch, "tokens.safetensors", 600));
  TrainOptions plain = twenty_steps();
  check_same_bits(plain, data, 0);

  TrainOptions dropped = twenty_steps();  // a step's random numbers are among the arguments
  dropped.dropout = {.embedding = 0.1f, .attention = 0.1f, .residual = 0.1f, .activation = 0.1f, .feedforward = 0.1f};
  dropped.config.topk = 5, dropped.recompute = true;
  dropped.type = dropped.master = dropped.moments = Dtype::bf16;
  check_same_bits(dropped, data, 40);

  TrainOptions pages = twenty_steps();  // so is the memory's place in its stream
  pages.config.topk = 64, pages.config.topk_mode = TopkMode::block, pages.mask_documents = true;
  pages.config.norm = NormPlacement::post, pages.config.final_norm = false;
  check_same_bits(pages, data, 40);
}
