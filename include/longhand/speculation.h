// Drafts: tokens that a text is likely to go on with, found in the text itself. The model reads them in the same pass
// as its next token, and those that it would have drawn anyway are kept: what is written is the same, in fewer passes.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace longhand {

/// The continuation of the longest end of `text`, of 2 to 16 tokens, that stands in it before; the last place where it
/// does, among equals. A continuation that reaches the text's end goes on into itself. At most `count` tokens, none
/// where nothing matches. (Saxena 2023, "Prompt Lookup Decoding"; Yang et al. 2023, "Inference with Reference".)
std::vector<int32_t> find_draft(std::span<const int32_t> text, int64_t count);

/// How far ahead a text is drafted: 1, 3, 7, ... tokens, which with the text's own last one make a pass of 2, 4, 8
/// rows. A draft that was right as a whole is followed by one of the next size, another one by the least size that
/// would have held what was right, so that a text in which nothing repeats pays for a row now and then.
struct Speculation {
  static constexpr int64_t limit = 31;  // of `most`

  int64_t most = 0;                   // tokens of a draft at most; 0 = none are made
  int64_t depth = 1;                  // of the next draft, while below `most`
  int64_t drafted = 0, accepted = 0;  // tokens so far

  void learn(int64_t drafted_now, int64_t accepted_now);
};

}  // namespace longhand
