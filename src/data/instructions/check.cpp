// What is good and bad about a file of examples.
#include <algorithm>
#include <cmath>
#include <set>

#include "longhand/instructions.h"

namespace longhand {
namespace {

constexpr int64_t recommended = 5000;  // examples
constexpr double fewest_negative = 0.15, most_negative = 0.20;

std::string prompt_of(const InstructionExample& example) {
  std::string text;
  for (const auto& [name, value] : example.fields)
    if (name != "task" && name != "source") text += value + '\n';
  for (const auto& message : example.messages)
    if (message.role != "assistant") text += message.text + '\n';
  for (const std::string& word : example.words) text += word + ' ';
  return text;
}

std::string answer_of(const InstructionExample& example) {
  std::string text = example.answer + example.label;
  for (const std::string& tag : example.tags) text += tag + ' ';
  for (const auto& message : example.messages)
    if (message.role == "assistant") text += message.text + '\n';
  return text;
}

/// The code point that begins at `at`, which moves behind it; the text is valid UTF-8.
uint32_t next_character(const std::string& text, size_t& at) {
  auto byte = static_cast<unsigned char>(text[at++]);
  if (byte < 0x80) return byte;
  int more = byte >= 0xf0 ? 3 : byte >= 0xe0 ? 2 : 1;
  uint32_t value = byte & (0x3f >> more);
  for (; more > 0 && at < text.size(); --more) value = value << 6 | (static_cast<unsigned char>(text[at++]) & 0x3f);
  return value;
}

const char* script_of(uint32_t c) {
  struct Range {
    uint32_t first, last;
    const char* name;
  };
  static constexpr Range ranges[] = {
      {'A', 'Z', "Latin"},        {'a', 'z', "Latin"},      {0xc0, 0x24f, "Latin"},   {0x370, 0x3ff, "Greek"},
      {0x400, 0x52f, "Cyrillic"}, {0x590, 0x5ff, "Hebrew"}, {0x600, 0x6ff, "Arabic"}, {0x900, 0x97f, "Devanagari"},
      {0xe00, 0xe7f, "Thai"},     {0x3040, 0x30ff, "Kana"}, {0x3400, 0x9fff, "Han"},  {0xac00, 0xd7af, "Hangul"}};
  for (const Range& range : ranges)
    if (c >= range.first && c <= range.last) return range.name;
  return nullptr;
}

struct Letters {
  int64_t words = 0;
  std::map<std::string, int64_t> scripts;
  std::string bare;  // letters alone, ASCII in lower case

  explicit Letters(const std::string& text) {
    bool inside = false;
    for (size_t at = 0; at < text.size();) {
      size_t first = at;
      uint32_t c = next_character(text, at);
      const char* script = script_of(c);
      std::string_view name = script ? script : "";
      bool alone = name == "Han" || name == "Kana", blank = c == ' ' || c == '\n' || c == '\t';
      if (alone || (!blank && !inside)) ++words;
      inside = !alone && !blank;
      if (!script) continue;
      ++scripts[script];
      for (; first < at; ++first) bare += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : text[first]);
    }
  }
};

bool is_cut_off(const std::string& answer) {
  size_t last = answer.find_last_not_of(" \n\t");
  if (last == std::string::npos) return false;
  return std::string_view(",;-([{").find(answer[last]) != std::string_view::npos;
}

double share(int64_t part, int64_t whole) {
  return whole > 0 ? static_cast<double>(part) / static_cast<double>(whole) : 0;
}

void warn(InstructionCheck& c) {
  auto add = [&](bool wrong, std::string text) {
    if (wrong) c.warnings.push_back(std::move(text));
  };
  double negative = share(c.negative, c.examples);
  add(c.examples < recommended, fmt::format("{} examples: {} are recommended", c.examples, recommended));
  add(negative < fewest_negative || negative > most_negative,
      fmt::format("{:.1f}% of the examples are negative: 15% to 20% are recommended", 100 * negative));
  add(std::sqrt(c.variance) > 2 * c.mean_length,
      fmt::format("lengths spread by {:.1f} words around {:.1f}: more than twice the mean", std::sqrt(c.variance),
                  c.mean_length));
  add(c.duplicates > 0, fmt::format("{} examples stand there more than once", c.duplicates));
  add(c.near_duplicates > 0, fmt::format("{} differ from another only in digits, case or marks", c.near_duplicates));
  add(c.conflicts > 0, fmt::format("{} prompts have more than one answer", c.conflicts));
  add(c.cut_off > 0, fmt::format("{} answers end in the middle", c.cut_off));
  add(c.leaked > 0, fmt::format("{} prompts of the validation file stand in the training file too", c.leaked));
  add(!c.bad.empty(),
      fmt::format("{} entries are no examples, the first: {}", c.bad.size(), c.bad.empty() ? "" : c.bad[0]));
}

}  // namespace

InstructionCheck check_instructions(const InstructionFile& file, const InstructionFile* validation) {
  InstructionCheck check;
  check.bad = file.bad;
  std::set<std::string> whole, bare;
  std::map<std::string, std::string> answers;
  double sum = 0, squares = 0;
  for (const InstructionExample& example : file.examples) {
    std::string prompt = prompt_of(example), answer = answer_of(example);
    Letters letters(prompt + answer);
    ++check.examples, check.negative += example.negative, check.cut_off += is_cut_off(answer);
    double length = static_cast<double>(letters.words);
    sum += length, squares += length * length;
    bool fresh = whole.insert(prompt + '\0' + answer).second;
    check.duplicates += !fresh;
    check.near_duplicates += !bare.insert(letters.bare).second && fresh;
    auto [earlier, first] = answers.emplace(prompt, answer);
    check.conflicts += !first && earlier->second != answer;
    auto most = std::max_element(letters.scripts.begin(), letters.scripts.end(),
                                 [](const auto& a, const auto& b) { return a.second < b.second; });
    ++check.scripts[most == letters.scripts.end() ? "none" : most->first];
  }
  double count = static_cast<double>(std::max<int64_t>(1, check.examples));
  check.mean_length = sum / count;
  check.variance = std::max(0.0, squares / count - check.mean_length * check.mean_length);
  if (validation)
    for (const InstructionExample& example : validation->examples) check.leaked += answers.contains(prompt_of(example));
  warn(check);
  return check;
}

}  // namespace longhand
