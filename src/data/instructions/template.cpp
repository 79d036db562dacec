// Prompt templates, and the form of a conversation.
#include "longhand/files.h"
#include "longhand/instructions.h"
#include "src/base/embed.h"

LONGHAND_EMBED(longhand_template_alpaca, "weights/templates/alpaca.txt")
LONGHAND_EMBED(longhand_template_context, "weights/templates/context.txt")
LONGHAND_EMBED(longhand_template_plain, "weights/templates/plain.txt")

namespace longhand {
namespace {

const std::string* field_of(const InstructionExample& example, const std::string& name) {
  auto found = example.fields.find(name);
  return found == example.fields.end() || found->second.empty() ? nullptr : &found->second;
}

bool is_name(std::string_view text) {
  return !text.empty() && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_0123456789") == std::string_view::npos;
}

// {name}, {?name}...{/name}; any other brace stands for itself.
std::string fill(std::string_view form, const InstructionExample& example, const std::string& where) {
  std::string out;
  while (!form.empty()) {
    size_t open = form.find('{'), close = open == std::string_view::npos ? open : form.find('}', open);
    if (close == std::string_view::npos) return out + std::string(form);
    out += form.substr(0, open);
    std::string name(form.substr(open + 1, close - open - 1));
    form.remove_prefix(close + 1);
    bool optional = name.starts_with('?');
    if (!is_name(std::string_view(name).substr(optional))) {
      out += '{' + name + '}';
      continue;
    }
    if (!optional) {
      const std::string* value = field_of(example, name);
      if (!value) fail("the template {} names the field \"{}\", which this example does not have", where, name);
      out += *value;
      continue;
    }
    name.erase(0, 1);
    size_t end = form.find("{/" + name + "}");
    if (end == std::string_view::npos) fail("the template {} opens {{?{}}} and does not close it", where, name);
    if (field_of(example, name)) out += fill(form.substr(0, end), example, where);
    form.remove_prefix(end + name.size() + 3);
  }
  return out;
}

}  // namespace

PromptTemplate::PromptTemplate(const std::string& path) : name_(path) {
  if (path == "alpaca")
    text_ = longhand_template_alpaca;
  else if (path == "context")
    text_ = longhand_template_context;
  else if (path == "plain")
    text_ = longhand_template_plain;
  else if (!path.empty())
    text_ = read_file(path, 1 << 20);
}

std::string PromptTemplate::prompt(const InstructionExample& example) const {
  if (!name_.empty()) return fill(text_, example, name_);
  bool question = example.fields.contains("question");
  return fill(question ? longhand_template_context : longhand_template_alpaca, example,
              question ? "context" : "alpaca");
}

}  // namespace longhand
