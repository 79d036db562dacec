#include "longhand/augment.h"

#include <unicode/brkiter.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <unicode/uscript.h>

#include <algorithm>
#include <set>

#include "src/text/fold.h"

namespace longhand {
namespace {

/// A stretch of a text between two of ICU's word boundaries.
struct Piece {
  icu::UnicodeString text;
  bool word = false;   // letters
  bool solid = false;  // a script that is written without blanks
  bool first = false;  // word of a sentence
  bool free = false;   // may be touched
  std::string utf8() const {
    std::string out;
    text.toUTF8String(out);
    return out;
  }
};

bool is_solid(UChar32 c) {
  UErrorCode status = U_ZERO_ERROR;
  UScriptCode script = uscript_getScript(c, &status);
  return script == USCRIPT_HAN || script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA || script == USCRIPT_THAI;
}

template <class Test>
bool any_character(const icu::UnicodeString& text, Test&& test) {
  for (int32_t i = 0; i < text.length(); i = text.moveIndex32(i, 1))
    if (test(text.char32At(i))) return true;
  return false;
}

/// Marks of code, paths, addresses and placeholders: what hangs together with one is left alone.
bool is_mark(UChar32 c) {
  return u_isdigit(c) ||
         (c < 128 && std::string_view("{}<>[]%$@#\\/_=|~^*&`+").find(static_cast<char>(c)) != std::string_view::npos);
}

bool ends_sentence(UChar32 c) {
  return c == '.' || c == '!' || c == '?' || c == ':' || c == '\n' || c == 0x3002 || c == 0xff01 || c == 0xff1f;
}

bool is_capitalised(const icu::UnicodeString& word) {
  UChar32 first = word.char32At(0);
  return u_isupper(first) || u_istitle(first);
}

int count_capitals(const icu::UnicodeString& word) {
  int count = 0;
  any_character(word, [&](UChar32 c) { return count += u_isupper(c), false; });
  return count;
}

std::vector<Piece> cut(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  thread_local std::unique_ptr<icu::BreakIterator> words(
      icu::BreakIterator::createWordInstance(icu::Locale::getRoot(), status));
  if (!words) fail("ICU has no word boundaries: {}", u_errorName(status));
  icu::UnicodeString all = icu::UnicodeString::fromUTF8({text.data(), static_cast<int32_t>(text.size())});
  words->setText(all);
  std::vector<Piece> pieces;
  bool first = true;
  int32_t begin = words->first();
  for (int32_t end = words->next(); end != icu::BreakIterator::DONE; begin = end, end = words->next()) {
    Piece piece{.text = icu::UnicodeString(all, begin, end - begin)};
    piece.word = words->getRuleStatus() >= UBRK_WORD_LETTER;
    piece.solid = piece.word && is_solid(piece.text.char32At(0));
    piece.first = piece.word && first;
    if (piece.word || any_character(piece.text, [](UChar32 c) { return u_isdigit(c); })) first = false;
    if (any_character(piece.text, ends_sentence)) first = true;
    pieces.push_back(std::move(piece));
  }
  return pieces;
}

/// Numbers, placeholders, and what hangs together with them: up to the next blank, or a script without blanks; {...}
/// and
/// <...> whole.
std::vector<bool> marked(const std::vector<Piece>& pieces) {
  std::vector<bool> fixed(pieces.size());
  auto joins = [&](size_t i) {
    return !pieces[i].solid && !any_character(pieces[i].text, [](UChar32 c) { return u_isUWhiteSpace(c); });
  };
  UChar32 closing = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (closing) fixed[i] = true;
    UChar32 c = pieces[i].text.char32At(0);
    if (closing && (c == closing || c == '\n')) closing = 0;
    if (c == '{' || c == '<') closing = c == '{' ? '}' : '>';
    if (!any_character(pieces[i].text, is_mark)) continue;
    fixed[i] = true;
    for (size_t j = i; j-- > 0 && joins(j);) fixed[j] = true;
    for (size_t j = i + 1; j < pieces.size() && joins(j); ++j) fixed[j] = true;
  }
  return fixed;
}

std::set<std::string> words_of(std::string_view text) {
  std::set<std::string> words;
  for (const Piece& piece : cut(text))
    if (piece.word) words.insert(folded(piece.utf8()));
  return words;
}

void find_free(std::vector<Piece>& pieces, const std::set<std::string>& kept, bool nouns_capitalised) {
  std::vector<bool> fixed = marked(pieces);
  std::set<std::string> names;
  for (size_t i = 0; i < pieces.size(); ++i) {
    Piece& p = pieces[i];
    bool name = !nouns_capitalised && !p.first && is_capitalised(p.text);
    if (p.word && name) names.insert(folded(p.utf8()));
    p.free = p.word && !fixed[i] && !name && count_capitals(p.text) < 2 && !kept.contains(folded(p.utf8()));
  }
  for (Piece& p : pieces) p.free = p.free && !(p.first && names.contains(folded(p.utf8())));
}

}  // namespace

struct Augmenter::State {
  AugmentOptions options;
  Thesaurus everywhere;
  std::map<std::string, Thesaurus> by_language;

  const std::vector<std::string>* synonyms(const std::string& word, const std::string& language) const {
    auto own = by_language.find(language);
    const std::vector<std::string>* list = own == by_language.end() ? nullptr : own->second.find(word);
    return list ? list : everywhere.find(word);
  }
};

Augmenter::Augmenter(const AugmentOptions& options) : state_(std::make_shared<State>()) {
  state_->options = options;
  for (const std::string& entry : options.thesauri) {
    size_t equals = entry.find('=');
    bool named = equals == 2 || equals == 3;
    Thesaurus& to = named ? state_->by_language[entry.substr(0, equals)] : state_->everywhere;
    to.add(named ? entry.substr(equals + 1) : entry);
  }
}

const AugmentOptions& Augmenter::options() const { return state_->options; }

uint32_t Augmenter::checksum() const {
  uint32_t sum = state_->everywhere.checksum();
  for (const auto& [language, thesaurus] : state_->by_language) sum = sum * 31 + thesaurus.checksum();
  return sum;
}

namespace {

/// Numbers of one text, drawn one after the other.
class Draws {
 public:
  Draws(uint64_t seed, uint64_t draw) : random_{.seed = seed, .step = draw, .use = RandomUse::augmentation} {}
  bool happens(double probability) { return uniform(random_.bits(next_++)) < probability; }
  size_t below(size_t count) { return static_cast<uint64_t>(random_.bits(next_++)) * count >> 32; }

 private:
  RandomStream random_;
  uint64_t next_ = 0;
};

/// A synonym with the capital of the word that it stands for.
icu::UnicodeString in_place_of(const icu::UnicodeString& word, const std::string& synonym) {
  icu::UnicodeString text = icu::UnicodeString::fromUTF8(synonym);
  if (is_capitalised(word) && text.length() > 0) {
    int32_t length = U16_LENGTH(text.char32At(0));
    text.replace(0, length, icu::UnicodeString(text, 0, length).toUpper());
  }
  return text;
}

}  // namespace

std::string Augmenter::text(std::string_view text, std::string_view kept, const std::string& language,
                            uint64_t draw) const {
  const AugmentOptions& o = state_->options;
  std::vector<Piece> pieces = cut(text);
  find_free(pieces, words_of(kept), language == "de" || language == "lb");
  std::vector<size_t> free;
  for (size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].free) free.push_back(i);
  Draws draws(o.seed, draw);
  const std::vector<Piece> before = pieces;
  auto synonym = [&](const Piece& of) {
    const std::vector<std::string>* list = state_->synonyms(of.utf8(), language);
    return list ? std::string((*list)[draws.below(list->size())]) : std::string();
  };
  for (size_t i : free)
    if (draws.happens(o.synonyms))
      if (std::string other = synonym(before[i]); !other.empty()) pieces[i].text = in_place_of(before[i].text, other);
  for (size_t n = 0; n + 1 < free.size(); ++n) {
    size_t a = free[n], b = free[n + 1];
    bool together = b == a + 1 || (b == a + 2 && before[a + 1].text == icu::UnicodeString(" "));
    if (!together || before[a].first || !draws.happens(o.shuffles)) continue;
    std::swap(pieces[a].text, pieces[b].text);
    ++n;
  }
  for (size_t i : free) {
    if (!draws.happens(o.insertions)) continue;
    const Piece& source = before[free[draws.below(free.size())]];
    std::string other = synonym(source);
    icu::UnicodeString word = other.empty() ? source.text : icu::UnicodeString::fromUTF8(other);
    if (source.first) word = other.empty() ? icu::UnicodeString(word).toLower() : word;
    pieces[i].text += (pieces[i].solid ? icu::UnicodeString() : icu::UnicodeString(" ")) + word;
  }
  std::string out;
  for (const Piece& piece : pieces) piece.text.toUTF8String(out);
  return out;
}

}  // namespace longhand
