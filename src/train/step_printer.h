// What people see of a run: a line every few steps, and on a terminal a bar that moves with each.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "longhand/train.h"

namespace longhand {

/// What heads scored, one line each under a title; "" where there are none.
std::string head_table(const std::vector<HeadScore>& scores);

class StepPrinter {
 public:
  struct Settings {
    bool json = false;  // one object a step on standard output, words for people on standard error
    int64_t log_every = 10;
    int64_t steps = 0;
    double ceiling = 0;  // floating-point operations a second; 0 = unknown
  };
  explicit StepPrinter(const Settings& settings);
  ~StepPrinter();

  void step(const StepReport& report);
  void validation(int64_t step, const std::vector<ValidationRow>& rows);
  /// A line, or several, between the others.
  void say(const std::string& text);

 private:
  std::string describe(const StepReport& report, int64_t tokens, double seconds, double flops) const;
  void draw(const StepReport& report);
  void clear_bar();

  Settings settings_;
  FILE* out_;
  bool terminal_, bar_ = false;
  int64_t tokens_ = 0, since_ = 0;             // since the last line
  double seconds_ = 0, flops_ = 0, pace_ = 0;  // pace: smoothed seconds a step
  std::chrono::steady_clock::time_point drawn_{};
};

}  // namespace longhand
