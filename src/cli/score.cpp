// longhand score: the log-probability of every token of a text, with the memory of training, or, to compare, with a
// window that is computed anew for every token.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "longhand/model.h"
#include "src/cli/options.h"

namespace longhand::cli {
namespace {

struct ScoreFlags {
  ModelFlags model;
  std::string text, file, ids;
  int64_t segment = 0, mem_len = -1, sliding_window = 0, from = 1;
  bool has_text = false, summary = false;
};

struct Totals {
  int64_t tokens = 0, bytes = 0;
  double nats = 0, seconds = 0;
};

std::vector<int32_t> tokens_to_score(const ScoreFlags& flags, const OpenModel& open) {
  if (flags.has_text + !flags.file.empty() + !flags.ids.empty() != 1)
    fail_usage("give one of --text, --file and --ids");
  if (!flags.ids.empty()) return parse_ids(flags.ids, open.model.config.vocab_size);
  if (!open.tokenizer) fail_usage("{} has no tokenizer: give the text as --ids 1,2,3", open.path);
  if (flags.has_text) check_utf8(flags.text, "--text");
  return open.tokenizer->encode(flags.has_text ? flags.text : read_text(flags.file));
}

// Prints tokens as their scores arrive.
class Printer {
 public:
  Printer(const OpenModel& open, const std::vector<int32_t>& tokens, const ScoreFlags& flags, Totals& totals)
      : open_(open), tokens_(tokens), flags_(flags), totals_(totals) {}

  void add(int64_t position, float logprob) {
    if (position < flags_.from) return;
    std::string text = open_.tokenizer ? open_.tokenizer->piece_bytes(tokens_[position]) : "";
    ++totals_.tokens, totals_.nats -= logprob, totals_.bytes += static_cast<int64_t>(text.size());
    if (flags_.summary) return;
    nlohmann::json quoted = text;
    std::string field =
        open_.tokenizer
            ? fmt::format("\"text\": {}, ", quoted.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace))
            : "";
    fmt::print("{{\"position\": {}, \"token\": {}, {}\"logprob\": {:.7g}}}\n", position, tokens_[position], field,
               logprob);
  }

 private:
  const OpenModel& open_;
  const std::vector<int32_t>& tokens_;
  const ScoreFlags& flags_;
  Totals& totals_;
};

// One lane of one text: forward() over tokens [first, first + count), predicting the token after each.
class Scorer {
 public:
  Scorer(Device& device, const ModelConfig& config, const ParameterSet& weights, int64_t segment, int64_t memory)
      : device_(device),
        config_(config),
        pass_(device, config, weights, nullptr, {.lanes = 1, .segment = segment, .memory = memory, .training = false},
              weights.type()) {}

  /// Log-probabilities of the tokens after the last `wanted` ones of the piece.
  std::vector<float> forward(const std::vector<int32_t>& tokens, int64_t first, int64_t count, int64_t wanted) {
    std::vector<int32_t> targets(tokens.begin() + first + 1, tokens.begin() + first + 1 + count);
    std::fill(targets.begin(), targets.end() - wanted, -1);
    std::vector<uint8_t> segments(config_.segments ? count : 0, 0);
    Batch batch;
    batch.tokens = ConstTensor(tokens.data() + first, Dtype::i32, {count, 1});
    batch.targets = ConstTensor(targets.data(), Dtype::i32, {count, 1});
    if (config_.segments) batch.segment_ids = ConstTensor(segments.data(), Dtype::u8, {count, 1});
    pass_.forward(batch, {}, {}, 0, 0);
    std::vector<float> losses(count);
    device_.download(losses.data(), pass_.losses());
    std::vector<float> logprobs;
    for (int64_t i = count - wanted; i < count; ++i) logprobs.push_back(-losses[i]);
    return logprobs;
  }
  void forget() { pass_.reset_memory(); }

 private:
  Device& device_;
  const ModelConfig& config_;
  Pass pass_;
};

void score_with_memory(Device& device, const OpenModel& open, const ScoreFlags& flags,
                       const std::vector<int32_t>& tokens, Printer& printer, double& seconds) {
  ModelConfig config = open.model.config;
  if (flags.mem_len >= 0) config.mem_len = flags.mem_len;
  int64_t count = static_cast<int64_t>(tokens.size()) - 1;
  int64_t segment = flags.segment ? flags.segment : config.segment ? config.segment : config.mem_len;
  segment = std::min(segment > 0 ? segment : 256, count);
  Scorer scorer(device, config, open.model.weights, segment, std::min(config.mem_len, count));
  for (int64_t first = 0; first < count; first += segment) {
    int64_t part = std::min(segment, count - first);
    auto start = std::chrono::steady_clock::now();
    std::vector<float> logprobs = scorer.forward(tokens, first, part, part);
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    for (int64_t i = 0; i < part; ++i) printer.add(first + i + 1, logprobs[i]);
  }
}

// For every token the window before it is computed from nothing and only the last prediction is used.
void score_with_window(Device& device, const OpenModel& open, const ScoreFlags& flags,
                       const std::vector<int32_t>& tokens, Printer& printer, double& seconds) {
  ModelConfig config = open.model.config;
  int64_t count = static_cast<int64_t>(tokens.size()) - 1, window = std::min(flags.sliding_window, count);
  Scorer scorer(device, config, open.model.weights, window, 0);
  for (int64_t target = flags.from; target <= count; ++target) {
    int64_t part = std::min(window, target);
    auto start = std::chrono::steady_clock::now();
    scorer.forget();
    std::vector<float> logprob = scorer.forward(tokens, target - part, part, 1);
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    printer.add(target, logprob[0]);
  }
}

void print_summary(const Totals& totals, const ScoreFlags& flags) {
  double rate = totals.tokens / std::max(totals.seconds, 1e-9), mean = totals.nats / totals.tokens;
  double bits = totals.bytes ? totals.nats / std::log(2.0) / totals.bytes : 0;
  if (flags.summary) {
    nlohmann::ordered_json line = {{"tokens", totals.tokens}, {"nats_per_token", mean}, {"perplexity", std::exp(mean)}};
    if (totals.bytes) line["bits_per_byte"] = bits;
    line["tokens_per_s"] = rate, line["seconds"] = totals.seconds;
    fmt::print("{}\n", line.dump());
    return;
  }
  std::fflush(stdout);
  fmt::print(stderr, "{} tokens, {:.4f} nats a token{}, {:.1f} tokens/s\n", totals.tokens, mean,
             totals.bytes ? fmt::format(", {:.4f} bits a byte", bits) : "", rate);
}

void run_score(const ScoreFlags& flags, const Common& common) {
  if (flags.segment < 0) fail_usage("--segment {}: it is 0 or more", flags.segment);
  if (flags.from < 1) fail_usage("--from {}: the first token has no prediction, so it is 1 or more", flags.from);
  if (flags.sliding_window < 0) fail_usage("--sliding-window {}: it is 0 or more", flags.sliding_window);
  auto device = common.make();
  OpenModel open = open_model(*device, flags.model);
  std::vector<int32_t> tokens = tokens_to_score(flags, open);
  if (static_cast<int64_t>(tokens.size()) <= flags.from)
    fail_usage("a text of {} tokens has none at position {} or later to score", tokens.size(), flags.from);
  Totals totals;
  Printer printer(open, tokens, flags, totals);
  auto score = flags.sliding_window ? score_with_window : score_with_memory;
  score(*device, open, flags, tokens, printer, totals.seconds);
  print_summary(totals, flags);
}

}  // namespace

void add_score(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "score", "print the log-probability of every token of a text");
  auto flags = std::make_shared<ScoreFlags>();
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type, const char* group) {
    return command->add_option(name, value, meaning)->type_name(type)->group(group);
  };
  auto* text = add("--text", flags->text, "the text", "TEXT", "Text");
  add("--file", flags->file, "a file that holds it; - is standard input", "FILE", "Text");
  add("--ids", flags->ids, "token ids instead: 1,2,3", "LIST", "Text");
  add("--from", flags->from, "score tokens from this position on; what comes before is context", "N", "Text");
  add("--segment", flags->segment, "tokens a pass; 0 = as in training", "N", "Context");
  add("--mem-len", flags->mem_len, "rows of hidden-state memory; -1 = as in training", "N", "Context");
  add("--sliding-window", flags->sliding_window, "compute the last N tokens anew for each token, without memory", "N",
      "Context");
  command->add_flag("--summary", flags->summary, "one JSON object of totals instead of a line a token");
  add_model_flags(*command, flags->model);
  command->callback([flags, text, &common] {
    flags->has_text = text->count() > 0;
    common.run = [flags, &common] { run_score(*flags, common); };
  });
}

}  // namespace longhand::cli
