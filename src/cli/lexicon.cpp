// longhand lexicon: terms of a domain as tokens of their own, in a model's tokenizer and weights.
#include "longhand/lexicon.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "longhand/data.h"
#include "longhand/files.h"
#include "longhand/parameters.h"
#include "longhand/vocabulary.h"
#include "src/cli/options.h"

namespace longhand::cli {
namespace {

using Json = nlohmann::ordered_json;

struct LexiconFlags {
  std::string model, terms, output;
  std::vector<std::string> text;
  int64_t suggest = 0;
};

Tokenizer tokenizer_of(const SafetensorsFile& file) {
  if (!file.has("tokenizer.model"))
    fail("{} has no SentencePiece model: terms stand behind the pieces of one", file.path());
  ConstTensor model = file.tensor("tokenizer.model");
  Tokenizer tokenizer({static_cast<const char*>(model.data()), static_cast<size_t>(model.bytes())});
  if (!tokenizer.takes_terms())
    fail("{}: its tokenizer changes a text or has no bytes to fall back on: terms need one that `prepare` made",
         file.path());
  return tokenizer;
}

/// How a text is cut with the new terms and without.
struct Count {
  int64_t before = 0, after = 0;
  std::set<int32_t> met;  // of the new tokens

  Count(const std::string& text, const Tokenizer& old, const Tokenizer& extended)
      : before(static_cast<int64_t>(old.encode(text).size())) {
    std::vector<int32_t> ids = extended.encode(text);
    after = static_cast<int64_t>(ids.size());
    for (int32_t id : ids)
      if (id >= old.vocab_size()) met.insert(id);
  }
};

/// The training text of a token file, its documents on lines of their own.
std::string decoded(const std::string& path) {
  TokenFile file(path);
  if (file.tokenizer_model().empty()) fail("{} has no tokenizer that would give back its text", path);
  Tokenizer tokenizer(file.tokenizer_model());
  std::string text;
  for (int64_t i = 0; i < file.train().size(); ++i) {
    int32_t id = file.train().at(i);
    text += id == tokenizer.end_of_document() ? "\n" : tokenizer.piece_bytes(id);
  }
  return text;
}

std::string read_texts(const std::vector<std::string>& paths) {
  std::string all;
  for (const std::string& path : paths)
    all += (path.ends_with(".safetensors") ? decoded(path) : read_text(path)) + "\n";
  return all;
}

void suggest(const LexiconFlags& flags, const Tokenizer& tokenizer) {
  if (flags.text.empty()) fail_usage("--suggest needs --text, which the terms are taken from");
  if (flags.suggest < 1) fail_usage("--suggest {}: at least one term", flags.suggest);
  std::string list;
  for (const std::string& word : suggest_terms(read_texts(flags.text), tokenizer, flags.suggest)) list += word + "\n";
  if (flags.output.empty())
    fmt::print("{}", list);
  else
    write_file(flags.output, list);
}

void add_terms(const LexiconFlags& flags, const SafetensorsFile& file, const Tokenizer& tokenizer, bool json) {
  if (flags.terms.empty() || flags.output.empty())
    fail_usage("--terms and --output are needed, or --suggest for a list of terms");
  int64_t words = read_config(file).vocab_size, old = tokenizer.vocab_size();
  if (words != old) fail("{} has rows for {} words and a tokenizer of {}", file.path(), words, old);
  std::vector<LexiconTerm> terms = read_lexicon(read_file(flags.terms), flags.terms, tokenizer);
  std::vector<std::vector<int32_t>> pieces;
  for (const LexiconTerm& term : terms) pieces.push_back(tokenizer.encode(term.text));
  std::string model = add_lexicon_terms(tokenizer.model(), terms);
  Tokenizer extended(model);
  std::optional<Count> count;
  if (!flags.text.empty()) count.emplace(read_texts(flags.text), tokenizer, extended);
  extend_vocabulary(file, flags.output, pieces, model);

  std::string rows = fmt::format("embedding.weight[{}:]", old);
  if (json) {
    Json line = {
        {"output", flags.output}, {"terms", terms.size()}, {"vocab_size", extended.vocab_size()}, {"rows", rows}};
    if (count)
      line["text"] = {
          {"tokens_before", count->before}, {"tokens_after", count->after}, {"terms_met", count->met.size()}};
    return fmt::print("{}\n", line.dump(-1, ' ', false, Json::error_handler_t::replace));
  }
  fmt::print("{}: {} tokens for the terms of {}, vocabulary {}; --train-only '{}' trains their rows alone\n",
             flags.output, terms.size(), flags.terms, extended.vocab_size(), rows);
  if (count)
    fmt::print("the text takes {} tokens, {} before ({:+.1f}%); {} of the new ones stand in it\n", count->after,
               count->before,
               100.0 * static_cast<double>(count->after - count->before) / std::max<double>(1, count->before),
               count->met.size());
}

void run_lexicon(const LexiconFlags& flags, const Common& common) {
  SafetensorsFile file(flags.model);
  Tokenizer tokenizer = tokenizer_of(file);
  if (flags.suggest != 0)
    suggest(flags, tokenizer);
  else
    add_terms(flags, file, tokenizer, common.json);
}

}  // namespace

void add_lexicon(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "lexicon", "add a domain's terms to tokenizer and weights");
  auto flags = std::make_shared<LexiconFlags>();
  command->add_option("--model,--init", flags->model, "weights with their tokenizer")->type_name("FILE")->required();
  command->add_option("--terms", flags->terms, "one term a line; behind a tab `anywhere`: inside longer words too")
      ->type_name("FILE");
  command->add_option("--output", flags->output, "weights file to write (with --suggest the list)")->type_name("FILE");
  command
      ->add_option("--text", flags->text, "text, or a token file: count its tokens before and after; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false);
  command
      ->add_option("--suggest", flags->suggest, "list this many words of --text that would save most tokens as terms")
      ->type_name("N");
  command->callback([flags, &common] { common.run = [flags, &common] { run_lexicon(*flags, common); }; });
}

}  // namespace longhand::cli
