// What drafts gain: the cost of a pass of several rows, and texts written with and without them.
#include <algorithm>
#include <chrono>

#include "longhand/bench.h"

namespace longhand {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// One of the two texts, and the time that it took.
struct Side {
  WrittenText text;
  int64_t passes = 0;
  double seconds = 0;

  Side(const DraftedTask& task, int32_t sequence, int64_t most) {
    text.sequence = sequence, text.tokens.assign(task.prompt.begin(), task.prompt.end());
    text.rules.temperature = 0, text.speculation.most = most, text.replay = task.replay;
  }

  void write_until(Device& device, Writer& writer, size_t size) {
    device.synchronize();
    auto start = Clock::now();
    for (WrittenText* one = &text; text.tokens.size() < size; ++passes) writer.next({&one, 1});
    device.synchronize();
    seconds += since(start);
  }
};

}  // namespace

std::vector<double> measure_passes(Device& device, const ModelConfig& config, const ParameterSet& weights,
                                   std::span<const int64_t> rows, int64_t window, int64_t rounds) {
  constexpr int64_t before = 64;
  int64_t most = std::max(before, *std::max_element(rows.begin(), rows.end()));
  Decoder decoder(device, config, weights, {.window = window, .chunk = most});
  std::vector<int32_t> tokens(most);
  for (int64_t i = 0; i < most; ++i) tokens[i] = static_cast<int32_t>(i * 7919 % config.vocab_size);
  Decoder::Input text{0, std::span(tokens).first(before), false, true};
  decoder.forward({&text, 1});
  std::vector<std::vector<double>> seconds(rows.size());
  for (int64_t round = 0; round < rounds + 1; ++round)  // the first one warms up
    for (size_t i = 0; i < rows.size(); ++i) {
      Decoder::Input input{0, std::span(tokens).first(rows[i]), true};
      device.synchronize();
      auto start = Clock::now();
      decoder.forward({&input, 1});
      device.synchronize();
      if (round > 0) seconds[i].push_back(since(start));
      decoder.take_back(0, before);
    }
  std::vector<double> medians;
  for (std::vector<double>& list : seconds) {
    std::nth_element(list.begin(), list.begin() + rounds / 2, list.end());
    medians.push_back(list[rounds / 2]);
  }
  return medians;
}

DraftedSpeed measure_drafts(Device& device, const ModelConfig& config, const ParameterSet& weights,
                            const DraftedTask& task) {
  constexpr size_t stretch = 16;  // tokens between two changes of turn
  Decoder decoder(device, config, weights, {.sequences = 2, .window = task.window, .chunk = 128});
  Writer writer(device, decoder);
  Side plain(task, 0, 0), drafted(task, 1, task.speculate);
  writer.read(plain.text);
  decoder.copy(1, 0);
  size_t prompt = task.prompt.size(), end = task.replay.empty() ? prompt + task.tokens : task.replay.size();
  for (size_t goal = prompt; drafted.text.tokens.size() < end;) {
    goal = std::min(goal + stretch, end);
    drafted.write_until(device, writer, goal);
    plain.write_until(device, writer, drafted.text.tokens.size());  // which may be a draft ahead
  }
  if (plain.text.tokens != drafted.text.tokens) fail("a text with drafts is not the text without");
  return {static_cast<int64_t>(plain.text.tokens.size() - prompt),
          drafted.passes,
          drafted.text.speculation.drafted,
          drafted.text.speculation.accepted,
          plain.seconds,
          drafted.seconds};
}

}  // namespace longhand
