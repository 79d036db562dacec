#include "src/cli/answer_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace longhand::cli {
namespace {

/// One line: white space folded, the last `most` characters, cut between characters.
std::string line_of(const std::string& text, size_t most) {
  std::string line;
  for (char c : text) {
    bool blank = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    if (!blank)
      line += c;
    else if (!line.empty() && line.back() != ' ')
      line += ' ';
  }
  size_t at = line.size();
  for (size_t seen = 0; at > 0 && seen < most; ++seen)
    for (--at; at > 0 && (static_cast<unsigned char>(line[at]) & 0xc0) == 0x80;) --at;
  return at > 0 ? "..." + line.substr(at) : line;
}

}  // namespace

std::string samples_text(const std::vector<Answer>& answers, int64_t count) {
  std::string text;
  int64_t all = static_cast<int64_t>(answers.size());
  count = std::min(count, all);
  for (int64_t i = 0; i < count; ++i) {
    const Answer& answer = answers[i * all / count];
    text +=
        fmt::format("[{}] {}\n  wanted  {}\n", answer.task, line_of(answer.prompt, 100), line_of(answer.wanted, 200));
    if (answer.before) text += fmt::format("  before  {}\n", line_of(*answer.before, 200));
    text += fmt::format("  {:<7} {}\n", answer.before ? "after" : "written", line_of(answer.written, 200));
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
