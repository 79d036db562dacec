// Words as a head for tags reads them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/text.h"

namespace longhand {

/// </s>, the words with a blank between them, and 2 + lookahead times </s>. The model reads from left to right: the tag
/// of a word is said `lookahead` tokens after its first one, at places[i]. Words whose place would pass `most` tokens
/// are left out at the end.
struct TaggedWords {
  std::vector<int32_t> tokens, places;
};
TaggedWords encode_words(const Tokenizer& tokenizer, const std::vector<std::string>& words, int64_t lookahead,
                         int64_t most);

/// Bytes [begin, end) of a word.
struct WordRange {
  int64_t begin, end;
};
/// The words of a text by Unicode's rules (UAX 29), marks of punctuation among them, blanks not.
std::vector<WordRange> word_ranges(std::string_view text);

}  // namespace longhand
