// Texts with labels and words with tags, from the markup and the folders of the help corpus.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "longhand/corpus.h"
#include "src/data/instructions/build_parts.h"
#include "src/data/instructions/tagged_words.h"

namespace longhand {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t fewest_words = 4;

/// The part of the office suite that a page is about; "" for pages about all of it.
std::string module_of(const std::string& path) {
  static const std::map<std::string, const char*> modules = {
      {"swriter", "writer"}, {"scalc", "calc"},   {"simpress", "impress"}, {"sdraw", "draw"},
      {"smath", "math"},     {"sbasic", "basic"}, {"schart", "chart"},     {"sdatabase", "base"}};
  auto found = modules.find(path.substr(0, path.find('/')));
  return found == modules.end() ? "" : found->second;
}

/// Lines of one language, and where the same text comes again.
struct Lines {
  std::vector<std::string> list;
  std::map<std::string, size_t> seen;  // text -> its place; npos once it has been taken back
};

void add_topic(const MarkedPage& page, const MarkedParagraph& paragraph, const std::string& language, Lines& lines) {
  std::string module = module_of(page.path);
  if (module.empty()) return;
  Json line = {{"text", paragraph.text}, {"label", module}};
  line["task"] = "topics-" + language, line["source"] = page.path;
  auto [earlier, fresh] = lines.seen.emplace(paragraph.text, lines.list.size());
  if (fresh) return lines.list.push_back(line.dump() + '\n');
  if (earlier->second == std::string::npos) return;
  std::string& other = lines.list[earlier->second];
  if (!other.empty() && Json::parse(other)["label"] != module) other.clear();  // it says nothing about its module
}

/// Tags of the words that lie inside a mark. Of paragraphs without one every fourth is taken.
void add_tagged(const MarkedPage& page, const MarkedParagraph& paragraph, const std::string& language, Lines& lines,
                int64_t& plain) {
  std::vector<WordRange> ranges = word_ranges(paragraph.text);
  if (paragraph.marks.empty() && plain++ % 4) return;
  if (ranges.size() < fewest_words || !lines.seen.emplace(paragraph.text, 0).second) return;
  std::vector<std::string> words, tags;
  const Mark* before = nullptr;
  for (const WordRange& range : ranges) {
    auto inside = [&](const Mark& mark) { return mark.begin <= range.begin && range.end <= mark.end; };
    auto mark = std::find_if(paragraph.marks.begin(), paragraph.marks.end(), inside);
    const Mark* here = mark == paragraph.marks.end() ? nullptr : &*mark;
    words.push_back(paragraph.text.substr(range.begin, range.end - range.begin));
    tags.push_back(!here ? "O" : (here == before ? "I-" : "B-") + here->type);
    before = here;
  }
  Json line = {{"tokens", words}, {"tags", tags}, {"task", "tags-" + language}, {"source", page.path}};
  lines.list.push_back(line.dump() + '\n');
}

}  // namespace

std::string build_labelled(const BuildOptions& options) {
  bool topics = options.task == "topics";
  int64_t languages = static_cast<int64_t>(options.languages.size());
  std::string all;
  for (int64_t l = 0; l < languages; ++l) {
    const std::string& language = options.languages[l];
    Lines lines;
    int64_t plain = 0;
    for (const MarkedPage& page : read_marked_help_pages(options.directory, language))
      for (const MarkedParagraph& paragraph : page.paragraphs) {
        auto bytes = static_cast<int64_t>(paragraph.text.size());
        if (bytes > options.largest) continue;
        if (!topics)
          add_tagged(page, paragraph, language, lines, plain);
        else if (word_ranges(paragraph.text).size() >= fewest_words)
          add_topic(page, paragraph, language, lines);
      }
    std::erase(lines.list, "");
    shuffle(lines.list, options.seed, static_cast<uint64_t>(l));
    lines.list.resize(std::min<size_t>(lines.list.size(), share_of(options.examples, l, languages)));
    for (const std::string& line : lines.list) all += line;
  }
  if (all.empty()) fail("{}: nothing there makes an example of --task {}", options.directory, options.task);
  return all;
}

}  // namespace longhand
