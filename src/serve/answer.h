// The answer to a text request: one JSON object, or server-sent events, as OpenAI's API has them.
//
//   data: {chunk}\n\n   a piece of one choice, its index in it
//   data: {"error":…}   where writing failed after the answer had begun; nothing follows
//   data: [DONE]        the end
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/serve/engine.h"
#include "src/serve/request.h"

namespace longhand::serve {

/// "data: " before every line, an empty line behind.
std::string sse(std::string_view data);

std::string base64(std::string_view bytes);

class TextAnswer {
 public:
  struct Head {
    std::string id, model, variant;  // variant empty = no experiment
    int64_t created = 0;             // seconds since 1970
    uint64_t seed = 0;
  };
  /// `prompt_tokens` of all prompts together; `echoed` has the text before the continuations of each prompt, or is
  /// empty.
  TextAnswer(const TextRequest& request, Head head, const Tokenizer& tokenizer, int64_t prompt_tokens,
             std::vector<std::string> echoed);

  /// Takes a step of choice `index` (of all prompts' choices); returns its server-sent event, empty when nothing shows.
  std::string take(int32_t index, const Event& event);

  std::string begin() const;  // events before the first step
  std::string end() const;    // events after the last one
  std::string whole() const;  // everything taken, as one object

  const std::string& id() const { return head_.id; }
  int64_t written() const { return written_; }  // tokens of the texts

 private:
  struct Choice {
    std::string text;
    std::vector<TokenNote> tokens;
    int64_t characters = 0;  // of the tokens so far
    bool started = false;    // something other than blanks has been shown
    Finish finish = Finish::none;
  };
  std::string event_of(int32_t index, const Choice& choice, const std::string& piece, int64_t first_character,
                       const Event& event) const;

  const TextRequest& request_;
  Head head_;
  const Tokenizer& tokenizer_;
  int64_t prompt_tokens_, written_ = 0;
  std::vector<std::string> echoed_;
  std::vector<Choice> choices_;
};

}  // namespace longhand::serve
