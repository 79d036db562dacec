#include "src/train/step_printer.h"

#include <unistd.h>

#include <algorithm>

#include "src/train/run_log.h"

namespace longhand {
namespace {

std::string grouped(double value) {
  std::string digits = fmt::format("{:.0f}", value), text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string duration(double seconds) {
  int64_t s = static_cast<int64_t>(seconds + 0.5);
  if (s < 60) return fmt::format("{}s", s);
  if (s < 3600) return fmt::format("{}m{:02}s", s / 60, s % 60);
  return fmt::format("{}h{:02}m", s / 3600, s / 60 % 60);
}

}  // namespace

StepPrinter::StepPrinter(const Settings& settings)
    : settings_(settings), out_(settings.json ? stderr : stdout), terminal_(isatty(fileno(out_))) {}

StepPrinter::~StepPrinter() { clear_bar(); }

void StepPrinter::clear_bar() {
  if (bar_) std::fputs("\r\x1b[K", out_), std::fflush(out_);
  bar_ = false;
}

void StepPrinter::say(const std::string& text) {
  clear_bar();
  std::fputs(text.c_str(), out_);
  if (!text.empty() && text.back() != '\n') std::fputc('\n', out_);
  std::fflush(out_);
}

std::string StepPrinter::describe(const StepReport& r, int64_t tokens, double seconds, double flops) const {
  std::string text = fmt::format("step {:>{}}/{}  loss {:.4f}  norm {:.3g}  lr {:.2e}  {} tokens/s", r.step,
                                 std::to_string(settings_.steps).size(), settings_.steps, r.loss, r.grad_norm,
                                 r.learning_rate, grouped(static_cast<double>(tokens) / std::max(seconds, 1e-9)));
  if (settings_.ceiling > 0)
    text += fmt::format("  sol {:.1f}%", 100 * flops / std::max(seconds, 1e-9) / settings_.ceiling);
  for (const LossPart& part : r.parts)
    if (r.parts.size() > 1) text += fmt::format("  {} {:.4f}", part.name, part.nats);
  if (r.segment > 0) text += fmt::format("  segment {}", r.segment);
  int64_t left = settings_.steps - r.step - 1;
  if (left > 0) text += "  left " + duration(pace_ * static_cast<double>(left));
  return text;
}

void StepPrinter::draw(const StepReport& report) {
  auto now = std::chrono::steady_clock::now();
  bool last = report.step + 1 == settings_.steps;
  if (!last && now - drawn_ < std::chrono::milliseconds(100)) return;
  drawn_ = now;
  constexpr int64_t width = 20;
  int64_t filled = width * (report.step + 1) / std::max<int64_t>(1, settings_.steps);
  std::string bar = std::string(filled, '#') + std::string(width - filled, '.');
  fmt::print(out_, "\r\x1b[K[{}] {}", bar, describe(report, report.tokens, report.seconds, report.flops));
  std::fflush(out_);
  bar_ = true;
}

void StepPrinter::step(const StepReport& r) {
  if (settings_.json) {
    fmt::print(stdout, "{}\n", step_json(r));
    std::fflush(stdout);
  }
  if (!r.skipped.empty()) say(fmt::format("step {}: skipped: {} (lr {:.2e})", r.step, r.skipped, r.learning_rate));
  pace_ = pace_ == 0 ? r.seconds : 0.9 * pace_ + 0.1 * r.seconds;
  tokens_ += r.tokens, seconds_ += r.seconds, flops_ += r.flops, ++since_;
  bool line = r.step == 0 || (r.step + 1) % settings_.log_every == 0 || r.step + 1 == settings_.steps;
  if (line && !settings_.json) say(describe(r, tokens_, seconds_, flops_));
  if (line) tokens_ = since_ = 0, seconds_ = flops_ = 0;
  if (terminal_ && r.step + 1 < settings_.steps) draw(r);
}

void StepPrinter::validation(int64_t step, const std::vector<ValidationRow>& rows) {
  if (rows.empty()) return;
  std::string text = fmt::format("validation after {} steps\n  {:<8} {:>10} {:>10} {:>8}\n", step, "stream",
                                 "bits/byte", "nats/token", "tokens");
  auto line = [&](const ValidationRow& row) {
    std::string bits = row.bits_per_byte > 0 ? fmt::format("{:.4f}", row.bits_per_byte) : "-";
    text += fmt::format("  {:<8} {:>10} {:>10.4f} {:>8}\n", row.name, bits, row.nats, row.tokens);
  };
  for (const ValidationRow& row : rows) line(row);
  if (rows.size() > 1) line(mean_of(rows));
  std::vector<HeadScore> scores;
  for (const ValidationRow& row : rows) scores.insert(scores.end(), row.heads.begin(), row.heads.end());
  say(text + head_table(scores));
}

std::string head_table(const std::vector<HeadScore>& scores) {
  if (scores.empty()) return "";
  auto percent = [](double share) { return fmt::format("{:.1f}%", 100 * share); };
  std::string text = fmt::format("  {:<12} {:>8} {:>12} {:>9} {:>9} {:>9} {:>9} {:>9}\n", "head", "labels",
                                 "nats/label", "accuracy", "majority", "precision", "recall", "F1");
  for (const HeadScore& s : scores) {
    text += fmt::format("  {:<12} {:>8} {:>12.4f} {:>9} {:>9}", s.name, s.labels, s.mean_nats(), percent(s.accuracy()),
                        percent(s.majority()));
    if (s.kind == HeadKind::tags)
      text += fmt::format(" {:>9} {:>9} {:>9}", percent(s.precision()), percent(s.recall()), percent(s.f1()));
    text += '\n';
  }
  return text;
}

}  // namespace longhand
