// Instruction sets: which maker makes which, and the sets of translations.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "longhand/corpus.h"
#include "src/data/instructions/build_parts.h"

namespace longhand {
namespace {

const std::map<std::string, const char*> language_names = {
    {"en", "English"},    {"de", "German"},  {"fr", "French"},    {"es", "Spanish"},  {"it", "Italian"},
    {"pt", "Portuguese"}, {"ru", "Russian"}, {"zh", "Chinese"},   {"ja", "Japanese"}, {"ko", "Korean"},
    {"ar", "Arabic"},     {"nl", "Dutch"},   {"pl", "Polish"},    {"tr", "Turkish"},  {"hi", "Hindi"},
    {"sv", "Swedish"},    {"cs", "Czech"},   {"vi", "Vietnamese"}};

using Texts = std::map<std::pair<std::string, std::string>, std::string>;  // (page, paragraph) -> text

Texts texts_of(const BuildOptions& options, const std::string& language) {
  Texts texts;
  for (const Page& page : read_help_pages(options.directory, language))
    for (const Paragraph& paragraph : page.paragraphs)
      if (static_cast<int64_t>(paragraph.text.size()) <= options.largest)
        texts[{page.path, paragraph.id}] = paragraph.text;
  return texts;
}

struct Pair {
  std::string source, from, to;
};

/// What two languages share and say differently, each text once, in an order drawn from the seed.
std::vector<Pair> shared(const Texts& from, const Texts& to, uint64_t seed, uint64_t step) {
  std::vector<Pair> pairs;
  std::set<std::string> seen;
  for (const auto& [key, text] : from) {
    auto other = to.find(key);
    bool good = other != to.end() && other->second != text && !other->second.empty() && text.size() > 8;
    if (good && seen.insert(text).second) pairs.push_back({key.first, text, other->second});
  }
  shuffle(pairs, seed, step);
  return pairs;
}

}  // namespace

std::string language_name(const std::string& code) {
  auto named = language_names.find(code);
  return named == language_names.end() ? code : named->second;
}

std::string example_line(const std::string& instruction, const std::string& input, const std::string& output,
                         const std::string& task, const std::string& source) {
  nlohmann::ordered_json line = {{"instruction", instruction}};
  if (!input.empty()) line["input"] = input;
  line["output"] = output, line["task"] = task, line["source"] = source;
  return line.dump() + '\n';
}

std::string build_translations(const BuildOptions& options) {
  if (options.languages.size() < 2) fail_usage("--languages: a translation needs two languages or more");
  std::vector<Texts> texts;
  for (const std::string& language : options.languages) texts.push_back(texts_of(options, language));
  int64_t directions = static_cast<int64_t>(options.languages.size() * (options.languages.size() - 1)), direction = 0;
  std::string lines;
  for (size_t from = 0; from < texts.size(); ++from)
    for (size_t to = 0; to < texts.size(); ++to) {
      if (from == to) continue;
      int64_t share = share_of(options.examples, direction, directions);
      const std::string &source = options.languages[from], &target = options.languages[to];
      std::vector<Pair> pairs = shared(texts[from], texts[to], options.seed, static_cast<uint64_t>(++direction));
      pairs.resize(std::min<size_t>(pairs.size(), share));
      for (const Pair& pair : pairs)
        lines += example_line(fmt::format("Translate into {}.", language_name(target)), pair.from, pair.to,
                              source + "-" + target, pair.source);
    }
  if (lines.empty()) fail("{}: no paragraph stands in two of these languages", options.directory);
  return lines;
}

std::string build_instructions(BuildOptions options) {
  bool labelled = options.task == "topics" || options.task == "tags";
  if (options.languages.empty() && labelled) options.languages = {"en"};
  if (options.languages.empty() && options.task != "translation") options.languages = help_languages();
  if (options.examples < 1) fail_usage("--examples {}: at least 1", options.examples);
  if (options.task == "translation") return build_translations(options);
  if (options.task == "numbers" || options.task == "dates" || options.task == "amounts") return build_spelled(options);
  if (options.task == "terms" || options.task == "cloze") return build_from_pages(options);
  if (labelled) return build_labelled(options);
  fail_usage("--task {}: it takes translation, numbers, dates, amounts, terms, cloze, topics or tags", options.task);
}

}  // namespace longhand
