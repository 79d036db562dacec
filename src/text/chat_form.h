// How the turns of a conversation are marked: by the vocabulary's symbols where it has them, by words otherwise.
//
//   symbols:  </s> <|system|> text <|end|> <|user|> text <|end|> <|assistant|> text <|end|> ...
//   words:    </s> text \n \nUser: text \nAssistant: text ...
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longhand/text.h"

namespace longhand {

class ChatForm {
 public:
  explicit ChatForm(const Tokenizer& tokenizer);  // which outlives it

  std::vector<int32_t> start(const std::string& system) const;
  /// The user's turn and the beginning of the answer.
  std::vector<int32_t> turn(const std::string& line) const;
  /// The words of an answer, without what ends it.
  std::vector<int32_t> answer(const std::string& text) const;
  /// An answer given earlier, as it stands between two turns.
  std::vector<int32_t> reply(const std::string& text) const;

  bool ends(int32_t token) const;
  std::vector<int32_t> ends() const;  // the tokens for which the above holds
  int32_t end() const;                // what closes an answer that did not close itself, -1 = nothing
  std::vector<std::string> stops() const;

 private:
  bool has_symbols() const { return user_ >= 0 && assistant_ >= 0 && end_ >= 0; }
  void append(std::vector<int32_t>& tokens, const std::string& text) const;

  const Tokenizer& tokenizer_;
  int32_t system_, user_, assistant_, end_;
};

}  // namespace longhand
