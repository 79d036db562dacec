#include <nlohmann/json.hpp>

#include "longhand/corpus.h"
#include "longhand/error.h"
#include "src/cli/command.h"

namespace longhand::cli {
namespace {

struct Flags {
  std::string corpus, corpus_directory = "data/corpus";
  std::vector<std::string> text, language, languages;
  PrepareOptions prepare;
};

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
  for (const std::string& named : flags.language) {
    size_t colon = named.find(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == named.size())
      fail_usage("--language {}: NAME:PATH was expected, as in en:books/english", named);
    options.texts.push_back({named.substr(0, colon), named.substr(colon + 1)});
  }
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
  auto flags = std::make_shared<Flags>();
  PrepareOptions& prepare = flags->prepare;
  prepare.output = "data/tokens.safetensors";
  CLI::App* command = add_command(app, common, "prepare", "text -> vocabulary and token file");
  command->add_option("--corpus", flags->corpus,
                      "libreoffice (twelve languages; scripts/fetch_corpus.sh), the default");
  command->add_option("--corpus-directory", flags->corpus_directory, "where scripts/fetch_corpus.sh unpacked it")
      ->capture_default_str();
  command->add_option("--languages", flags->languages, "some of the corpus's languages: en,zh,...")->delimiter(',');
  command->add_option("--text", flags->text, "text files or directories; a file is a document")->expected(1, 1 << 20);
  command->add_option("--language", flags->language, "NAME:PATH, a text with a name of its own; again for each");
  command->add_flag("--split-lines", prepare.split_lines, "a line, not a file, is a document");
  command->add_option("--vocab-size", prepare.vocabulary.size, "pieces to train")->capture_default_str();
  command->add_option("--tokenizer", prepare.tokenizer, "take the vocabulary of a .model or .safetensors file");
  command->add_option("--validation", prepare.split.validation, "share of documents kept for validation")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 0.5));
  command->add_option("--output", prepare.output, "token file to write")->capture_default_str();
  command->callback([flags, &common] { common.run = [flags, &common] { run(*flags, common); }; });
}

}  // namespace longhand::cli
