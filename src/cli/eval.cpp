// longhand eval: what a model answers to examples, and how near that comes to what was wanted.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

#include "longhand/files.h"
#include "longhand/instructions.h"
#include "src/cli/answer_table.h"
#include "src/cli/options.h"
#include "src/train/run_log.h"
#include "src/train/step_printer.h"
#include "src/train/validate.h"

namespace longhand::cli {
namespace {

struct EvalFlags {
  ModelFlags model;
  EncodeOptions encode;
  AnswerOptions answers;
  std::string data, validation_data, output, head;
  int64_t limit = 200, show = 4, segment = 0;
  bool all = false;
};

/// The head that labels or tags are for: that of --head, or the model's only one of that kind.
std::string head_for(const EvalFlags& flags, const ModelConfig& config, const InstructionFile& file) {
  auto tagged = [](const InstructionExample& e) { return !e.words.empty(); };
  auto labelled = [](const InstructionExample& e) { return !e.label.empty(); };
  bool tags = std::any_of(file.examples.begin(), file.examples.end(), tagged);
  if (!tags && std::none_of(file.examples.begin(), file.examples.end(), labelled)) return "";
  std::vector<std::string> names;
  for (const HeadConfig& head : config.heads)
    if (head.kind == (tags ? HeadKind::tags : HeadKind::label)) names.push_back(head.name);
  if (names.size() == 1 && flags.head.empty()) return names[0];
  if (std::find(names.begin(), names.end(), flags.head) != names.end()) return flags.head;
  fail_usage("--head: {} has {}, for which the model has {}", flags.data, tags ? "tags" : "labels",
             names.empty() ? "no head" : fmt::format("{}", fmt::join(names, ", ")));
}

TokenFile read_examples(EvalFlags& flags, const OpenModel& open) {
  InstructionFile file = read_instructions(flags.data, flags.encode.skip_bad), aside;
  bool split = !flags.all && flags.validation_data.empty();
  if (!flags.validation_data.empty()) aside = read_instructions(flags.validation_data, flags.encode.skip_bad);
  flags.encode.heads = open.model.config.heads, flags.encode.head = head_for(flags, open.model.config, file);
  auto unknown = [&](const auto& slot) {
    return std::none_of(flags.encode.heads.begin(), flags.encode.heads.end(),
                        [&](const HeadConfig& head) { return head.name == slot.first; });
  };
  for (InstructionFile* some : {&file, &aside})
    for (InstructionExample& example : some->examples) std::erase_if(example.state, unknown);
  EncodedInstructions encoded = encode_instructions(*open.tokenizer, file,
                                                    split                           ? nullptr
                                                    : flags.validation_data.empty() ? &file
                                                                                    : &aside,
                                                    flags.encode);
  TokenFile tokens(std::move(encoded.streams), open.model.config.vocab_size, open.model.tokenizer);
  if (tokens.validation().empty())
    fail("{}: no example lies in its validation part; --all takes every one", flags.data);
  return tokens;
}

/// What the heads say of all examples.
std::vector<HeadScore> score_heads(Device& device, const EvalFlags& flags, const OpenModel& open,
                                   const TokenFile& tokens) {
  if (open.model.config.heads.empty()) return {};
  TrainOptions options;
  options.config = open.model.config, options.examples = true, options.type = open.model.weights.type();
  options.lanes = options.micro_batch = 4, options.segment = flags.encode.segment;
  std::vector<HeadScore> scores;
  Validator validator(device, options, open.model.weights, std::numeric_limits<int64_t>::max());
  for (const ValidationRow& row : validator.run(tokens.validation()))
    scores.insert(scores.end(), row.heads.begin(), row.heads.end());
  return scores;
}

void print_json(const std::vector<AnswerScore>& scores, const std::vector<HeadScore>& heads) {
  for (const HeadScore& s : heads) fmt::print("{}\n", head_json(s));
  for (const AnswerScore& s : scores)
    fmt::print("{}\n",
               nlohmann::ordered_json(
                   {{"task", s.task}, {"examples", s.examples}, {"exact", s.exact}, {"chrf", s.chrf}, {"nats", s.nats}})
                   .dump());
}

void run_eval(EvalFlags flags, const Common& common) {
  if (flags.data.empty()) fail_usage("--data is missing: give a file of examples");
  for (auto [name, value, least] : {std::tuple("--limit", flags.limit, 0),
                                    {"--rows", flags.answers.rows, 1},
                                    {"--tokens", flags.answers.tokens, 0},
                                    {"--shots", flags.encode.shots, 0},
                                    {"--show", flags.show, 0}})
    if (value < least) fail_usage("{} {}: at least {}", name, value, least);
  speculation(flags.answers.speculate);
  auto device = common.make();
  OpenModel open = open_model(*device, flags.model);
  if (!open.tokenizer) fail("{} has no tokenizer, and instruction data are texts", open.path);
  const ModelConfig& config = open.model.config;
  flags.encode.seed = common.seed;
  flags.encode.segment = flags.segment > 0 ? flags.segment : config.segment > 0 ? config.segment : 256;
  TokenFile tokens = read_examples(flags, open);
  std::vector<HeadScore> heads = score_heads(*device, flags, open, tokens);
  std::vector<Question> questions = questions_of(tokens.validation(), flags.limit);
  if (questions.empty()) {
    common.json ? print_json({}, heads) : fmt::print("{}", head_table(heads));
    return;
  }
  auto start = std::chrono::steady_clock::now();
  std::vector<Answer> answers =
      write_answers(*device, config, open.model.weights, *open.tokenizer, questions, flags.answers);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!flags.output.empty()) write_file(flags.output, answers_text(answers));
  if (common.json) return print_json(score_answers(answers), heads);
  fmt::print("{}{}", samples_text(answers, flags.show), head_table(heads));
  fmt::print("{}{} answers in {:.1f} s\n", scores_text(score_answers(answers)), answers.size(), seconds);
}

}  // namespace

void add_eval(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "eval", "answer examples, and say how near that comes to the wanted");
  auto flags = std::make_shared<EvalFlags>();
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type, const char* group) {
    return command->add_option(name, value, meaning)->type_name(type)->group(group);
  };
  add("--data", flags->data, "examples, of which the validation part is answered: that of finetune with this seed",
      "FILE", "Data");
  add("--validation-data", flags->validation_data, "examples to answer in its place", "FILE", "Data");
  add("--validation-ratio", flags->encode.validation, "share of the examples for validation", "NUMBER", "Data");
  command->add_flag("--all", flags->all, "answer every example of --data")->group("Data");
  add("--template", flags->encode.template_path, "prompt template: alpaca, context, plain or a file", "NAME", "Data");
  add("--shots", flags->encode.shots, "solved examples of the same task before each prompt", "N", "Data");
  add("--max-seq-length", flags->segment, "tokens of an example at most; 0 = the model's segment", "N", "Data");
  add("--head", flags->head, "head that labels or tags are for (default: the model's only one of that kind)", "NAME",
      "Data");
  command->add_flag("--skip-bad", flags->encode.skip_bad, "leave out examples that cannot be used")->group("Data");
  add("--limit", flags->limit, "examples at most, of all tasks together; 0 = all", "N", "Answers");
  add("--tokens", flags->answers.tokens, "of an answer at most; 0 = twice the wanted one's and 16", "N", "Answers");
  add("--rows", flags->answers.rows, "answers written side by side", "N", "Answers");
  add_speculate_flag(*command, flags->answers.speculate, "Answers");
  add("--show", flags->show, "answers to print", "N", "Answers");
  add("--output", flags->output, "every answer with its figures, one JSON object a line", "FILE", "Answers");
  add_model_flags(*command, flags->model);
  command->callback([flags, &common] { common.run = [flags, &common] { run_eval(*flags, common); }; });
}

}  // namespace longhand::cli
