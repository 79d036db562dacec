#include "longhand/schedule.h"

#include <doctest/doctest.h>

#include "longhand/error.h"

using namespace longhand;

static const ScheduleKind decaying[] = {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::wsd};

TEST_CASE("every decaying schedule reaches its floor exactly at the last step, and not before") {
  for (ScheduleKind kind : decaying) {
    Schedule s{.kind = kind, .peak = 3e-4, .floor = 3e-5, .warmup = 7, .decay = 20, .steps = 100};
    CAPTURE(schedule_name(kind));
    CHECK(s.rate(99) == s.floor);
    CHECK(s.rate(98) > s.floor);
    CHECK(s.rate(7) == s.peak);
  }
}

TEST_CASE("the rate never rises after the warm-up and never leaves [floor, peak]") {
  for (ScheduleKind kind : decaying) {
    Schedule s{.kind = kind, .peak = 1, .floor = 0.1, .warmup = 5, .decay = 10, .steps = 50};
    for (int64_t step = 5; step < 50; ++step) {
      CHECK(s.rate(step) <= s.rate(step - 1));
      CHECK(s.rate(step) >= s.floor);
    }
    CHECK(s.rate(500) == s.floor);
  }
}

TEST_CASE("warm-up step s uses (s + 1) / warmup of the peak") {
  Schedule s{.kind = ScheduleKind::constant, .peak = 2, .warmup = 4, .steps = 10};
  CHECK(s.rate(0) == 0.5);
  CHECK(s.rate(1) == 1.0);
  CHECK(s.rate(3) == 2.0);
  CHECK(s.rate(9) == 2.0);
}

TEST_CASE("warmup-stable-decay holds the peak until its decay begins") {
  Schedule s{.kind = ScheduleKind::wsd, .peak = 1, .floor = 0, .warmup = 2, .decay = 10, .steps = 30};
  CHECK(s.rate(19) == 1.0);
  CHECK(s.rate(20) < 1.0);
  CHECK(s.rate(24) == doctest::Approx(0.5));
}

TEST_CASE("a run of one step, or one that is all warm-up, has a rate") {
  for (ScheduleKind kind : decaying) {
    CHECK(Schedule{.kind = kind, .peak = 1, .floor = 0.1, .steps = 1}.rate(0) == 0.1);
    CHECK(Schedule{.kind = kind, .peak = 1, .floor = 0.1, .warmup = 3, .steps = 3}.rate(2) == 1.0);
  }
}

TEST_CASE("an unknown schedule is refused with the list") {
  CHECK(parse_schedule("wsd") == ScheduleKind::wsd);
  CHECK_THROWS_AS(parse_schedule("cosines"), UsageError);
}
