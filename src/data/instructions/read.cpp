// Examples from JSON.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "longhand/files.h"
#include "longhand/heads.h"
#include "longhand/instructions.h"
#include "src/base/json.h"

namespace longhand {
namespace {

using Json = nlohmann::json;

std::string text_of(const Json& object, const char* key) {
  const Json& value = object.at(key);
  if (!value.is_string()) fail("\"{}\" is {}, a text was expected", key, printable(value.dump()));
  return value.get<std::string>();
}

void read_messages(const Json& list, InstructionExample& example) {
  if (!list.is_array() || list.empty()) fail("\"messages\" is no list of turns");
  bool answered = false;
  for (const Json& turn : list) {
    if (!turn.is_object() || !turn.contains("role") || !turn.contains("content"))
      fail("a turn needs \"role\" and \"content\"");
    InstructionExample::Message message{text_of(turn, "role"), text_of(turn, "content")};
    if (message.role != "system" && message.role != "user" && message.role != "assistant")
      fail("role \"{}\": it is system, user or assistant", printable(message.role));
    if (message.role == "system" && !example.messages.empty()) fail("a system turn comes first");
    bool follows_user = !example.messages.empty() && example.messages.back().role == "user";
    if (message.role == "assistant" && !follows_user) fail("an assistant's turn answers a user's");
    if (message.role == "user" && follows_user) fail("two user turns follow each other");
    answered = answered || message.role == "assistant";
    example.messages.push_back(std::move(message));
  }
  if (!answered) fail("no assistant turn: there is nothing to learn");
}

/// A label as people write one: a text, a number, true or false.
std::string label_of(const Json& value, const char* key) {
  std::string label = value.is_string() ? value.get<std::string>() : value.dump();
  if (value.is_structured() || value.is_null() || label.empty())
    fail("\"{}\" is {}, a label was expected", key, printable(value.dump()));
  return label;
}

void read_state(const Json& state, InstructionExample& example) {
  if (state.is_object()) {
    if (state.empty()) fail("\"state\" has no slot");
    for (const auto& [slot, label] : state.items()) example.state[slot] = label_of(label, slot.c_str());
  } else {
    example.state["state"] = label_of(state, "state");
  }
}

std::vector<std::string> texts_of(const Json& object, const char* key) {
  const Json& list = object.at(key);
  bool texts = list.is_array() && !list.empty() &&
               std::all_of(list.begin(), list.end(), [](const Json& entry) { return entry.is_string(); });
  if (!texts) fail("\"{}\" is no list of texts", key);
  return list.get<std::vector<std::string>>();
}

void read_tagged(const Json& object, InstructionExample& example) {
  if (!object.contains("tags")) fail("\"tokens\" without \"tags\"");
  example.words = texts_of(object, "tokens"), example.tags = texts_of(object, "tags");
  if (example.words.size() != example.tags.size())
    fail("{} tags for {} tokens", example.tags.size(), example.words.size());
  std::string before;
  for (size_t i = 0; i < example.tags.size(); ++i) {
    const std::string &word = example.words[i], &tag = example.tags[i];
    if (word.find_first_not_of(" \t\r\n") == std::string::npos) fail("token {} is empty", i + 1);
    bool known = tag == "O" || ((tag.starts_with("B-") || tag.starts_with("I-")) && tag.size() > 2);
    if (!known) fail("tag {} is \"{}\": O, B-x or I-x was expected", i + 1, printable(tag));
    if (!tag_follows(before, tag))
      fail("tag {} is {} behind {}: it goes on with what no B-{} has begun", i + 1, printable(tag),
           before.empty() ? "nothing" : printable(before), printable(tag.substr(2)));
    before = tag;
  }
}

InstructionExample read_example(const Json& object) {
  if (!object.is_object()) fail("an example is a JSON object");
  InstructionExample example;
  for (const char* key : {"task", "source"})
    if (object.contains(key)) (key[0] == 't' ? example.task : example.source) = text_of(object, key);
  example.negative = object.value("negative", Json()) == true || object.value("label", Json()) == 0;
  if (object.contains("state")) read_state(object.at("state"), example);
  if (object.contains("tokens")) {
    read_tagged(object, example);
    return example;
  }
  if (object.contains("messages")) {
    read_messages(object.at("messages"), example);
    return example;
  }
  const char* answer = object.contains("output") ? "output" : "answer";
  bool labelled = object.contains("label") && !object.contains(answer);
  const char* asked = object.contains("instruction")        ? "instruction"
                      : labelled && object.contains("text") ? "text"
                                                            : "question";
  if (!object.contains(asked)) fail("\"instruction\", \"question\" or \"messages\" is missing");
  if (!labelled && !object.contains(answer)) fail("\"output\" or \"answer\" is missing");
  if (labelled)
    example.label = label_of(object.at("label"), "label");
  else if (example.answer = text_of(object, answer); example.answer.empty())
    fail("\"{}\" is empty", answer);
  for (const auto& [key, value] : object.items())
    if (value.is_string() && key != answer && key != "state" && !(labelled && key == "label"))
      example.fields[key] = value.get<std::string>();
  text_of(object, asked);
  example.negative = example.negative || example.answer == "no" || example.answer == "No" || example.answer == "0" ||
                     example.answer == "unanswerable";
  return example;
}

}  // namespace

InstructionFile read_instructions(const std::string& path, bool skip_bad) {
  std::string text = read_file(path);
  InstructionFile file{.path = path};
  auto take = [&](int64_t line, auto&& parse) {
    try {
      InstructionExample example = read_example(parse());
      example.path = path, example.line = line;
      file.examples.push_back(std::move(example));
    } catch (const Error& error) {
      std::string message = fmt::format("{}:{}: {}", path, line, error.what());
      if (!skip_bad) fail("{}; --skip-bad leaves such examples out", message);
      file.bad.push_back(message);
    }
  };
  if (int64_t byte = find_invalid_utf8(text); byte >= 0) fail("{}: byte {} is not valid UTF-8", path, byte);
  size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string::npos) fail("{}: holds no examples", path);
  if (text[begin] == '[') {
    Json list = parse_json(text);
    if (!list.is_array()) fail("{}: begins like a JSON array but is none", path);
    for (size_t i = 0; i < list.size(); ++i)
      take(static_cast<int64_t>(i) + 1, [&]() -> const Json& { return list[i]; });
  } else {
    int64_t line = 0;
    for (size_t first = 0; first < text.size();) {
      size_t end = std::min(text.find('\n', first), text.size());
      std::string_view part(text.data() + first, end - first);
      first = end + 1, ++line;
      if (part.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      take(line, [&] {
        Json object = parse_json(part);
        if (object.is_discarded()) fail("this is no JSON, or nests deeper than {} levels", deepest_json);
        return object;
      });
    }
  }
  if (file.examples.empty()) fail("{}: holds no examples", path);
  return file;
}

}  // namespace longhand
