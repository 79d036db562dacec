#include "src/text/lexicon.h"

#include <unicode/uchar.h>
#include <unicode/uscript.h>
#include <unicode/utf8.h>

#include <algorithm>
#include <numeric>

#include "longhand/error.h"

namespace longhand {
namespace {

UScriptCode script_of(UChar32 c) {
  UErrorCode status = U_ZERO_ERROR;
  return uscript_getScript(c, &status);
}

/// Whether two neighbours belong to one word.
bool joined(UChar32 before, UChar32 after) {
  auto in_word = [](UChar32 c) {
    if (c < 0) return false;
    return (u_isalnum(c) || c == '_' || (U_GET_GC_MASK(c) & U_GC_M_MASK)) && !is_solid_script(c) &&
           script_of(c) != USCRIPT_HANGUL;
  };
  return in_word(before) && in_word(after);
}

UChar32 character_before(std::string_view text, size_t at) {
  std::string_view near = text.substr(at - std::min<size_t>(at, 4), std::min<size_t>(at, 4));
  auto end = static_cast<int32_t>(near.size());
  UChar32 c = -1;
  if (end > 0) U8_PREV(near.data(), 0, end, c);
  return c;
}

UChar32 character_at(std::string_view text, size_t at) {
  std::string_view near = text.substr(at, 4);
  auto size = static_cast<int32_t>(near.size()), begin = 0;
  UChar32 c = -1;
  if (size > 0) U8_NEXT(near.data(), begin, size, c);
  return c;
}

bool at_word_boundary(std::string_view text, size_t at) {
  return !joined(character_before(text, at), character_at(text, at));
}

// The wire format of protocol buffers (protobuf.dev, "Encoding"): fields of a key and a value; varints of 7 bits a
// byte, the low ones first.
constexpr uint64_t terms_field = 1869;
enum Wire : uint8_t { varint = 0, eight_bytes = 1, bytes = 2, four_bytes = 5 };

struct Field {
  uint64_t number = 0, value = 0;  // value: of a varint
  std::string_view content;        // of bytes
};

class Fields {
 public:
  explicit Fields(std::string_view message) : rest_(message) {}
  bool done() const { return rest_.empty(); }

  Field next() {
    uint64_t key = take_varint();
    Field field;
    field.number = key >> 3;
    switch (key & 7) {
      case Wire::varint:
        field.value = take_varint();
        break;
      case Wire::eight_bytes:
        take(8);
        break;
      case Wire::bytes:
        field.content = take(take_varint());
        break;
      case Wire::four_bytes:
        take(4);
        break;
      default:
        broken();
    }
    return field;
  }

 private:
  [[noreturn]] static void broken() { fail("tokenizer: the bytes given are no SentencePiece model"); }
  std::string_view take(uint64_t count) {
    if (count > rest_.size()) broken();
    std::string_view part = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return part;
  }
  uint64_t take_varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    broken();
  }
  std::string_view rest_;
};

void put_varint(std::string& to, uint64_t value) {
  for (; value >= 0x80; value >>= 7) to += static_cast<char>(0x80 | (value & 0x7f));
  to += static_cast<char>(value);
}

void put_bytes(std::string& to, uint64_t field, std::string_view content) {
  put_varint(to, field << 3 | Wire::bytes), put_varint(to, content.size());
  to += content;
}

}  // namespace

bool is_solid_script(int32_t c) {
  constexpr UScriptCode solid[] = {USCRIPT_HAN, USCRIPT_HIRAGANA, USCRIPT_KATAKANA, USCRIPT_THAI,
                                   USCRIPT_LAO, USCRIPT_KHMER,    USCRIPT_MYANMAR};
  return std::find(std::begin(solid), std::end(solid), script_of(c)) != std::end(solid);
}

std::vector<LexiconTerm> lexicon_terms(std::string_view model) {
  std::vector<LexiconTerm> terms;
  for (Fields fields(model); !fields.done();) {
    Field field = fields.next();
    if (field.number != terms_field) continue;
    LexiconTerm term;
    for (Fields parts(field.content); !parts.done();) {
      Field part = parts.next();
      if (part.number == 1) term.text = part.content;
      if (part.number == 2) term.anywhere = part.value != 0;
    }
    if (term.text.empty()) fail("tokenizer: term {} of its lexicon is empty", terms.size());
    terms.push_back(std::move(term));
  }
  return terms;
}

std::string add_lexicon_terms(std::string_view model, const std::vector<LexiconTerm>& terms) {
  std::string extended(model);
  for (const LexiconTerm& term : terms) {
    std::string message;
    put_bytes(message, 1, term.text);
    if (term.anywhere) put_varint(message, 2 << 3 | Wire::varint), put_varint(message, 1);
    put_bytes(extended, terms_field, message);
  }
  return extended;
}

Lexicon::Lexicon(std::vector<LexiconTerm> terms) : terms_(std::move(terms)), sorted_(terms_.size()) {
  std::iota(sorted_.begin(), sorted_.end(), 0);
  std::stable_sort(sorted_.begin(), sorted_.end(),
                   [&](int32_t a, int32_t b) { return terms_[a].text < terms_[b].text; });
  for (const LexiconTerm& term : terms_) begins_.set(static_cast<unsigned char>(term.text[0]));
}

// Those of the sorted terms that agree with the text stand together; their number shrinks with every byte.
Lexicon::Match Lexicon::longest_at(std::string_view text, size_t first) const {
  Match match{.first = first};
  bool begins_word = at_word_boundary(text, first);
  auto low = sorted_.begin(), high = sorted_.end();
  for (size_t n = 0; low != high && first + n <= text.size(); ++n) {
    if (const LexiconTerm& term = terms_[*low]; term.text.size() == n) {
      if (term.anywhere || (begins_word && at_word_boundary(text, first + n))) match.bytes = n, match.term = *low;
      ++low;
    }
    if (first + n == text.size()) break;
    auto byte = [&](int32_t term) { return static_cast<unsigned char>(terms_[term].text[n]); };
    auto next = static_cast<unsigned char>(text[first + n]);
    low = std::partition_point(low, high, [&](int32_t term) { return byte(term) < next; });
    high = std::partition_point(low, high, [&](int32_t term) { return byte(term) == next; });
  }
  return match;
}

Lexicon::Match Lexicon::find(std::string_view text, size_t from) const {
  for (size_t i = from; i < text.size(); ++i)
    if (begins_.test(static_cast<unsigned char>(text[i])))
      if (Match match = longest_at(text, i); match.bytes > 0) return match;
  return {};
}

}  // namespace longhand
