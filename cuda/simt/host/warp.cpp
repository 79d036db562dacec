#include "warp.h"

#include <bit>

#include "observer.h"
#include "scheduler.h"

namespace simt {
namespace {

/// The meeting of this mask and function, which may be its first lane's.
///
/// Lanes meet when mask and function agree; another meeting may lawfully be open beside it, while a part of the warp is
/// still busy elsewhere. Lanes that truly diverge never complete one: the deadlock's report names the place of each.
int find_meeting(Warp& warp, uint32_t mask, WarpFunction function, bool aligned, const char* what, Place place) {
  mask &= warp.exists;
  if (mask & ~warp.alive)
    fail("%s at %s:%d names lanes %08x that have returned", what, place.file, place.line, mask & ~warp.alive);
  for (int i = 0; i < warp.meetings; ++i)
    if (warp.meeting[i].mask == mask && warp.meeting[i].function == function) return i;
  Meeting& meeting = warp.meeting[warp.meetings];
  meeting.mask = mask, meeting.arrived = 0, meeting.function = function, meeting.aligned = aligned;
  meeting.what = what, meeting.place = place;
  return warp.meetings++;
}

void order_memory(void* const*, uint32_t lanes) {
  if (observer) observer->warp_barrier_met(lanes, running().linear / 32 * 32);
}

}  // namespace

void finish_meeting(Warp& warp, int index, uint32_t running_lane) {
  Meeting& meeting = warp.meeting[index];
  meeting.function(meeting.operand, meeting.arrived);
  warp.ready |= meeting.arrived & ~running_lane;
  if (index != --warp.meetings) meeting = warp.meeting[warp.meetings];
}

void warp_together(uint32_t mask, WarpFunction function, void* operand, bool aligned, const char* what, Place place) {
  Fiber& self = running();
  Warp& warp = *self.warp;
  const uint32_t lane = 1u << self.lane;
  if (!(mask & lane))
    fail("%s at %s:%d: the calling lane %u is not in its mask %08x", what, place.file, place.line, self.lane, mask);
  const bool usual = warp.meetings == 1 && warp.meeting[0].mask == mask && warp.meeting[0].function == function;
  const int index = usual ? 0 : find_meeting(warp, mask, function, aligned, what, place);
  Meeting& meeting = warp.meeting[index];
  if (aligned && !(meeting.place == place))
    fail("warp divergence: lane %u is at %s %s:%d while lanes %08x of its warp wait at %s %s:%d", self.lane, what,
         place.file, place.line, meeting.arrived, meeting.what, meeting.place.file, meeting.place.line);
  meeting.operand[self.lane] = operand;
  meeting.arrived |= lane;
  if (meeting.arrived == meeting.mask)
    finish_meeting(warp, index, lane);
  else
    wait(what, place);
}

void warp_barrier(uint32_t mask, Place place) {
  warp_together(mask, order_memory, nullptr, false, "__syncwarp", place);
}

void shuffle_lanes(void* const* operands, uint32_t lanes) {
  for (uint32_t left = lanes; left; left &= left - 1) {
    auto* operand = static_cast<ShuffleOperand*>(operands[std::countr_zero(left)]);
    const bool inside = lanes >> operand->source & 1;
    operand->received = inside ? static_cast<ShuffleOperand*>(operands[operand->source])->given : ~0ull;
  }
}

void match_lanes(void* const* operands, uint32_t lanes) {
  for (uint32_t left = lanes; left; left &= left - 1) {
    auto* operand = static_cast<MatchOperand*>(operands[std::countr_zero(left)]);
    operand->equal = 0;
    for (uint32_t other = lanes; other; other &= other - 1) {
      const int lane = std::countr_zero(other);
      if (static_cast<MatchOperand*>(operands[lane])->given == operand->given) operand->equal |= 1u << lane;
    }
  }
}

}  // namespace simt
