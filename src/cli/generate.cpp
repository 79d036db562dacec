// longhand generate: continues a prompt, as it goes.
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "src/cli/options.h"
#include "src/generate/piece_stream.h"

namespace longhand::cli {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct GenerateFlags {
  ModelFlags model;
  SamplingFlags sampling;
  DecoderFlags decoder;
  std::string prompt, prompt_file, ids, choices, choices_file;
  int64_t samples = 1;
  bool echo = false, has_prompt = false;
};

struct Sample {
  WrittenText text;
  std::unique_ptr<PieceStream> stream;  // without a tokenizer there is none
  std::vector<int32_t> written;
  std::string shown;
  const char* finish = "length";
  bool done = false;
};

// A text follows the end of a document, as documents do in training.
std::vector<int32_t> prompt_tokens(const GenerateFlags& flags, const OpenModel& open, std::string& text) {
  if (flags.has_prompt + !flags.prompt_file.empty() + !flags.ids.empty() > 1)
    fail_usage("give one of --prompt, --prompt-file and --ids");
  if (!flags.ids.empty()) {
    std::vector<int32_t> ids = parse_ids(flags.ids, open.model.config.vocab_size);
    if (ids.empty()) fail_usage("--ids names no token");
    return ids;
  }
  if (!open.tokenizer) fail_usage("{} has no tokenizer: give the prompt as --ids 1,2,3", open.path);
  bool read = !flags.prompt_file.empty() || flags.prompt == "-";
  if (read) {
    text = read_text(flags.prompt_file.empty() ? "-" : flags.prompt_file);
    if (text.ends_with('\n')) text.pop_back();
  } else {
    text = flags.prompt;
    check_utf8(text, "--prompt");
  }
  std::vector<int32_t> tokens = {open.tokenizer->end_of_document()};
  std::vector<int32_t> body = open.tokenizer->encode(text);
  tokens.insert(tokens.end(), body.begin(), body.end());
  return tokens;
}

void show(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// What may be written: "yes|no|maybe", or the lines of a file. Null = anything.
std::shared_ptr<const ChoiceTree> choice_tree(const GenerateFlags& flags, const OpenModel& open) {
  if (flags.choices.empty() && flags.choices_file.empty()) return nullptr;
  if (!flags.choices.empty() && !flags.choices_file.empty()) fail_usage("give one of --choices and --choices-file");
  if (flags.sampling.ignore_end) fail_usage("--ignore-end: a text of --choices ends when it is one of them");
  if (!open.tokenizer) fail_usage("--choices needs a tokenizer, and {} has none", open.path);
  bool file = !flags.choices_file.empty();
  const char* name = file ? "--choices-file" : "--choices";
  std::istringstream list(file ? read_text(flags.choices_file) : flags.choices);
  std::vector<std::vector<int32_t>> choices;
  for (std::string choice; std::getline(list, choice, file ? '\n' : '|');) {
    check_utf8(choice, name);
    choices.push_back(open.tokenizer->encode(choice));
    if (choice.empty() || open.tokenizer->decode(choices.back()) != choice)
      fail_usage("{}: \"{}\" cannot be written in the tokens of {}", name, choice, open.path);
  }
  return std::make_shared<ChoiceTree>(choices, std::vector<int32_t>{open.tokenizer->end_of_document()});
}

// Takes a drawn token into the sample and returns what can be shown of it.
std::string take(Sample& sample, int32_t token, const OpenModel& open, bool ignore_end) {
  if (open.tokenizer && token == open.tokenizer->end_of_document() && !ignore_end) {
    sample.finish = "stop", sample.done = true;
    return {};
  }
  std::string piece;
  if (sample.stream) {
    piece = sample.stream->push(token);
    if (sample.stream->stopped()) sample.finish = "stop", sample.done = true;
  } else {
    piece = fmt::format("{}{}", sample.written.empty() ? "" : " ", token);
  }
  sample.written.push_back(token);
  return piece;
}

// The same for the tokens of a pass; those after the sample's end are left.
std::string take(Sample& sample, const std::vector<Writer::Drawn>& drawn, const OpenModel& open,
                 const SamplingFlags& flags) {
  std::string shown;
  for (size_t i = 0; i < drawn.size() && !sample.done; ++i) {
    shown += take(sample, drawn[i].token, open, flags.ignore_end);
    if (!sample.done && i + 1 == drawn.size() && sample.text.complete()) sample.finish = "stop", sample.done = true;
    sample.done = sample.done || static_cast<int64_t>(sample.written.size()) == flags.tokens;
  }
  return shown;
}

void print_json(const Sample& sample, size_t index, const OpenModel& open, int64_t prompt_tokens, double prompt_rate,
                double rate) {
  nlohmann::ordered_json line;
  line["sample"] = index;
  line["prompt_tokens"] = prompt_tokens;
  line["ids"] = sample.written;
  if (open.tokenizer) line["text"] = sample.shown;
  line["finish_reason"] = sample.finish;
  line["prompt_tokens_per_s"] = prompt_rate;
  line["tokens_per_s"] = rate;
  if (sample.text.speculation.most > 0)
    line["drafted"] = sample.text.speculation.drafted, line["accepted"] = sample.text.speculation.accepted;
  fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void run_generate(const GenerateFlags& flags, const Common& common) {
  if (flags.samples < 1) fail_usage("--num-samples {}: it is 1 or more", flags.samples);
  flags.sampling.rules(0, 0);
  Speculation drafts = speculation(flags.sampling.speculate);
  DecoderShape shape{.sequences = flags.samples, .window = flags.sampling.window, .chunk = 128};
  flags.decoder.apply(shape);
  auto device = common.make();
  OpenModel open = open_model(*device, flags.model, AdapterUse::beside);
  if (!open.tokenizer && !flags.sampling.stop.empty())
    fail_usage("--stop needs a tokenizer, and {} has none", open.path);
  std::shared_ptr<const ChoiceTree> choices = choice_tree(flags, open);
  std::string prompt;
  std::vector<int32_t> tokens = prompt_tokens(flags, open, prompt);
  Decoder decoder(*device, open.model, shape);
  Writer writer(*device, decoder);

  std::vector<Sample> samples(flags.samples);
  for (int64_t s = 0; s < flags.samples; ++s) {
    samples[s].text = {static_cast<int32_t>(s), tokens, flags.sampling.rules(common.seed, s), drafts, choices};
    samples[s].done = flags.sampling.tokens == 0;
    if (open.tokenizer) samples[s].stream = std::make_unique<PieceStream>(*open.tokenizer, flags.sampling.stop);
  }
  auto start = Clock::now();
  writer.read(samples[0].text);
  for (int64_t s = 1; s < flags.samples; ++s) decoder.copy(static_cast<int32_t>(s), 0);
  double prompt_rate = (tokens.size() - 1) / std::max(seconds_since(start), 1e-9);

  bool live = flags.samples == 1 && !common.json;
  if (live && flags.echo) show(prompt);
  start = Clock::now();
  for (;;) {
    std::vector<WrittenText*> texts;
    std::vector<Sample*> active;
    for (Sample& sample : samples)
      if (!sample.done) active.push_back(&sample), texts.push_back(&sample.text);
    if (active.empty()) break;
    auto next = writer.next(texts);
    for (size_t i = 0; i < active.size(); ++i) {
      std::string piece = take(*active[i], next[i], open, flags.sampling);
      active[i]->shown += piece;
      if (live && !piece.empty()) show(piece);
    }
  }
  int64_t written = 0;
  for (const Sample& sample : samples) written += static_cast<int64_t>(sample.written.size());
  double rate = written / std::max(seconds_since(start), 1e-9);

  for (size_t s = 0; s < samples.size(); ++s) {
    std::string rest = samples[s].stream ? samples[s].stream->finish() : "";
    samples[s].shown += rest;
    if (common.json)
      print_json(samples[s], s, open, static_cast<int64_t>(tokens.size()), prompt_rate, rate);
    else if (live)
      show(rest + "\n");
    else
      show(fmt::format("[{}] {}{}\n", s + 1, flags.echo ? prompt : "", samples[s].shown));
  }
}

}  // namespace

void add_generate(CLI::App& app, Common& common) {
  CLI::App* command =
      add_command(app, common, "generate", "continue a prompt, as far beyond the training context as asked");
  auto flags = std::make_shared<GenerateFlags>();
  auto* prompt = command->add_option("--prompt", flags->prompt, "text to continue; - reads it from standard input")
                     ->type_name("TEXT")
                     ->group("Prompt");
  command
      ->add_option("--prompt-file", flags->prompt_file, "file with the text, without its last line break; - as above")
      ->type_name("FILE")
      ->group("Prompt");
  command->add_option("--ids", flags->ids, "the prompt as token ids: 1,2,3")->type_name("LIST")->group("Prompt");
  command->add_flag("--echo", flags->echo, "print the prompt before its continuation")->group("Prompt");
  add_sampling_flags(*command, flags->sampling);
  command->add_option("--choices", flags->choices, "what may be written, with | between: \"yes|no|maybe\"")
      ->type_name("LIST")
      ->group("Writing");
  command->add_option("--choices-file", flags->choices_file, "the same, one a line")
      ->type_name("FILE")
      ->group("Writing");
  command->add_option("--num-samples", flags->samples, "continuations, each with random numbers of its own")
      ->type_name("N")
      ->group("Writing");
  add_decoder_flags(*command, flags->decoder, "Memory");
  add_model_flags(*command, flags->model);
  command->callback([flags, prompt, &common] {
    flags->has_prompt = prompt->count() > 0;
    common.run = [flags, &common] { run_generate(*flags, common); };
  });
}

}  // namespace longhand::cli
