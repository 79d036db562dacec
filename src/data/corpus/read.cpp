#include <algorithm>
#include <filesystem>
#include <unordered_map>
#include <unordered_set>

#include "longhand/corpus.h"
#include "longhand/error.h"
#include "longhand/files.h"
#include "longhand/text.h"

namespace longhand {
namespace {

namespace fs = std::filesystem;

// Our name of a language and its folder in the help packages.
constexpr std::pair<std::string_view, std::string_view> folders[] = {
    {"en", "en-US"}, {"zh", "zh-CN"}, {"de", "de"}, {"fr", "fr"}, {"es", "es"}, {"it", "it"},
    {"pt", "pt-BR"}, {"ru", "ru"},    {"ja", "ja"}, {"ko", "ko"}, {"nl", "nl"}, {"pl", "pl"}};

std::string folder_of(const std::string& language) {
  for (auto& [name, folder] : folders)
    if (name == language) return std::string(folder);
  std::string known;
  for (auto& [name, folder] : folders) known += fmt::format(" {}", name);
  fail_usage("no help pages in language \"{}\"; there are{}", language, known);
}

std::string read_utf8(const fs::path& path) {
  std::string text = read_file(path.string());
  if (int64_t at = find_invalid_utf8(text); at >= 0)
    fail("{}: byte {} (0x{:02x}) is not UTF-8; convert the file first", path.string(), at,
         static_cast<unsigned char>(text[at]));
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);  // byte order mark
  return text;
}

std::vector<fs::path> files_below(const fs::path& directory) {
  std::vector<fs::path> files;
  for (auto& entry : fs::recursive_directory_iterator(directory))
    if (entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// scripts/fetch_corpus.sh unpacks whole packages; a folder of languages as it stands there is taken as well.
fs::path help_root(const std::string& directory) {
  fs::path packaged = fs::path(directory) / "usr/share/libreoffice/help";
  return fs::is_directory(packaged) ? packaged : fs::path(directory);
}

void add_lines(std::vector<Document>& documents, const std::string& path, const std::string& text) {
  int64_t line = 0;
  for (size_t first = 0; first < text.size(); ++line) {
    size_t end = std::min(text.find('\n', first), text.size());
    size_t last = end > first && text[end - 1] == '\r' ? end - 1 : end;
    if (last > first) documents.push_back({fmt::format("{}:{}", path, line + 1), text.substr(first, last - first)});
    first = end + 1;
  }
}

using English = std::unordered_map<std::string, std::string>;  // "page\tid" -> text

std::string key(const Page& page, const Paragraph& paragraph) { return page.path + '\t' + paragraph.id; }

Corpus clean(const std::string& language, const std::vector<Page>& pages, const English& english) {
  Corpus corpus{language, {}};
  std::unordered_set<std::string> seen;
  for (const Page& page : pages) {
    std::string text;
    for (const Paragraph& paragraph : page.paragraphs) {
      auto same = english.find(key(page, paragraph));
      if (same != english.end() && same->second == paragraph.text) continue;
      if (!seen.insert(paragraph.text).second) continue;
      if (!text.empty()) text += '\n';
      text += paragraph.text;
    }
    if (!text.empty()) corpus.documents.push_back({page.path, std::move(text)});
  }
  return corpus;
}

}  // namespace

int64_t Corpus::bytes() const {
  int64_t total = 0;
  for (const Document& d : documents) total += static_cast<int64_t>(d.text.size());
  return total;
}

std::vector<std::string> help_languages() {
  std::vector<std::string> names;
  for (auto& [name, folder] : folders) names.emplace_back(name);
  return names;
}

/// Every page of a language as `parse` reads it, in order of their paths.
template <class PageOf, class Parse>
static std::vector<PageOf> read_pages(const std::string& directory, const std::string& language, Parse&& parse) {
  fs::path root = help_root(directory) / folder_of(language) / "text";
  if (!fs::is_directory(root))
    fail("{}: no help pages in language \"{}\"; run scripts/fetch_corpus.sh {}, or give --text FILE", directory,
         language, directory);
  std::vector<PageOf> pages;
  for (const fs::path& path : files_below(root)) {
    if (path.extension() != ".html") continue;
    pages.push_back({path.lexically_relative(root).generic_string(), parse(read_utf8(path))});
  }
  return pages;
}

std::vector<Page> read_help_pages(const std::string& directory, const std::string& language) {
  return read_pages<Page>(directory, language, parse_help_page);
}

std::vector<MarkedPage> read_marked_help_pages(const std::string& directory, const std::string& language) {
  return read_pages<MarkedPage>(directory, language, parse_marked_help_page);
}

std::vector<Corpus> read_help_corpora(const std::string& directory, const std::vector<std::string>& languages) {
  std::vector<Page> english_pages = read_help_pages(directory, "en");
  English english;
  for (const Page& page : english_pages)
    for (const Paragraph& paragraph : page.paragraphs) english.emplace(key(page, paragraph), paragraph.text);
  std::vector<Corpus> corpora;
  for (const std::string& language : languages)
    corpora.push_back(language == "en" ? clean(language, english_pages, {})
                                       : clean(language, read_help_pages(directory, language), english));
  return corpora;
}

Corpus read_text_corpus(const std::string& language, const std::vector<std::string>& paths, bool split_lines) {
  Corpus corpus{language, {}};
  for (const std::string& given : paths) {
    if (!fs::exists(given)) fail("{}: no such file", given);
    bool directory = fs::is_directory(given);
    fs::path parent = directory ? fs::path(given) : fs::path(given).parent_path();
    for (const fs::path& file : directory ? files_below(given) : std::vector<fs::path>{given}) {
      std::string path = file.lexically_relative(parent.empty() ? "." : parent).generic_string();
      std::string text = read_utf8(file);
      if (split_lines)
        add_lines(corpus.documents, path, text);
      else if (!text.empty())
        corpus.documents.push_back({path, std::move(text)});
    }
  }
  return corpus;
}

}  // namespace longhand
