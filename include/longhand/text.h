// Tokenizer: SentencePiece, or a vocabulary of whole words, behind a small face. Its bytes travel inside weight and
// token files.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace longhand {

class Tokenizer {
 public:
  /// A serialized SentencePiece model (the tensor `tokenizer.model`), with the terms of a lexicon that it may carry
  /// (longhand/lexicon.h); fails when it does not parse.
  explicit Tokenizer(std::string_view model);
  /// A vocabulary of words (the tensor `tokenizer.words`): one a line, <unk> and <eos> among them. A text is cut at
  /// blanks, words that are not there become <unk>, line breaks <eos>; fails with the line that is no word.
  static Tokenizer of_words(std::string_view list);

  std::vector<int32_t> encode(std::string_view text) const;  // UTF-8; no symbols are added
  std::string decode(const std::vector<int32_t>& ids) const;
  /// The bytes that a token adds to a text; a byte-fallback token gives its single byte, control symbols give nothing.
  std::string piece_bytes(int32_t id) const;
  int64_t vocab_size() const;  // pieces, and behind them the terms of a lexicon
  int64_t terms() const;
  /// Whether it may have terms: a model made by `prepare`, whose tokens give back every text as it was.
  bool takes_terms() const;
  int32_t end_of_document() const;              // "</s>"; of words: "<eos>"
  int32_t symbol(std::string_view name) const;  // id of a user-defined symbol, -1 when absent
  std::string_view model() const;

 private:
  Tokenizer() = default;
  struct State;
  std::shared_ptr<State> state_;
};

/// Turns a stream of tokens into valid UTF-8 pieces: bytes of an unfinished character wait for the rest.
class Utf8Stream {
 public:
  std::string push(std::string_view bytes);  // what is complete
  std::string finish();                      // the rest, replaced by U+FFFD where it is broken

 private:
  std::string pending_;
};

/// Position of the first byte that is not valid UTF-8, or -1.
int64_t find_invalid_utf8(std::string_view text);

}  // namespace longhand
