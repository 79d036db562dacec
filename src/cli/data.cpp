// longhand data: looks at instruction data, or makes some.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "longhand/augment.h"
#include "longhand/files.h"
#include "longhand/instructions.h"
#include "src/cli/command.h"

namespace longhand::cli {
namespace {

struct DataFlags {
  std::string action, file, validation;
  BuildOptions build{.directory = "data/corpus"};
  std::string output;
  AugmentOptions augment;
};

void print_json(const InstructionCheck& c) {
  fmt::print("{}\n", nlohmann::ordered_json({{"examples", c.examples},
                                             {"negative", c.negative},
                                             {"mean_length", c.mean_length},
                                             {"variance", c.variance},
                                             {"standard_deviation", std::sqrt(c.variance)},
                                             {"duplicates", c.duplicates},
                                             {"near_duplicates", c.near_duplicates},
                                             {"conflicts", c.conflicts},
                                             {"cut_off", c.cut_off},
                                             {"leaked", c.leaked},
                                             {"bad", c.bad.size()},
                                             {"scripts", c.scripts},
                                             {"warnings", c.warnings}})
                         .dump());
}

void print_text(const InstructionCheck& c, const std::string& path) {
  fmt::print("{}: {} examples, {} negative\n", path, c.examples, c.negative);
  fmt::print("  words          mean {:.1f}, variance {:.1f}, standard deviation {:.1f}\n", c.mean_length, c.variance,
             std::sqrt(c.variance));
  fmt::print("  duplicates     {}, near-duplicates {}, prompts with two answers {}\n", c.duplicates, c.near_duplicates,
             c.conflicts);
  fmt::print("  answers        {} cut off\n", c.cut_off);
  for (const auto& [script, count] : c.scripts) fmt::print("  {:<14} {}\n", script, count);
  for (const std::string& warning : c.warnings) fmt::print("warning: {}\n", warning);
}

void check(const DataFlags& flags, const Common& common) {
  InstructionFile file = read_instructions(flags.file, true), validation;
  if (!flags.validation.empty()) validation = read_instructions(flags.validation, true);
  InstructionCheck result = check_instructions(file, flags.validation.empty() ? nullptr : &validation);
  common.json ? print_json(result) : print_text(result, flags.file);
  if (result.warnings.empty()) return;
  std::fflush(nullptr);
  std::exit(3);
}

void build(const DataFlags& flags) {
  std::string lines = build_instructions(flags.build);
  write_file(flags.file, lines);
  fmt::print("{}: {} examples\n", flags.file, std::count(lines.begin(), lines.end(), '\n'));
}

void augment(const DataFlags& flags) {
  if (flags.output.empty()) fail_usage("data augment: --output is missing");
  InstructionFile file = read_instructions(flags.file, false);
  Augmenter augmenter(flags.augment);
  std::string lines;
  int64_t changed = 0;
  for (size_t i = 0; i < file.examples.size(); ++i) {
    std::string line = example_json(augmenter.example(file.examples[i], i));
    changed += line != example_json(file.examples[i]);
    lines += line + '\n';
  }
  write_file(flags.output, lines);
  fmt::print("{}: {} examples, {} of them changed\n", flags.output, file.examples.size(), changed);
}

}  // namespace

void add_data(CLI::App& app, Common& common) {
  CLI::App* command =
      add_command(app, common, "data", "look at instruction data (check), make some (build) or change some (augment)");
  auto flags = std::make_shared<DataFlags>();
  command->add_option("ACTION", flags->action,
                      "check: exit code 0 clean, 3 with warnings, 1 unusable; build: examples of --task; augment: FILE "
                      "with other words");
  command->add_option("FILE", flags->file, "examples: read by check, written by build");
  command->add_option("--validation-data", flags->validation, "check: examples that must not stand in FILE")
      ->type_name("FILE");
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type) {
    return command->add_option(name, value, meaning)->type_name(type)->group("Build");
  };
  add("--task", flags->build.task, "translation, numbers, dates, amounts, terms, cloze, topics or tags", "NAME");
  add("--corpus-directory", flags->build.directory, "help pages, as scripts/fetch_corpus.sh unpacks them", "DIRECTORY");
  add("--languages", flags->build.languages,
      "en,de,fr; a translation takes two or more, others all twelve unless some are named", "LIST")
      ->delimiter(',');
  add("--examples", flags->build.examples, "how many, of all languages or directions together", "N");
  add("--largest", flags->build.largest, "bytes of a text at most", "N");
  add("--greatest", flags->build.greatest, "the greatest number or amount", "N");
  auto change = [&](const char* name, auto& value, const char* meaning, const char* type) {
    return command->add_option(name, value, meaning)->type_name(type)->group("Augment");
  };
  change("--output", flags->output, "file to write", "FILE");
  change("--thesaurus", flags->augment.thesauri, "synonyms: FILE, or de=FILE for one language; may be repeated", "FILE")
      ->allow_extra_args(false);
  change("--augment-synonyms", flags->augment.synonyms, "share of the words that a synonym replaces", "NUMBER");
  change("--augment-insertions", flags->augment.insertions, "share of the words behind which one is inserted",
         "NUMBER");
  change("--augment-shuffles", flags->augment.shuffles, "share of the words that change places with the next",
         "NUMBER");
  change("--augment-language", flags->augment.language, "of examples that do not say theirs", "NAME");
  command->add_flag("--augment-answers", flags->augment.answers, "answers too")->group("Augment");
  command->callback([flags, &common] {
    common.run = [flags, &common] {
      flags->build.seed = flags->augment.seed = common.seed;
      if (flags->file.empty()) fail_usage("data: a file is missing: longhand data check FILE");
      if (flags->action == "check") return check(*flags, common);
      if (flags->action == "build") return build(*flags);
      if (flags->action == "augment") return augment(*flags);
      fail_usage("data {}: it takes check, build or augment", flags->action);
    };
  });
}

}  // namespace longhand::cli
