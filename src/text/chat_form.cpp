#include "src/text/chat_form.h"

namespace longhand {

ChatForm::ChatForm(const Tokenizer& tokenizer)
    : tokenizer_(tokenizer),
      system_(tokenizer.symbol("<|system|>")),
      user_(tokenizer.symbol("<|user|>")),
      assistant_(tokenizer.symbol("<|assistant|>")),
      end_(tokenizer.symbol("<|end|>")) {}

std::vector<int32_t> ChatForm::start(const std::string& system) const {
  std::vector<int32_t> tokens = {tokenizer_.end_of_document()};
  if (system.empty()) return tokens;
  if (has_symbols() && system_ >= 0) tokens.push_back(system_);
  append(tokens, has_symbols() ? system : system + "\n");
  if (has_symbols()) tokens.push_back(end_);
  return tokens;
}

std::vector<int32_t> ChatForm::turn(const std::string& line) const {
  std::vector<int32_t> tokens;
  if (has_symbols()) tokens.push_back(user_);
  append(tokens, has_symbols() ? line : "\nUser: " + line + "\nAssistant:");
  if (has_symbols()) tokens.push_back(end_), tokens.push_back(assistant_);
  return tokens;
}

std::vector<int32_t> ChatForm::answer(const std::string& text) const {
  return tokenizer_.encode(has_symbols() ? text : " " + text);
}

std::vector<int32_t> ChatForm::reply(const std::string& text) const {
  std::vector<int32_t> tokens = answer(text);
  if (end() >= 0) tokens.push_back(end());
  return tokens;
}

bool ChatForm::ends(int32_t token) const {
  return token == tokenizer_.end_of_document() || (has_symbols() && token == end_);
}

std::vector<int32_t> ChatForm::ends() const {
  std::vector<int32_t> tokens = {tokenizer_.end_of_document()};
  if (has_symbols()) tokens.push_back(end_);
  return tokens;
}

int32_t ChatForm::end() const { return has_symbols() ? end_ : -1; }

std::vector<std::string> ChatForm::stops() const { return {has_symbols() ? "<|user|>" : "\nUser:"}; }

void ChatForm::append(std::vector<int32_t>& tokens, const std::string& text) const {
  std::vector<int32_t> part = tokenizer_.encode(text);
  tokens.insert(tokens.end(), part.begin(), part.end());
}

}  // namespace longhand
