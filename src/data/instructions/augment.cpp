// Augmented examples.
#include "longhand/augment.h"

#include <nlohmann/json.hpp>

namespace longhand {
namespace {

std::string language_of(const InstructionExample& example, const std::string& otherwise) {
  if (auto field = example.fields.find("language"); field != example.fields.end()) return field->second;
  if (example.task.size() == 5 && example.task[2] == '-') return example.task.substr(0, 2);
  return otherwise;
}

}  // namespace

InstructionExample Augmenter::example(const InstructionExample& example, uint64_t draw) const {
  const AugmentOptions& o = options();
  std::string language = language_of(example, o.language), kept = o.answers ? "" : example.answer;
  InstructionExample other = example;
  uint64_t part = 0;
  auto change = [&](std::string& value) { value = text(value, kept, language, draw << 4 | (part++ & 15)); };
  bool changed = false;
  for (const char* name : {"input", "context", "question", "text"})
    if (auto field = other.fields.find(name); field != other.fields.end() && !field->second.empty())
      change(field->second), changed = true;
  if (auto field = other.fields.find("instruction"); !changed && field != other.fields.end()) change(field->second);
  if (!o.answers)
    for (const auto& message : example.messages)
      if (message.role == "assistant") kept += message.text + '\n';
  for (auto& message : other.messages)
    if (message.role == "user" || (o.answers && message.role == "assistant")) change(message.text);
  if (o.answers && !other.answer.empty()) change(other.answer);
  return other;
}

std::string example_json(const InstructionExample& example) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const char* name : {"instruction", "context", "question", "input"})
    if (auto field = example.fields.find(name); field != example.fields.end()) json[name] = field->second;
  if (!example.answer.empty()) json[example.fields.contains("question") ? "answer" : "output"] = example.answer;
  for (const auto& message : example.messages)
    json["messages"].push_back({{"role", message.role}, {"content", message.text}});
  for (const auto& [name, value] : example.fields)
    if (!json.contains(name)) json[name] = value;
  if (!example.label.empty()) json["label"] = example.label;
  if (!example.words.empty()) json["tokens"] = example.words, json["tags"] = example.tags;
  if (!example.state.empty()) json["state"] = example.state;
  if (!example.task.empty()) json["task"] = example.task;
  if (!example.source.empty()) json["source"] = example.source;
  if (example.negative) json["negative"] = true;
  return json.dump();
}

}  // namespace longhand
