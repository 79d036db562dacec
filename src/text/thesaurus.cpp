#include <unicode/unistr.h>

#include <algorithm>
#include <cctype>

#include "longhand/augment.h"
#include "longhand/files.h"
#include "longhand/safetensors.h"
#include "src/text/fold.h"

namespace longhand {
namespace {

/// Lines of a text with their numbers from 1, without the carriage return.
template <class Use>
void each_line(std::string_view text, Use&& use) {
  for (int64_t number = 1; !text.empty(); ++number) {
    size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), end + 1));
    if (line.ends_with('\r')) line.remove_suffix(1);
    use(number, line);
  }
}

std::string_view trimmed(std::string_view text) {
  size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") + 1 - first);
}

/// "word|2": an entry's head; the number of its meanings, or -1. The word may be empty: the German thesaurus has such an entry.
int64_t meanings(std::string_view line) {
  size_t bar = line.rfind('|');
  if (bar == std::string_view::npos) return -1;
  std::string_view digits = line.substr(bar + 1);
  bool number = !digits.empty() && digits.size() < 5 &&
                std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c); });
  return number ? std::stoll(std::string(digits)) : -1;
}

bool is_mythes(std::string_view text) {
  bool mythes = false;
  each_line(text.substr(0, 4096), [&](int64_t number, std::string_view line) {
    if (number == 1) mythes = !line.empty() && line.find_first_of(":, ") == std::string_view::npos;
    if (number == 2) mythes = mythes && meanings(line) >= 0;
  });
  return mythes;
}

}  // namespace

std::string folded(std::string_view word) {
  std::string out;
  icu::UnicodeString::fromUTF8({word.data(), static_cast<int32_t>(word.size())}).foldCase().toUTF8String(out);
  return out;
}

void Thesaurus::add(const std::string& path) {
  std::string text = read_file(path);
  if (text.starts_with("\xEF\xBB\xBF")) text.erase(0, 3);
  checksum_ = crc32c(text.data(), static_cast<int64_t>(text.size()), checksum_);
  bool mythes = is_mythes(text);
  if (mythes) {
    std::string encoding(trimmed(std::string_view(text).substr(0, text.find_first_of("\r\n"))));
    std::string name;
    for (char c : encoding)
      if (std::isalnum(static_cast<unsigned char>(c))) name += static_cast<char>(std::toupper(c));
    if (name != "UTF8")
      fail("{}: it says that it is in {}: convert it to UTF-8 (iconv) and write UTF-8 into its first line", path,
           printable(encoding));
  }
  if (int64_t byte = find_invalid_utf8(text); byte >= 0)
    fail("{}: byte {} is not valid UTF-8: a thesaurus in another encoding has to be converted (iconv)", path, byte);
  int64_t before = size();
  mythes ? add_mythes(path, text) : add_plain(path, text);
  if (size() == before && before == 0) fail("{}: holds no synonyms", path);
}

void Thesaurus::add_mythes(const std::string& path, std::string_view text) {
  std::string_view word;
  int64_t left = 0;
  each_line(text, [&](int64_t number, std::string_view line) {
    if (number == 1 || (left == 0 && line.empty())) return;
    if (left == 0) {
      left = meanings(line);
      if (left < 0) fail("{}:{}: an entry was expected, \"word|2\"", path, number);
      word = line.substr(0, line.rfind('|'));
      return;
    }
    --left;
    size_t bar = line.find('|');
    if (bar == std::string_view::npos) fail("{}:{}: synonyms were expected, \"(noun)|word|word\"", path, number);
    for (std::string_view rest = line.substr(bar + 1); !rest.empty();) {
      std::string_view synonym = rest.substr(0, rest.find('|'));
      rest.remove_prefix(std::min(rest.size(), synonym.size() + 1));
      std::string_view note = synonym.find('(') == std::string_view::npos ? "" : synonym.substr(synonym.find('('));
      if (note.find("antonym") == std::string_view::npos) put(word, synonym.substr(0, synonym.find('(')));
    }
  });
}

void Thesaurus::add_plain(const std::string& path, std::string_view text) {
  each_line(text, [&](int64_t number, std::string_view line) {
    line = trimmed(line);
    if (line.empty() || line.starts_with('#')) return;
    size_t colon = line.find(':');
    if (colon == std::string_view::npos || colon == 0)
      fail("{}:{}: an entry was expected, \"word: synonym, synonym\"", path, number);
    for (std::string_view rest = line.substr(colon + 1); !rest.empty();) {
      std::string_view synonym = rest.substr(0, rest.find(','));
      rest.remove_prefix(std::min(rest.size(), synonym.size() + 1));
      put(trimmed(line.substr(0, colon)), synonym);
    }
  });
}

void Thesaurus::put(std::string_view word, std::string_view synonym) {
  synonym = trimmed(synonym);
  std::string key = folded(word);
  if (key.empty() || synonym.empty() || folded(synonym) == key) return;
  std::vector<std::string>& list = entries_[key];
  if (std::find(list.begin(), list.end(), synonym) == list.end()) list.emplace_back(synonym);
}

const std::vector<std::string>* Thesaurus::find(std::string_view word) const {
  auto entry = entries_.find(folded(word));
  return entry == entries_.end() ? nullptr : &entry->second;
}

}  // namespace longhand
