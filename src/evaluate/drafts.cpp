// What drafts gain: the cost of a pass of several rows, and texts written with and without them.
#include <algorithm>
#include <chrono>

#include "longhand/bench.h"

namespace longhand {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// One of the two texts, with a decoder of its own.
struct Side {
  Decoder decoder;
  Writer writer;
  WrittenText text;
  size_t prompt;
  int64_t passes = 0;
  double seconds = 0;

  Side(Device& device, const ModelConfig& config, const ParameterSet& weights, const DraftedTask& task, int64_t most)
      : decoder(device, config, weights, {.window = task.window, .chunk = 128}),
        writer(device, decoder),
        prompt(task.prompt.size()) {
    text.tokens.assign(task.prompt.begin(), task.prompt.end());
    text.rules.temperature = 0, text.speculation.most = most;
    text.replay = task.replay;
    writer.read(text);
  }

  int64_t written() const { return static_cast<int64_t>(text.tokens.size() - prompt); }

  void write_until(Device& device, int64_t tokens) {
    device.synchronize();
    auto start = Clock::now();
    for (WrittenText* one = &text; written() < tokens; ++passes) writer.next({&one, 1});
    device.synchronize();
    seconds += since(start);
  }
};

}  // namespace

double measure_pass(Device& device, const ModelConfig& config, const ParameterSet& weights, int64_t rows,
                    int64_t window, int64_t rounds) {
  Decoder decoder(device, config, weights, {.window = window, .chunk = std::max<int64_t>(rows, 64)});
  std::vector<int32_t> tokens(std::max<int64_t>(rows, 64));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 7919 % config.vocab_size);
  Decoder::Input before{0, tokens, false, true}, input{0, std::span(tokens).first(rows), true};
  decoder.forward({&before, 1});
  std::vector<double> seconds;
  for (int64_t round = 0; round < rounds + 1; ++round) {
    device.synchronize();
    auto start = Clock::now();
    decoder.forward({&input, 1});
    device.synchronize();
    if (round > 0) seconds.push_back(since(start));
    decoder.take_back(0, static_cast<int64_t>(tokens.size()));
  }
  std::nth_element(seconds.begin(), seconds.begin() + rounds / 2, seconds.end());
  return seconds[rounds / 2];
}

DraftedSpeed measure_drafts(Device& device, const ModelConfig& config, const ParameterSet& weights,
                            const DraftedTask& task) {
  constexpr int64_t stretch = 16;  // tokens between two changes of turn
  Side plain(device, config, weights, task, 0), drafted(device, config, weights, task, task.speculate);
  int64_t tokens = task.replay.empty() ? task.tokens : static_cast<int64_t>(task.replay.size() - task.prompt.size());
  for (int64_t goal = stretch;; goal += stretch) {
    // The drafted text may be some tokens ahead: both then go on from where it stands.
    drafted.write_until(device, std::min(goal, tokens));
    plain.write_until(device, drafted.written());
    if (drafted.written() >= tokens) break;
  }
  if (plain.text.tokens != drafted.text.tokens) fail("a text with drafts is not the text without");
  return {plain.written(), drafted.passes, drafted.text.speculation.drafted, drafted.text.speculation.accepted,
          plain.seconds,   drafted.seconds};
}

}  // namespace longhand
