#include "src/serve/answer.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace longhand::serve {

using Object = nlohmann::ordered_json;

namespace {

std::string dump(const Object& json) { return json.dump(-1, ' ', false, Object::error_handler_t::replace); }

Object finish_reason(Finish finish) {
  if (finish == Finish::none) return nullptr;
  return finish == Finish::length ? "length" : "stop";
}

int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

// Completions: parallel lists. `offset` is the character at which the first token's text begins.
Object completion_logprobs(const std::vector<TokenNote>& notes, const Tokenizer& tokenizer, int64_t offset, bool top) {
  Object lists = {{"tokens", Object::array()},
                  {"token_logprobs", Object::array()},
                  {"top_logprobs", top ? Object::array() : Object()},
                  {"text_offset", Object::array()}};
  for (const TokenNote& note : notes) {
    std::string text = tokenizer.piece_bytes(note.token);
    lists["tokens"].push_back(text);
    lists["token_logprobs"].push_back(note.logprob);
    lists["text_offset"].push_back(offset);
    offset += count_characters(text);
    if (!top) continue;
    Object likely = Object::object();
    for (const auto& [token, logprob] : note.top) likely[tokenizer.piece_bytes(token)] = logprob;
    lists["top_logprobs"].push_back(likely);
  }
  return lists;
}

Object chat_token(int32_t token, float logprob, const Tokenizer& tokenizer) {
  std::string text = tokenizer.piece_bytes(token);
  return {{"token", text}, {"logprob", logprob}, {"bytes", std::vector<uint8_t>(text.begin(), text.end())}};
}

Object chat_logprobs(const std::vector<TokenNote>& notes, const Tokenizer& tokenizer) {
  Object content = Object::array();
  for (const TokenNote& note : notes) {
    Object entry = chat_token(note.token, note.logprob, tokenizer);
    entry["top_logprobs"] = Object::array();
    for (const auto& [token, logprob] : note.top)
      entry["top_logprobs"].push_back(chat_token(token, logprob, tokenizer));
    content.push_back(entry);
  }
  return {{"content", content}};
}

Object logprobs_of(const TextRequest& request, const std::vector<TokenNote>& notes, const Tokenizer& tokenizer,
                   int64_t offset) {
  if (request.logprobs < 0) return nullptr;
  return request.chat ? chat_logprobs(notes, tokenizer)
                      : completion_logprobs(notes, tokenizer, offset, request.logprobs > 0);
}

Object head_of(const TextAnswer::Head& head, const char* object) {
  Object json = {
      {"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}, {"seed", head.seed}};
  if (!head.variant.empty()) json["variant"] = head.variant;
  return json;
}

Object usage_of(int64_t prompt, int64_t written) {
  return {{"prompt_tokens", prompt}, {"completion_tokens", written}, {"total_tokens", prompt + written}};
}

const char* chunk_name(bool chat) { return chat ? "chat.completion.chunk" : "text_completion"; }

}  // namespace

std::string sse(std::string_view data) {
  std::string out;
  for (size_t at = 0; at <= data.size();) {
    size_t end = std::min(data.find('\n', at), data.size());
    out += "data: ";
    out += data.substr(at, end - at);
    out += '\n';
    at = end + 1;
  }
  return out + "\n";
}

std::string base64(std::string_view bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    size_t size = std::min<size_t>(3, bytes.size() - at);
    uint32_t word = 0;
    for (size_t i = 0; i < 3; ++i) word = word << 8 | (i < size ? static_cast<unsigned char>(bytes[at + i]) : 0);
    for (size_t i = 0; i < 4; ++i) out += i <= size ? digits[word >> (18 - 6 * i) & 63] : '=';
  }
  return out;
}

TextAnswer::TextAnswer(const TextRequest& request, Head head, const Tokenizer& tokenizer, int64_t prompt_tokens,
                       std::vector<std::string> echoed)
    : request_(request),
      head_(std::move(head)),
      tokenizer_(tokenizer),
      prompt_tokens_(prompt_tokens),
      echoed_(std::move(echoed)) {
  choices_.resize((request.chat ? 1 : request.prompts.size()) * request.choices);
}

std::string TextAnswer::take(int32_t index, const Event& event) {
  Choice& choice = choices_.at(index);
  std::string piece = event.text;
  // A chat's answer begins at its first letter: the blank after "Assistant:" is the template's.
  if (request_.chat && !choice.started) piece.erase(0, piece.find_first_not_of(' '));
  choice.started = choice.started || !piece.empty();
  choice.text += piece;
  choice.finish = event.finish;
  int64_t first_character = choice.characters;
  if (event.token) {
    ++written_;
    if (request_.logprobs >= 0) {
      choice.characters += count_characters(tokenizer_.piece_bytes(event.token->token));
      choice.tokens.push_back(*event.token);
    }
  }
  bool shows = !piece.empty() || event.finish != Finish::none || (event.token && request_.logprobs >= 0);
  return request_.stream && shows ? event_of(index, choice, piece, first_character, event) : std::string();
}

std::string TextAnswer::event_of(int32_t index, const Choice& choice, const std::string& piece, int64_t first_character,
                                 const Event& event) const {
  std::vector<TokenNote> notes;
  if (event.token && request_.logprobs >= 0) notes.push_back(choice.tokens.back());
  Object entry = {{"index", index}};
  if (request_.chat)
    entry["delta"] = piece.empty() ? Object::object() : Object{{"content", piece}};
  else
    entry["text"] = piece;
  entry["logprobs"] = notes.empty() ? Object() : logprobs_of(request_, notes, tokenizer_, first_character);
  entry["finish_reason"] = finish_reason(event.finish);
  Object chunk = head_of(head_, chunk_name(request_.chat));
  chunk["choices"] = Object::array({entry});
  return sse(dump(chunk));
}

// A chat's first event names the role, an echoed prompt comes before what is written.
std::string TextAnswer::begin() const {
  std::string out;
  for (size_t i = 0; i < choices_.size(); ++i) {
    Object entry = {{"index", i}};
    if (request_.chat)
      entry["delta"] = {{"role", "assistant"}, {"content", ""}};
    else if (!echoed_.empty())
      entry["text"] = echoed_[i / request_.choices];
    else
      continue;
    entry["logprobs"] = nullptr, entry["finish_reason"] = nullptr;
    Object chunk = head_of(head_, chunk_name(request_.chat));
    chunk["choices"] = Object::array({entry});
    out += sse(dump(chunk));
  }
  return out;
}

std::string TextAnswer::end() const {
  std::string out;
  if (request_.include_usage) {
    Object chunk = head_of(head_, chunk_name(request_.chat));
    chunk["choices"] = Object::array();
    chunk["usage"] = usage_of(prompt_tokens_, written_);
    out += sse(dump(chunk));
  }
  return out + sse("[DONE]");
}

std::string TextAnswer::whole() const {
  Object answer = head_of(head_, request_.chat ? "chat.completion" : "text_completion");
  answer["choices"] = Object::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    Object entry = {{"index", i}};
    if (request_.chat)
      entry["message"] = {{"role", "assistant"}, {"content", choice.text}};
    else
      entry["text"] = (echoed_.empty() ? "" : echoed_[i / request_.choices]) + choice.text;
    entry["logprobs"] = logprobs_of(request_, choice.tokens, tokenizer_, 0);
    entry["finish_reason"] = finish_reason(choice.finish);
    answer["choices"].push_back(entry);
  }
  answer["usage"] = usage_of(prompt_tokens_, written_);
  return dump(answer) + "\n";
}

}  // namespace longhand::serve
