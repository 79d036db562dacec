// Finds the terms of a lexicon in a text.
#pragma once

#include <bitset>
#include <cstdint>
#include <vector>

#include "longhand/lexicon.h"

namespace longhand {

class Lexicon {
 public:
  Lexicon() = default;
  explicit Lexicon(std::vector<LexiconTerm> terms);

  struct Match {
    size_t first = 0, bytes = 0;  // 0 bytes: there is none
    int32_t term = -1;
  };
  /// The first place at or behind `from` where a term stands, and the longest one there.
  Match find(std::string_view text, size_t from) const;

  const std::vector<LexiconTerm>& terms() const { return terms_; }
  bool empty() const { return terms_.empty(); }

 private:
  Match longest_at(std::string_view text, size_t first) const;

  std::vector<LexiconTerm> terms_;
  std::vector<int32_t> sorted_;  // terms by their text
  std::bitset<256> begins_;      // a term starts with this byte
};

/// Whether a script, that of this character, is written without blanks between words.
bool is_solid_script(int32_t character);

}  // namespace longhand
