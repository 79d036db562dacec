// longhand finetune: from weights and instruction data to weights, or to low-rank updates and adapters beside them.
#include <algorithm>
#include <cctype>
#include <filesystem>

#include "longhand/augment.h"
#include "longhand/files.h"
#include "longhand/generate.h"
#include "longhand/instructions.h"
#include "src/cli/answer_table.h"
#include "src/cli/train_flags.h"
#include "src/cli/training_run.h"

namespace longhand::cli {
namespace {

constexpr int64_t tokens_at_a_time = 8192;  // of a micro-batch, unless --micro-batch says otherwise

struct Finetune {
  TrainFlags flags;
  TrainingRun training;
  EncodeOptions encode;
  std::vector<std::string> data;
  std::string validation_data, optimizer = "adamw", tokenizer_file;
  bool random_base = false;
  AugmentOptions augment;
  HeadOptions head;
  int64_t answers = 8;

  void declare(CLI::App& command) {
    auto add = [&](const char* name, auto& field, const char* help, const char* type) {
      command.add_option(name, field, help)->default_str("")->type_name(type)->group("Data");
    };
    add("--model,--init", training.run.init, "weights to start from", "FILE");
    command
        .add_flag("--random-base", random_base,
                  "in place of --model: draw weights of --preset, to see what a model of that size takes")
        ->group("Data");
    add("--tokenizer", tokenizer_file, "with --random-base: take the vocabulary of a .model, weights or token file",
        "FILE");
    command.add_option("--data", data, "examples: JSON lines or a JSON array; may be repeated")
        ->type_name("FILE")
        ->allow_extra_args(false)
        ->group("Data");
    add("--validation-data", validation_data, "examples for validation alone, in place of a split", "FILE");
    add("--validation-ratio", encode.validation, "share of the examples for validation (default 0.05)", "NUMBER");
    add("--template", encode.template_path, "prompt template: alpaca, context, plain or a file (default: by the keys)",
        "NAME");
    add("--shots", encode.shots, "solved examples of the same task before each prompt (default 0)", "N");
    add("--answers", answers, "validation examples to answer before and after training (default 8); 0 = none", "N");
    command.add_flag("--skip-bad", encode.skip_bad, "leave out examples that cannot be used, and count them")
        ->group("Data");
    command.add_option("--thesaurus", augment.thesauri, "synonyms for --augment: FILE, or de=FILE; may be repeated")
        ->type_name("FILE")
        ->allow_extra_args(false)
        ->group("Data");
    add("--augment-language", augment.language, "of examples that do not say theirs; in de and lb nouns are capitals",
        "NAME");
    auto head_flag = [&](const char* name, auto& field, const char* help, const char* type) {
      return command.add_option(name, field, help)->default_str("")->type_name(type)->group("Heads");
    };
    head_flag("--head", head.name, "head that learns \"label\" or \"tags\" of the examples; made where it is new",
              "NAME");
    head_flag("--labels", head.labels, "of a new head, separated by commas (default: those of the examples)", "LIST")
        ->delimiter(',');
    command.add_flag("--crf", head.crf, "a new head for tags learns which follows which: a conditional random field")
        ->group("Heads");
    head_flag("--lookahead", head.lookahead,
              "a new head for tags reads so many tokens behind a word's first one (default 0)", "N");
    command.add_option("--optimizer,--type", optimizer, "adamw")->type_name("NAME")->group("Training");
    training.declare(command);
    flags.declare_finetuning(command), flags.declare(command);
  }

  void operator()(const CLI::App& command, const Common& common) {
    check_flags();
    std::string checkpoint = training.checkpoint(), source = checkpoint.empty() ? training.run.init : checkpoint;
    if (source.empty() && !random_base) fail_usage("--model is missing: give the weights to start from");
    if (source.empty()) source = tokenizer_file;
    TrainOptions options = flags.options(command, common, checkpoint.empty() ? training.run.init : "", checkpoint);
    options.examples = true;
    if (!options.held.empty()) check_held(options);
    encode.seed = options.seed;
    if (options.augment) encode.augmenter = augmenter(options);
    if (!options.augment && !augment.thesauri.empty()) fail_usage("--thesaurus needs --augment");

    Tokenizer tokenizer = tokenizer_of(source);
    TokenFile tokens = read(tokenizer, options, common.json ? stderr : stdout);
    training.run.tokens = fmt::format("{}", fmt::join(data, ", "));
    std::vector<Question> questions =
        answers > 0 ? questions_of(tokens.validation(), answers) : std::vector<Question>{};
    std::vector<Answer> before;
    if (!questions.empty() && !training.run.init.empty())
      before = answer(common, options.type, training.run.init, {}, tokenizer, questions);
    training.go(options, common, &tokens);
    if (!questions.empty() && !training.run.output.empty()) show_after(common, options, tokenizer, questions, before);
  }

 private:
  void check_flags() {
    if (data.empty()) fail_usage("--data is missing: give a file of examples");
    std::string name = optimizer;
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    if (name != "adamw") fail_usage("--optimizer {}: it takes adamw", optimizer);
    if (head.name.empty() && (!head.labels.empty() || head.crf || head.lookahead))
      fail_usage("--labels, --crf and --lookahead are of a new head: give its name with --head");
    if (head.lookahead < 0 || head.lookahead > 64) fail_usage("--lookahead {}: 0 to 64", head.lookahead);
    if (answers < 0) fail_usage("--answers {}: 0 or more", answers);
    if (encode.shots < 0) fail_usage("--shots {}: 0 or more", encode.shots);
    check_random_base();
    if (!(encode.validation >= 0 && encode.validation <= 0.5))
      fail_usage("--validation-ratio {}: it is a share between 0 and 0.5", encode.validation);
  }

  /// Text of weights that are held in another way than their file has them, or with updates beside integers, takes a
  /// decoder that there is not.
  void check_held(const TrainOptions& options) {
    if (training.run.sample_every > 0)
      fail_usage("--sample-every: no samples are written beside matrices held as {}", options.base);
    answers = 0;
  }

  void check_random_base() {
    if (!random_base && !tokenizer_file.empty()) fail_usage("--tokenizer is for --random-base: weights have their own");
    if (!random_base) return;
    if (!training.run.init.empty())
      fail_usage("--random-base draws weights, --model {} reads them: give one of them", training.run.init);
    if (!flags.given("preset") || tokenizer_file.empty())
      fail_usage("--random-base needs --preset, the model's shape, and --tokenizer, which reads the examples");
    answers = 0;  // such a model has nothing to say
  }

  std::shared_ptr<const Augmenter> augmenter(const TrainOptions& o) {
    augment.synonyms = o.augment_synonyms, augment.insertions = o.augment_insertions;
    augment.shuffles = o.augment_shuffles, augment.answers = o.augment_answers, augment.seed = o.seed;
    return std::make_shared<Augmenter>(augment);
  }

  static std::vector<Answer> answer(const Common& common, Dtype type, const std::string& path,
                                    const std::vector<std::string>& adapters, const Tokenizer& tokenizer,
                                    const std::vector<Question>& questions) {
    std::unique_ptr<Device> device = common.make();
    LoadedModel model = load_model(*device, path, type, adapters);
    return write_answers(*device, model.config, model.weights, tokenizer, questions, {});
  }

  /// Answers of the weights that the run left, beside those from before; RUN/answers.jsonl keeps them.
  void show_after(const Common& common, const TrainOptions& options, const Tokenizer& tokenizer,
                  const std::vector<Question>& questions, const std::vector<Answer>& before) const {
    std::string directory = run_directory(training.run.output);
    bool adapter = options.config.extended();
    if (adapter && training.run.init.empty()) return;
    std::vector<Answer> after =
        adapter ? answer(common, options.type, training.run.init, {directory + "/adapter.safetensors"}, tokenizer,
                         questions)
                : answer(common, options.type, directory + "/model.safetensors", {}, tokenizer, questions);
    for (size_t i = 0; i < before.size(); ++i) after[i].before = before[i].written;
    write_file(directory + "/answers.jsonl", answers_text(after));
    if (common.json) return;
    fmt::print("{}{}", samples_text(after, 4), scores_text(score_answers(after)));
  }

  /// The largest divisor of `whole` that is at most `limit`, and at least 1.
  static int64_t whole_part(int64_t whole, int64_t limit) {
    int64_t part = std::clamp<int64_t>(limit, 1, std::max<int64_t>(1, whole));
    while (whole % part) --part;
    return part;
  }

  static Tokenizer tokenizer_of(const std::string& path) {
    if (path.ends_with(".model")) return Tokenizer(read_file(path));
    SafetensorsFile file(path);
    if (!file.has("tokenizer.model")) fail("{} has no tokenizer, and instruction data are texts", path);
    ConstTensor model = file.tensor("tokenizer.model");
    return Tokenizer({static_cast<const char*>(model.data()), static_cast<size_t>(model.bytes())});
  }

  /// Every file of --data. Where there are several, one gives its name to examples without a task.
  InstructionFile read_all() const {
    InstructionFile all{.path = data[0]};
    for (const std::string& path : data) {
      InstructionFile file = read_instructions(path, encode.skip_bad);
      for (InstructionExample& example : file.examples) {
        if (data.size() > 1 && example.task.empty()) example.task = std::filesystem::path(path).stem().string();
        all.examples.push_back(std::move(example));
      }
      all.bad.insert(all.bad.end(), file.bad.begin(), file.bad.end());
    }
    return all;
  }

  /// Makes the heads that the examples want.
  void find_heads_of(InstructionFile& examples, InstructionFile& aside, TrainOptions& options) {
    if (options.state_weight == 0)
      for (InstructionFile* file : {&examples, &aside})
        for (InstructionExample& example : file->examples) example.state.clear();
    options.heads = fmt::format("{}", fmt::join(find_heads(examples, head, options.config.heads), ","));
    options.config.check();
    encode.heads = options.config.heads, encode.head = head.name;
    bool alone = std::none_of(examples.examples.begin(), examples.examples.end(),
                              [](const InstructionExample& e) { return !e.answer.empty() || !e.messages.empty(); });
    if (alone && options.curriculum == Difficulty::loss)
      fail_usage("--curriculum loss ranks examples by the loss of their answers, and these have none");
  }

  void fit_rows(TrainOptions& options) {
    TrainOptions sizes = options;
    sizes.resolve(0);
    if (options.micro_batch == 0) options.micro_batch = whole_part(options.lanes, tokens_at_a_time / sizes.segment);
    encode.segment = sizes.segment;
  }

  TokenFile read(const Tokenizer& tokenizer, TrainOptions& options, FILE* out) {
    InstructionFile examples = read_all(), aside;
    if (!validation_data.empty()) aside = read_instructions(validation_data, encode.skip_bad);
    find_heads_of(examples, aside, options), fit_rows(options);
    EncodedInstructions encoded =
        encode_instructions(tokenizer, examples, validation_data.empty() ? nullptr : &aside, encode);
    int64_t skipped = static_cast<int64_t>(examples.bad.size() + aside.bad.size() + encoded.bad.size());
    fmt::print(out, "{} examples to train on, {} for validation, {} with a shortened input, {} left out\n",
               encoded.train, encoded.validation, encoded.cut, skipped);
    for (const auto* list : {&examples.bad, &aside.bad, &encoded.bad})
      for (size_t i = 0; i < std::min<size_t>(list->size(), 3); ++i) fmt::print(out, "  left out: {}\n", (*list)[i]);
    for (const HeadConfig& h : options.config.heads)
      if (options.teaches(h.name))
        fmt::print(out, "head {}: {}{} of {}\n", h.name, head_kind_name(h.kind), h.crf ? " (crf)" : "",
                   fmt::join(h.labels, ", "));
    return TokenFile(std::move(encoded.streams), options.config.vocab_size, std::string(tokenizer.model()));
  }
};

}  // namespace

void add_finetune(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "finetune", "train a model further on instructions and answers");
  auto finetune = std::make_shared<Finetune>();
  finetune->declare(*command);
  command->callback(
      [command, finetune, &common] { common.run = [command, finetune, &common] { (*finetune)(*command, common); }; });
}

}  // namespace longhand::cli
