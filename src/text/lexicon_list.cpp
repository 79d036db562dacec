// From a list of terms to tokens, and from a text to a list.
#include <unicode/brkiter.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <map>
#include <unordered_map>

#include "longhand/error.h"
#include "src/text/lexicon.h"

namespace longhand {
namespace {

constexpr size_t longest_term = 256;

int32_t first_character(std::string_view text) {
  int32_t at = 0, c = 0;
  U8_NEXT(text.data(), at, static_cast<int32_t>(text.size()), c);
  return c;
}

/// What makes a text unfit as a term, or "".
std::string fault_of(std::string_view term, const Tokenizer& tokenizer) {
  if (term.empty()) return "is empty";
  if (find_invalid_utf8(term) >= 0) return "is not valid UTF-8";
  if (term.size() > longest_term) return fmt::format("has {} bytes, a term at most {}", term.size(), longest_term);
  if (term.front() == ' ' || term.back() == ' ') return "begins or ends with a blank";
  for (int32_t at = 0, c = 0; at < static_cast<int32_t>(term.size());) {
    U8_NEXT(term.data(), at, static_cast<int32_t>(term.size()), c);
    if (u_charType(c) == U_CONTROL_CHAR) return fmt::format("holds the control character U+{:04X}", c);
  }
  for (size_t open = term.find('<'); open != term.npos; open = term.find('<', open + 1))
    for (size_t close = term.find('>', open); close != term.npos; close = term.find('>', close + 1))
      if (std::string_view symbol = term.substr(open, close + 1 - open); tokenizer.symbol(symbol) >= 0)
        return fmt::format("holds {}, a symbol of the tokenizer", symbol);
  return "";
}

/// Calls on(word) for every word of letters.
template <class Visitor>
void visit_words(std::string_view text, Visitor&& on) {
  UErrorCode status = U_ZERO_ERROR;
  std::unique_ptr<icu::BreakIterator> breaks(icu::BreakIterator::createWordInstance(icu::Locale::getRoot(), status));
  if (!breaks) fail("ICU has no word boundaries: {}", u_errorName(status));
  while (!text.empty()) {
    std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), line.size() + 1));
    icu::UnicodeString wide = icu::UnicodeString::fromUTF8({line.data(), static_cast<int32_t>(line.size())});
    breaks->setText(wide);
    int32_t begin = breaks->first();
    for (int32_t end = breaks->next(); end != icu::BreakIterator::DONE; begin = end, end = breaks->next()) {
      std::string word;
      if (breaks->getRuleStatus() >= UBRK_WORD_LETTER) on(wide.tempSubStringBetween(begin, end).toUTF8String(word));
    }
  }
}

}  // namespace

std::vector<LexiconTerm> read_lexicon(std::string_view list, const std::string& path, const Tokenizer& tokenizer) {
  std::vector<LexiconTerm> terms;
  std::map<std::string, int64_t, std::less<>> lines;
  int64_t line = 0;
  while (!list.empty()) {
    std::string_view term = list.substr(0, list.find('\n'));
    list.remove_prefix(std::min(list.size(), term.size() + 1)), ++line;
    if (term.ends_with('\r')) term.remove_suffix(1);
    std::string_view option;
    if (size_t tab = term.find('\t'); tab != term.npos) option = term.substr(tab + 1), term = term.substr(0, tab);
    if (!option.empty() && option != "anywhere")
      fail("{}:{}: behind the tab stands \"{}\", it takes anywhere", path, line, option);
    if (std::string fault = fault_of(term, tokenizer); !fault.empty()) fail("{}:{}: the term {}", path, line, fault);
    if (auto [before, fresh] = lines.emplace(term, line); !fresh)
      fail("{}:{}: \"{}\" stands in line {} already", path, line, term, before->second);
    bool blank = !is_solid_script(first_character(term));
    std::string running = fmt::format("{}{}", blank ? " " : "", term);  // as it stands within a line
    if (tokenizer.encode(running).size() == 1) fail("{}:{}: \"{}\" is a token already", path, line, term);
    terms.push_back({running, option == "anywhere"});
    if (blank && tokenizer.encode(term).size() > 1) terms.push_back({std::string(term), option == "anywhere"});
  }
  if (terms.empty()) fail("{} holds no terms", path);
  return terms;
}

std::vector<std::string> suggest_terms(std::string_view text, const Tokenizer& tokenizer, int64_t count) {
  std::unordered_map<std::string, int64_t> times;
  visit_words(text, [&](const std::string& word) { ++times[word]; });
  struct Candidate {
    int64_t saved;
    std::string word;
  };
  std::vector<Candidate> candidates;
  for (auto& [word, n] : times) {
    std::string form = is_solid_script(first_character(word)) ? word : " " + word;
    auto tokens = static_cast<int64_t>(tokenizer.encode(form).size());
    if (n > 1 && tokens > 1 && fault_of(word, tokenizer).empty()) candidates.push_back({n * (tokens - 1), word});
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.saved != b.saved ? a.saved > b.saved : a.word < b.word;
  });
  std::vector<std::string> words;
  for (Candidate& c : candidates)
    if (static_cast<int64_t>(words.size()) < count) words.push_back(std::move(c.word));
  return words;
}

}  // namespace longhand
