#include "src/cli/bench_speculation.h"

#include <filesystem>
#include <nlohmann/json.hpp>

#include "longhand/bench.h"
#include "src/cli/options.h"

namespace longhand::cli {
namespace {

using Json = nlohmann::ordered_json;

struct Text {
  std::string name;
  std::vector<int32_t> tokens;  // the second half no longer than wanted
  size_t half = 0;
};

Text read(const std::string& path, const Tokenizer& tokenizer, int64_t tokens) {
  Text text{std::filesystem::path(path).filename().string(), tokenizer.encode(read_text(path)), 0};
  text.half = text.tokens.size() / 2;
  if (text.half < 2) fail("{}: {} tokens are no text to write again", path, text.tokens.size());
  text.tokens.resize(std::min(text.tokens.size(), text.half + static_cast<size_t>(tokens)));
  return text;
}

void print_costs(Device& device, const ModelConfig& config, const ParameterSet& weights, const std::string& name,
                 const SpeculationFlags& flags, const Common& common) {
  const std::vector<int64_t> rows = {1, 2, 3, 4, 5, 8, 16, 32};
  std::vector<double> seconds = measure_passes(device, config, weights, rows, flags.window, 15);
  std::string line;
  for (size_t i = 0; i < rows.size(); ++i) {
    double times = seconds[i] / seconds[0];
    if (common.json)
      fmt::print("{}\n", Json{{"weights", name}, {"rows", rows[i]}, {"seconds", seconds[i]}, {"times", times}}.dump());
    line += fmt::format(" {}: {:.2f},", rows[i], times);
  }
  line.pop_back();
  if (!common.json) fmt::print("{}: a pass of so many rows takes so many times a pass of one:{}\n\n", name, line);
}

void print(const std::string& weights, const char* task, const Text& text, const DraftedSpeed& speed,
           const Common& common) {
  double tokens = static_cast<double>(speed.tokens), times = speed.plain_seconds / speed.seconds;
  double accepted =
      speed.drafted ? 100.0 * static_cast<double>(speed.accepted) / static_cast<double>(speed.drafted) : 0;
  if (common.json)
    fmt::print("{}\n", Json{{"weights", weights},
                            {"task", task},
                            {"text", text.name},
                            {"prompt", text.half},
                            {"tokens", speed.tokens},
                            {"passes", speed.passes},
                            {"drafted", speed.drafted},
                            {"accepted", speed.accepted},
                            {"plain_tokens_per_s", tokens / speed.plain_seconds},
                            {"tokens_per_s", tokens / speed.seconds}}
                           .dump());
  else
    fmt::print("| {} | {} | {} | {} | {} | {:.2f} | {} | {:.0f}% | {:.1f} | {:.1f} | {:.2f} |\n", weights, task,
               text.name, text.half, speed.tokens, tokens / static_cast<double>(speed.passes), speed.drafted, accepted,
               tokens / speed.plain_seconds, tokens / speed.seconds, times);
  std::fflush(stdout);
}

void measure(Device& device, const ModelConfig& config, const ParameterSet& weights, const std::string& name,
             const std::vector<Text>& texts, bool free, const SpeculationFlags& flags, const Common& common) {
  for (const Text& text : texts) {
    std::span<const int32_t> all = text.tokens;
    DraftedTask task{.prompt = all.first(text.half), .speculate = flags.speculate, .window = flags.window};
    task.tokens = flags.tokens;
    if (!free) task.replay = all;
    print(name, free ? "its own" : "replayed", text, measure_drafts(device, config, weights, task), common);
  }
}

}  // namespace

void declare_speculation(CLI::App& command, SpeculationFlags& flags) {
  command.add_option("--texts", flags.texts, "texts of which half is written again (speculation)")
      ->type_name("FILE...")
      ->group("Drafts");
  command.add_option("--speculate", flags.speculate, "tokens of a draft at most (speculation)")
      ->type_name("K")
      ->group("Drafts");
}

void run_speculation(const SpeculationFlags& flags, const ModelConfig& large, const Common& common) {
  if (flags.model.empty() || flags.texts.empty())
    fail_usage("bench speculation needs --model FILE and --texts FILE...");
  speculation(flags.speculate);
  auto device = common.make();
  OpenModel open = open_model(*device, {.path = flags.model});
  if (!open.tokenizer) fail_usage("{} has no tokenizer to read texts with", open.path);
  if (large.vocab_size < open.model.config.vocab_size)
    fail_usage("--preset: its vocabulary of {} is smaller than that of {}", large.vocab_size, open.path);
  std::vector<Text> texts;
  for (const std::string& path : flags.texts) texts.push_back(read(path, *open.tokenizer, flags.tokens));

  std::string name = std::filesystem::path(open.path).stem().string();
  auto header = [&](const std::string& of, const ModelConfig& config, const ParameterSet& weights) {
    print_costs(*device, config, weights, of, flags, common);
    if (!common.json)
      fmt::print(
          "| weights | text | after | prompt | tokens | a pass | drafted | accepted | tokens/s without | with {} | "
          "times |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
          flags.speculate);
  };
  header(name, open.model.config, open.model.weights);
  for (bool free : {true, false})
    measure(*device, open.model.config, open.model.weights, name, texts, free, flags, common);
  for (const QuantizeOptions& options : flags.weights) {
    ParameterSet weights = random_weights(*device, large, quantized_formats(large, options, flags.type), common.seed);
    std::string drawn =
        fmt::format("{:.2g}, {}", static_cast<double>(large.parameters()), weight_type_name(options.type));
    if (!common.json) fmt::print("\n");
    header(drawn, large, weights);
    measure(*device, large, weights, drawn, texts, false, flags, common);
  }
}

}  // namespace longhand::cli
