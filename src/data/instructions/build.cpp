// Instruction sets from the help corpus.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "longhand/corpus.h"
#include "longhand/instructions.h"
#include "longhand/random.h"

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
  RandomStream random{.seed = seed, .step = step, .use = RandomUse::shuffle};
  for (size_t i = pairs.size(); i-- > 1;)
    std::swap(pairs[i], pairs[static_cast<uint64_t>(random.bits(i)) * (i + 1) >> 32]);
  return pairs;
}

}  // namespace

std::string build_translations(const BuildOptions& options) {
  if (options.languages.size() < 2) fail_usage("--languages: a translation needs two languages or more");
  std::vector<Texts> texts;
  for (const std::string& language : options.languages) texts.push_back(texts_of(options, language));
  int64_t directions = static_cast<int64_t>(options.languages.size() * (options.languages.size() - 1)), direction = 0;
  std::string lines;
  for (size_t from = 0; from < texts.size(); ++from)
    for (size_t to = 0; to < texts.size(); ++to) {
      if (from == to) continue;
      int64_t share = options.examples * (direction + 1) / directions - options.examples * direction / directions;
      const std::string &source = options.languages[from], &target = options.languages[to];
      auto named = language_names.find(target);
      std::vector<Pair> pairs = shared(texts[from], texts[to], options.seed, static_cast<uint64_t>(++direction));
      for (int64_t i = 0; i < std::min<int64_t>(share, static_cast<int64_t>(pairs.size())); ++i)
        lines +=
            nlohmann::ordered_json{{"instruction", fmt::format("Translate into {}.",
                                                               named == language_names.end() ? target : named->second)},
                                   {"input", pairs[i].from},
                                   {"output", pairs[i].to},
                                   {"task", source + "-" + target},
                                   {"source", pairs[i].source}}
                .dump() +
            '\n';
    }
  if (lines.empty()) fail("{}: no paragraph stands in two of these languages", options.directory);
  return lines;
}

}  // namespace longhand
