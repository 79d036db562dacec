// What a client asks for, read from JSON and checked before anything is computed. Field names and meanings are those of
// OpenAI's API; top_k, min_p, repetition_penalty, ignore_eos and guided_choice are additions that other servers share.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/device.h"

namespace longhand::serve {

struct Prompt {
  std::string text;
  std::vector<int32_t> ids;  // given instead of a text; not yet checked against a vocabulary
  bool by_ids = false;
};

struct Message {
  std::string role;  // system | user | assistant
  std::string text;
};

struct TextRequest {
  bool chat = false;
  std::string model;              // empty = the server's first one
  std::string session;            // id of a kept text that this one goes on with; empty = none
  std::string user;               // whom an experiment knows again; empty = nobody
  std::vector<Prompt> prompts;    // completions; at least one
  std::vector<Message> messages;  // chat; of one role never two in a row, the last one the user's
  std::optional<uint64_t> seed;
  SamplingParameters rules;  // without the random stream
  int64_t tokens = 0;        // new tokens of a choice at most
  int32_t choices = 1;       // n
  std::vector<std::string> stops;
  std::vector<std::string> guided;  // what the answer must be one of; empty = anything
  int32_t logprobs = -1;            // -1 = none; otherwise how many likely tokens beside each drawn one
  bool echo = false, stream = false, include_usage = false, ignore_end = false;
};

struct RequestLimits {
  int32_t choices = 16;   // prompts times n
  int64_t tokens = 4096;  // of a request's `max_tokens`
};

/// Throws Refusal (400) with the field at fault. default tokens: 16 for a completion, 256 for a chat.
TextRequest parse_text_request(std::string_view body, bool chat, const RequestLimits& limits);

/// {"id": …, "rating": "up" | "down"} of /ab/feedback.
struct Feedback {
  std::string id;
  bool up = false;
};
Feedback parse_feedback(std::string_view body);

/// {"model": …, "text": …} of /tokenize.
struct TokenizeRequest {
  std::string model, text;
};
TokenizeRequest parse_tokenize_request(std::string_view body);

/// {"model": …, "input": text | [texts] | [ids] | [[ids]], "encoding_format": "float" | "base64"} of /v1/embeddings.
struct EmbeddingRequest {
  std::string model;
  std::vector<Prompt> inputs;
  bool base64 = false;  // numbers as base64 of little-endian fp32, as OpenAI's client asks for them
};
EmbeddingRequest parse_embedding_request(std::string_view body, const RequestLimits& limits);

}  // namespace longhand::serve
