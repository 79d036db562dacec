#include "src/data/instructions/tagged_words.h"

#include <unicode/brkiter.h>
#include <unicode/uchar.h>
#include <unicode/utext.h>

#include <memory>

#include "longhand/error.h"

namespace longhand {

TaggedWords encode_words(const Tokenizer& tokenizer, const std::vector<std::string>& words, int64_t lookahead,
                         int64_t most) {
  TaggedWords out;
  int32_t end = tokenizer.end_of_document();
  out.tokens.push_back(end);
  for (size_t i = 0; i < words.size(); ++i) {
    std::vector<int32_t> pieces = tokenizer.encode(i > 0 ? " " + words[i] : words[i]);
    if (pieces.empty()) fail("word {} gives no token", i + 1);
    size_t first = 0;
    while (first + 1 < pieces.size() && tokenizer.piece_bytes(pieces[first]) == " ") ++first;
    int64_t place = static_cast<int64_t>(out.tokens.size() + first) + lookahead;
    if (place >= most || static_cast<int64_t>(out.tokens.size() + pieces.size()) > most) break;
    out.tokens.insert(out.tokens.end(), pieces.begin(), pieces.end());
    out.places.push_back(static_cast<int32_t>(place));
  }
  out.tokens.insert(out.tokens.end(), 2 + lookahead, end);
  if (static_cast<int64_t>(out.tokens.size()) > most + 1) out.tokens.resize(most + 1);
  return out;
}

std::vector<WordRange> word_ranges(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  std::unique_ptr<icu::BreakIterator> breaks(icu::BreakIterator::createWordInstance(icu::Locale::getRoot(), status));
  UText* utext = utext_openUTF8(nullptr, text.data(), static_cast<int64_t>(text.size()), &status);
  if (U_FAILURE(status)) fail("ICU has no word breaks: {}", u_errorName(status));
  breaks->setText(utext, status);
  std::vector<WordRange> ranges;
  for (int32_t begin = breaks->first(), end = breaks->next(); end != icu::BreakIterator::DONE;
       begin = end, end = breaks->next())
    if (!u_isUWhiteSpace(utext_char32At(utext, begin))) ranges.push_back({begin, end});
  utext_close(utext);
  return ranges;
}

}  // namespace longhand
