// Terms of a domain as tokens of their own, behind the pieces of a tokenizer. A model's rows for them: vocabulary.h.
//
// Terms travel inside the serialized SentencePiece model, under one of the field numbers that its format leaves to
// others, so that the tensor `tokenizer.model` of a file is all there is to carry, and SentencePiece still opens it:
//
//   extend sentencepiece.ModelProto { repeated Term terms = 1869; }
//   message Term { string text = 1;  bool anywhere = 2; }
//
// Their ids follow those of the pieces, in this order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/text.h"

namespace longhand {

/// A text that is one token wherever it stands: not within a longer word, unless `anywhere`. Scripts that are written
/// without blanks have no words in this sense, and Korean particles may follow a term.
struct LexiconTerm {
  std::string text;
  bool anywhere = false;
};

/// The terms in a serialized model, in the order of their ids. Fails when its bytes are no protocol buffer.
std::vector<LexiconTerm> lexicon_terms(std::string_view model);

/// A serialized model with more terms, behind those that it has; everything else stays as it is.
std::string add_lexicon_terms(std::string_view model, const std::vector<LexiconTerm>& terms);

/// The tokens that a list gives, one term a line, behind a tab `anywhere`. The pieces of a tokenizer hold the blank
/// before a word, so a term becomes two tokens, with a blank before it and without (one where its script has no
/// blanks, or the form without is a token already). Fails with `path`, the line, and what is wrong with it: empty, twice
/// there, longer than 256 bytes, blanks around it, control characters, one of the tokenizer's symbols inside, or a
/// token already.
std::vector<LexiconTerm> read_lexicon(std::string_view list, const std::string& path, const Tokenizer& tokenizer);

/// The words of a text that take more than one token, those first that would save most as terms, at most `count`.
std::vector<std::string> suggest_terms(std::string_view text, const Tokenizer& tokenizer, int64_t count);

}  // namespace longhand
