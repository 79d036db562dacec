// Learning-rate schedules. Warm-up rises in equal steps and is followed by a decay that reaches its floor at the last
// step, not one step after it.
#pragma once

#include <cstdint>
#include <string_view>

namespace longhand {

enum class ScheduleKind : uint8_t { cosine, linear, constant, wsd };

/// "cosine", "linear", "constant", "wsd"; fails with the list.
ScheduleKind parse_schedule(std::string_view name);
const char* schedule_name(ScheduleKind kind);

struct Schedule {
  ScheduleKind kind = ScheduleKind::cosine;
  double peak = 0, floor = 0;
  int64_t warmup = 0;  // steps of warm-up
  int64_t decay = 0;   // wsd: steps of decay at the end
  int64_t steps = 0;   // of the whole run

  /// Step s < warmup: peak (s + 1) / warmup. Then, with p = (s - warmup) / (steps - 1 - warmup) in [0, 1]:
  ///   cosine: floor + (peak - floor) (1 + cos(pi p)) / 2;   linear: peak + (floor - peak) p;   constant: peak
  ///   wsd (warm-up, stable, decay; Hu et al. 2024): peak until the last `decay` steps, then linear to the floor
  double rate(int64_t step) const;
};

}  // namespace longhand
