#include <nlohmann/json.hpp>

#include "longhand/corpus.h"
#include "longhand/error.h"
#include "src/cli/command.h"

namespace longhand::cli {
namespace {

struct Flags {
  std::string corpus, corpus_directory = "data/corpus";
  std::vector<std::string> text, language, languages, validation_text;
  PrepareOptions prepare;
};

PrepareOptions::Source named_source(const char* flag, const std::string& given) {
  size_t colon = given.find(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == given.size())
    fail_usage("{} {}: NAME:PATH was expected, as in en:books/english", flag, given);
  return {given.substr(0, colon), given.substr(colon + 1)};
}

PrepareOptions options_of(const Flags& flags, const Common& common) {
  PrepareOptions options = flags.prepare;
  if (!flags.corpus.empty() && flags.corpus != "libreoffice")
    fail_usage("--corpus {}: the only corpus known by name is libreoffice; give other texts by --text", flags.corpus);
  bool own_text = !flags.text.empty() || !flags.language.empty();
  if (!flags.corpus.empty() && own_text) fail_usage("--corpus and --text (--language) exclude each other");
  if (own_text && !flags.languages.empty()) fail_usage("--languages chooses among the languages of --corpus");
  if (!own_text) options.help_directory = flags.corpus_directory;
  options.languages = flags.languages;
  for (const std::string& path : flags.text) options.texts.push_back({"text", path});
  for (const std::string& given : flags.language) options.texts.push_back(named_source("--language", given));
  for (const std::string& given : flags.validation_text)
    options.validation_texts.push_back(given.find(':') == std::string::npos ? PrepareOptions::Source{"text", given}
                                                                            : named_source("--validation-text", given));
  if (!(options.split.validation >= 0 && options.split.validation <= 0.5))
    fail_usage("--validation {}: it is a share between 0 and 0.5", options.split.validation);
  options.seed = options.split.seed = options.vocabulary.seed = common.seed;
  options.threads = common.threads;
  return options;
}

double ratio(int64_t a, int64_t b) { return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b); }

PrepareReport::Row total(const PrepareReport& report) {
  PrepareReport::Row sum{.language = "all"};
  for (const auto& row : report.rows) {
    sum.documents += row.documents, sum.bytes += row.bytes, sum.tokens += row.tokens;
    sum.validation_documents += row.validation_documents;
    sum.validation_bytes += row.validation_bytes, sum.validation_tokens += row.validation_tokens;
  }
  return sum;
}

nlohmann::ordered_json json_of(const PrepareReport::Row& row) {
  return {{"language", row.language},
          {"documents", row.documents},
          {"bytes", row.bytes},
          {"tokens", row.tokens},
          {"bytes_per_token", ratio(row.bytes, row.tokens)},
          {"validation_documents", row.validation_documents},
          {"validation_bytes", row.validation_bytes},
          {"validation_tokens", row.validation_tokens}};
}

void print_json(const PrepareReport& report, const std::string& output) {
  nlohmann::ordered_json json;
  json["output"] = output;
  json["vocab_size"] = report.vocab_size;
  for (const auto& row : report.rows) json["languages"].push_back(json_of(row));
  json["total"] = json_of(total(report));
  json["vocabulary_seconds"] = report.vocabulary_seconds;
  json["seconds"] = report.seconds;
  fmt::print("{}\n", json.dump());
}

void print_row(const PrepareReport::Row& row) {
  fmt::print("{:<10} {:>9} {:>9.2f} {:>11} {:>12.2f} {:>11.1f}%\n", row.language, row.documents, row.bytes / 1e6,
             row.tokens, ratio(row.bytes, row.tokens), 100 * ratio(row.validation_bytes, row.bytes));
}

void print_table(const PrepareReport& report, const std::string& output) {
  fmt::print("{:<10} {:>9} {:>9} {:>11} {:>12} {:>12}\n", "language", "documents", "MB", "tokens", "bytes/token",
             "validation");
  for (const auto& row : report.rows) print_row(row);
  if (report.rows.size() > 1) print_row(total(report));
  fmt::print("{}: vocabulary {}, {:.1f} s ({:.1f} s for the vocabulary)\n", output, report.vocab_size, report.seconds,
             report.vocabulary_seconds);
}

void run(const Flags& flags, const Common& common) {
  PrepareReport report = prepare(options_of(flags, common));
  if (common.json)
    print_json(report, flags.prepare.output);
  else
    print_table(report, flags.prepare.output);
}

}  // namespace

void add_prepare(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "prepare", "Turn text into a vocabulary and a token file");
  auto flags = std::make_shared<Flags>();
  PrepareOptions& prepare = flags->prepare;
  prepare.output = "data/tokens.safetensors";
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type, const char* group) {
    return command->add_option(name, value, meaning)->type_name(type)->group(group);
  };
  add("--corpus", flags->corpus, "libreoffice: twelve languages, fetched by scripts/fetch_corpus.sh; the default",
      "NAME", "Text");
  add("--corpus-directory", flags->corpus_directory, "where scripts/fetch_corpus.sh unpacked it", "DIR", "Text");
  add("--languages", flags->languages, "some languages of the corpus: en,zh,...", "LIST", "Text")->delimiter(',');
  add("--text", flags->text, "text files, or directories of them; a file is a document", "PATH...", "Text");
  add("--language", flags->language, "a text with a name of its own; again for each", "NAME:PATH", "Text");
  command->add_flag("--split-lines", prepare.split_lines, "a line, not a file, is a document")->group("Text");
  add("--vocab-size", prepare.vocabulary.size, "pieces to train", "N", "Vocabulary");
  command
      ->add_flag_callback(
          "--join-digits", [flags] { flags->prepare.vocabulary.split_digits = false; },
          "let pieces hold several digits; without it each digit stands alone")
      ->group("Vocabulary");
  add("--tokenizer", prepare.tokenizer, "take the vocabulary of a .model, weights or token file instead", "FILE",
      "Vocabulary");
  auto* share = add("--validation", prepare.split.validation, "share of the documents kept for validation", "SHARE",
                    "Token file");
  add("--validation-text", flags->validation_text, "texts of validation alone, under a name (default \"text\")",
      "[NAME:]PATH", "Token file");
  add("--output", prepare.output, "token file to write", "FILE", "Token file");
  command->callback([flags, share, &common] {
    // Who brings a validation text wants no other, unless the share is asked for as well.
    if (!flags->validation_text.empty() && share->count() == 0) flags->prepare.split.validation = 0;
    common.run = [flags, &common] { run(*flags, common); };
  });
}

}  // namespace longhand::cli
