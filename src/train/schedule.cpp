#include "longhand/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "longhand/error.h"

namespace longhand {

ScheduleKind parse_schedule(std::string_view name) {
  for (ScheduleKind kind : {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::constant, ScheduleKind::wsd})
    if (name == schedule_name(kind)) return kind;
  fail_usage("--schedule {}: it takes cosine, linear, constant or wsd", name);
}

const char* schedule_name(ScheduleKind kind) {
  switch (kind) {
    case ScheduleKind::cosine:
      return "cosine";
    case ScheduleKind::linear:
      return "linear";
    case ScheduleKind::constant:
      return "constant";
    case ScheduleKind::wsd:
      return "wsd";
  }
  return "?";
}

// Position in a decay that begins after step `first` and ends at step `last`: 0 before it, 1 from the end on.
static double progress(int64_t step, int64_t first, int64_t last) {
  if (step >= last) return 1;
  if (step <= first) return 0;
  return static_cast<double>(step - first) / static_cast<double>(last - first);
}

double Schedule::rate(int64_t step) const {
  if (step < warmup) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (kind == ScheduleKind::constant) return peak;
  int64_t last = steps - 1;
  int64_t first = kind == ScheduleKind::wsd ? std::max(warmup, last - decay) : warmup;
  double p = progress(step, first, last);
  if (p >= 1) return floor;
  if (kind == ScheduleKind::cosine) return floor + (peak - floor) * 0.5 * (1 + std::cos(std::numbers::pi * p));
  return peak + (floor - peak) * p;
}

}  // namespace longhand
