#include "src/cli/answer_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace longhand::cli {
namespace {

/// One line: white space folded.
std::string line_of(const std::string& text) {
  std::string line;
  for (char c : text) {
    bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (!blank)
      line += c;
    else if (!line.empty() && line.back() != ' ')
      line += ' ';
  }
  return line;
}

bool inside_character(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

/// At most `most` bytes, cut between characters.
std::string begin_of(const std::string& text, size_t most) {
  std::string line = line_of(text);
  if (line.size() <= most) return line;
  while (most > 0 && inside_character(line[most])) --most;
  return line.substr(0, most) + "...";
}
std::string end_of(const std::string& text, size_t most) {
  std::string line = line_of(text);
  if (line.size() <= most) return line;
  size_t at = line.size() - most;
  while (at < line.size() && inside_character(line[at])) ++at;
  return "..." + line.substr(at);
}

}  // namespace

std::string samples_text(const std::vector<Answer>& answers, int64_t count) {
  std::string text;
  int64_t all = static_cast<int64_t>(answers.size());
  count = std::min(count, all);
  for (int64_t i = 0; i < count; ++i) {
    const Answer& answer = answers[i * all / count];
    text += fmt::format("[{}] {}\n  {:<7} {}\n", answer.task, end_of(answer.prompt, 100), "wanted",
                        begin_of(answer.wanted, 160));
    if (answer.before) text += fmt::format("  before  {}\n", begin_of(*answer.before, 160));
    text += fmt::format("  {:<7} {}\n", answer.before ? "after" : "written", begin_of(answer.written, 160));
  }
  return text;
}

std::string scores_text(const std::vector<AnswerScore>& scores) {
  std::string text =
      fmt::format("{:<16} {:>8} {:>8} {:>7} {:>12}\n", "task", "answers", "exact", "chrF", "nats a token");
  for (const AnswerScore& s : scores)
    text += fmt::format("{:<16} {:>8} {:>7.1f}% {:>7.1f} {:>12.3f}\n", s.task, s.examples,
                        100.0 * static_cast<double>(s.exact) / static_cast<double>(std::max<int64_t>(1, s.examples)),
                        s.chrf, s.nats);
  return text;
}

}  // namespace longhand::cli
