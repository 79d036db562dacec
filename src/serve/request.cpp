#include "src/serve/request.h"

#include <cctype>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "longhand/nearest.h"
#include "src/base/json.h"
#include "src/serve/refusal.h"

namespace longhand::serve {
namespace {

using Json = nlohmann::json;

template <class... Args>
[[noreturn]] void refuse(const std::string& param, fmt::format_string<Args...> format, Args&&... args) {
  throw Refusal(400, fmt::format(format, std::forward<Args>(args)...), param);
}

Json parse_object(std::string_view body) {
  Json json = parse_json(body);
  if (json.is_discarded())
    refuse("", "the request's body is not valid JSON, or nests deeper than {} levels", deepest_json);
  if (!json.is_object()) refuse("", "the request's body is not a JSON object");
  return json;
}

// A field of the request; none when it is absent or null.
const Json* field(const Json& object, const std::string& name) {
  auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

double number(const Json& object, const std::string& name, double otherwise, double low, double high) {
  const Json* value = field(object, name);
  if (!value) return otherwise;
  if (!value->is_number()) refuse(name, "{} is not a number", name);
  double x = value->get<double>();
  if (!(x >= low && x <= high)) refuse(name, "{} {}: it is between {} and {}", name, x, low, high);
  return x;
}

int64_t integer(const Json& object, const std::string& name, int64_t otherwise, int64_t low, int64_t high) {
  const Json* value = field(object, name);
  if (!value) return otherwise;
  if (!value->is_number_integer()) refuse(name, "{} is not a whole number", name);
  bool beyond = value->is_number_unsigned() && value->get<uint64_t>() > static_cast<uint64_t>(high);
  int64_t x = beyond ? high : value->get<int64_t>();
  if (beyond || x < low || x > high) refuse(name, "{} {}: it is between {} and {}", name, value->dump(), low, high);
  return x;
}

bool truth(const Json& object, const std::string& name) {
  const Json* value = field(object, name);
  if (!value) return false;
  if (!value->is_boolean()) refuse(name, "{} is neither true nor false", name);
  return value->get<bool>();
}

std::string text(const Json& object, const std::string& name) {
  const Json* value = field(object, name);
  if (!value) return {};
  if (!value->is_string()) refuse(name, "{} is not a text", name);
  return value->get<std::string>();
}

// Fields that OpenAI's API has and this server takes only at the value that changes nothing.
struct Neutral {
  const char* name;
  Json value;
};
const std::vector<Neutral>& neutral_fields() {
  static const std::vector<Neutral> fields = {
      {"presence_penalty", 0},        {"frequency_penalty", 0},     {"suffix", ""},
      {"logit_bias", Json::object()}, {"tools", Json::array()},     {"tool_choice", "none"},
      {"functions", Json::array()},   {"function_call", "none"},    {"response_format", {{"type", "text"}}},
      {"modalities", {"text"}},       {"parallel_tool_calls", true}};
  return fields;
}

// Unknown fields are refused rather than ignored: a mistyped "temperatur" must not look as if it had been obeyed.
void check_names(const Json& object, std::vector<std::string> known) {
  for (const char* name : {"model", "user", "metadata", "store", "service_tier", "safety_identifier"})
    known.push_back(name);
  for (const auto& [name, value] : object.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    bool taken = false;
    for (const Neutral& neutral : neutral_fields())
      if (name == neutral.name) {
        if (!value.is_null() && value != neutral.value) refuse(name, "{} is not supported by this server", name);
        taken = true;
      }
    if (!taken) refuse(name, "unknown field \"{}\"{}", name, did_you_mean(name, known));
  }
}

std::vector<std::string> parse_stops(const Json& object) {
  const Json* value = field(object, "stop");
  if (!value) return {};
  std::vector<std::string> stops;
  if (value->is_string()) stops.push_back(value->get<std::string>());
  if (value->is_array())
    for (const Json& stop : *value)
      if (stop.is_string()) stops.push_back(stop.get<std::string>());
  if (stops.size() != (value->is_array() ? value->size() : 1)) refuse("stop", "stop is neither a text nor texts");
  if (stops.size() > 16) refuse("stop", "{} stop texts: 16 at most", stops.size());
  for (const std::string& stop : stops)
    if (stop.empty() || stop.size() > 256) refuse("stop", "a stop text of {} bytes: 1 to 256", stop.size());
  return stops;
}

std::vector<std::string> parse_guided(const Json& object) {
  constexpr size_t most = 1000;
  const Json* value = field(object, "guided_choice");
  if (!value) return {};
  if (!value->is_array() || value->empty() || value->size() > most)
    refuse("guided_choice", "guided_choice is no list of 1 to {} texts", most);
  std::vector<std::string> choices;
  for (const Json& choice : *value) {
    if (!choice.is_string() || choice.get_ref<const std::string&>().empty())
      refuse("guided_choice", "guided_choice holds something that is no text, or an empty one");
    choices.push_back(choice.get<std::string>());
  }
  if (truth(object, "ignore_eos"))
    refuse("ignore_eos", "ignore_eos: a text of guided_choice ends when it is one of them");
  return choices;
}

Prompt parse_ids(const Json& list, const std::string& name) {
  Prompt prompt{{}, {}, true};
  for (const Json& id : list) {
    if (!id.is_number_integer() || id < 0 || id > std::numeric_limits<int32_t>::max())
      refuse(name, "{} holds {}, which is no token id", name, id.dump(-1, ' ', true).substr(0, 40));
    prompt.ids.push_back(id.get<int32_t>());
  }
  if (prompt.ids.empty()) refuse(name, "{} holds an empty list of token ids", name);
  return prompt;
}

// A text, texts, token ids, or lists of token ids.
std::vector<Prompt> parse_prompts(const Json& object, const std::string& name) {
  const Json* value = field(object, name);
  if (!value) refuse(name, "{} is missing", name);
  if (value->is_string()) return {{value->get<std::string>(), {}, false}};
  if (!value->is_array() || value->empty()) refuse(name, "{} is neither a text, nor texts, nor token ids", name);
  if (value->front().is_number()) return {parse_ids(*value, name)};
  std::vector<Prompt> prompts;
  for (const Json& entry : *value) {
    if (entry.is_string())
      prompts.push_back({entry.get<std::string>(), {}, false});
    else if (entry.is_array())
      prompts.push_back(parse_ids(entry, name));
    else
      refuse(name, "{} is neither a text, nor texts, nor token ids", name);
  }
  return prompts;
}

// A message's content is a text or a list of parts of type text.
std::string parse_content(const Json& message) {
  const Json* content = field(message, "content");
  if (!content) refuse("messages", "a message has no content");
  if (content->is_string()) return content->get<std::string>();
  std::string all;
  if (!content->is_array()) refuse("messages", "a message's content is neither a text nor a list of parts");
  for (const Json& part : *content) {
    if (!part.is_object() || text(part, "type") != "text")
      refuse("messages", "a message's content holds a part that is no text");
    all += text(part, "text");
  }
  return all;
}

std::vector<Message> parse_messages(const Json& object) {
  const Json* list = field(object, "messages");
  if (!list || !list->is_array() || list->empty()) refuse("messages", "messages is missing, or no list of messages");
  std::vector<Message> messages;
  for (const Json& entry : *list) {
    if (!entry.is_object()) refuse("messages", "messages holds something that is no object");
    std::string role = text(entry, "role");
    if (role == "developer") role = "system";
    if (role != "system" && role != "user" && role != "assistant")
      refuse("messages", "a message's role is system, user or assistant");
    if (role == "system" && !messages.empty() && messages.back().role != "system")
      refuse("messages", "a system message stands before all others");
    std::string content = parse_content(entry);
    if (!messages.empty() && messages.back().role == role)
      messages.back().text += "\n" + content;
    else
      messages.push_back({role, content});
  }
  if (messages.back().role != "user") refuse("messages", "the last message is the user's");
  return messages;
}

void parse_sampling(TextRequest& request, const Json& json) {
  constexpr int32_t most = std::numeric_limits<int32_t>::max();
  SamplingParameters& rules = request.rules;
  rules.temperature = static_cast<float>(number(json, "temperature", 1, 0, 100));
  rules.top_p = static_cast<float>(number(json, "top_p", 1, 0, 1));
  if (!(rules.top_p > 0)) refuse("top_p", "top_p 0: it is above 0 and at most 1");
  rules.min_p = static_cast<float>(number(json, "min_p", 0, 0, 1));
  rules.repetition_penalty = static_cast<float>(number(json, "repetition_penalty", 1, 0.01, 100));
  rules.top_k = static_cast<int32_t>(integer(json, "top_k", 0, -1, most));
  if (rules.top_k < 0) rules.top_k = 0;
  if (const Json* seed = field(json, "seed")) {
    if (!seed->is_number_integer()) refuse("seed", "seed is not a whole number");
    request.seed = seed->is_number_unsigned() ? seed->get<uint64_t>() : static_cast<uint64_t>(seed->get<int64_t>());
  }
}

// An id is a file's name.
std::string parse_session(const Json& json) {
  std::string id = text(json, "session");
  for (char c : id)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_')
      refuse("session", "session \"{}\": an id is made of letters, digits, - and _", id);
  if (id.size() > 64) refuse("session", "a session id of {} characters: 64 at most", id.size());
  return id;
}

// Completions say how many likely tokens they want; chats say whether, and how many in a second field.
int32_t parse_logprobs(const Json& json, bool chat) {
  if (!chat) return static_cast<int32_t>(integer(json, "logprobs", -1, 0, 20));
  int32_t count = static_cast<int32_t>(integer(json, "top_logprobs", 0, 0, 20));
  if (truth(json, "logprobs")) return count;
  if (field(json, "top_logprobs")) refuse("top_logprobs", "top_logprobs needs logprobs true");
  return -1;
}

void parse_amounts(TextRequest& request, const Json& json, const RequestLimits& limits) {
  bool newer = request.chat && field(json, "max_completion_tokens");
  request.tokens = integer(json, newer ? "max_completion_tokens" : "max_tokens",
                           std::min<int64_t>(request.chat ? 256 : 16, limits.tokens), 0, limits.tokens);
  request.choices = static_cast<int32_t>(integer(json, "n", 1, 1, limits.choices));
  if (integer(json, "best_of", request.choices, 1, limits.choices) != request.choices)
    refuse("best_of", "best_of is not supported beyond n");
  int64_t prompts = request.chat ? 1 : static_cast<int64_t>(request.prompts.size());
  if (prompts * request.choices > limits.choices)
    refuse("n", "{} prompts times n {}: {} texts of a request at most", prompts, request.choices, limits.choices);
}

}  // namespace

TextRequest parse_text_request(std::string_view body, bool chat, const RequestLimits& limits) {
  Json json = parse_object(body);
  std::vector<std::string> known = {
      "temperature", "top_p",    "top_k",  "min_p",   "repetition_penalty", "seed",       "n",       "max_tokens",
      "stop",        "logprobs", "stream", "best_of", "stream_options",     "ignore_eos", "session", "guided_choice"};
  if (chat)
    known.insert(known.end(), {"messages", "max_completion_tokens", "top_logprobs"});
  else
    known.insert(known.end(), {"prompt", "echo"});
  check_names(json, known);

  TextRequest request;
  request.chat = chat;
  request.model = text(json, "model"), request.user = text(json, "user");
  request.session = parse_session(json);
  if (chat)
    request.messages = parse_messages(json);
  else
    request.prompts = parse_prompts(json, "prompt"), request.echo = truth(json, "echo");
  parse_sampling(request, json);
  parse_amounts(request, json, limits);
  bool one_text = request.choices == 1 && (chat || request.prompts.size() == 1);
  if (!request.session.empty() && !one_text) refuse("session", "a session goes on with one text: one prompt, n 1");
  request.stops = parse_stops(json), request.guided = parse_guided(json);
  request.logprobs = parse_logprobs(json, chat);
  request.ignore_end = truth(json, "ignore_eos");
  request.stream = truth(json, "stream");
  if (const Json* options = field(json, "stream_options")) {
    if (!request.stream) refuse("stream_options", "stream_options needs stream true");
    if (!options->is_object()) refuse("stream_options", "stream_options is not an object");
    request.include_usage = truth(*options, "include_usage");
  }
  return request;
}

Feedback parse_feedback(std::string_view body) {
  Json json = parse_object(body);
  check_names(json, {"id", "rating"});
  std::string rating = text(json, "rating");
  if (!field(json, "id")) refuse("id", "id is missing: the id of the answer");
  if (rating != "up" && rating != "down") refuse("rating", "rating {}: it takes up or down", rating);
  return {text(json, "id"), rating == "up"};
}

TokenizeRequest parse_tokenize_request(std::string_view body) {
  Json json = parse_object(body);
  check_names(json, {"text"});
  if (!field(json, "text")) refuse("text", "text is missing");
  return {text(json, "model"), text(json, "text")};
}

EmbeddingRequest parse_embedding_request(std::string_view body, const RequestLimits& limits) {
  Json json = parse_object(body);
  check_names(json, {"input", "encoding_format"});
  EmbeddingRequest request{text(json, "model"), parse_prompts(json, "input")};
  std::string format = text(json, "encoding_format");
  request.base64 = format == "base64";
  if (!format.empty() && format != "float" && format != "base64")
    refuse("encoding_format", "encoding_format {}: it takes float or base64", format);
  if (static_cast<int64_t>(request.inputs.size()) > limits.choices)
    refuse("input", "{} inputs: {} of a request at most", request.inputs.size(), limits.choices);
  return request;
}

}  // namespace longhand::serve
