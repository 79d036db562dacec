// What the 32 lanes of a warp do together: shuffles, votes, reductions, __syncwarp.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "place.h"
#include "thread_view.h"

namespace simt {

/// Runs once, when the last lane has come, over the operands of all `lanes`.
using WarpFunction = void (*)(void* const* operands, uint32_t lanes);

/// Meets the other lanes of `mask` that call with the same mask and function. An `aligned` one is an instruction that
/// all lanes must reach at the same place.
void warp_together(uint32_t mask, WarpFunction function, void* operand, bool aligned, const char* what, Place place);
/// The only one of these that orders memory.
void warp_barrier(uint32_t mask, Place place);

struct ShuffleOperand {
  uint64_t given, received;
  int source;
};
void shuffle_lanes(void* const* operands, uint32_t lanes);

/// The value of lane `source`; from a lane outside the mask it is undefined on the card, and all bits set here.
template <class T>
inline T shuffle(uint32_t mask, T value, int source, const char* what, Place place) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>, "a shuffle moves up to 8 bytes");
  ShuffleOperand operand{0, 0, source};
  std::memcpy(&operand.given, &value, sizeof value);
  warp_together(mask, shuffle_lanes, &operand, false, what, place);
  std::memcpy(&value, &operand.received, sizeof value);
  return value;
}

/// The lanes of this lane's segment of `width`: first and one past the last.
struct Segment {
  int first, end;
};
inline Segment segment_of(int lane, int width) {
  if (width < 1 || width > 32 || (width & (width - 1)))
    fail("a shuffle's width is a power of two up to 32, not %d", width);
  const int first = lane & ~(width - 1);
  return {first, first + width};
}

struct ReduceOperand {
  uint32_t given, result;
};
template <class T, T (*combine)(T, T)>
inline void reduce_lanes(void* const* operands, uint32_t lanes) {
  auto operand = [&](uint32_t left) { return static_cast<ReduceOperand*>(operands[__builtin_ctz(left)]); };
  T result = static_cast<T>(operand(lanes)->given);
  for (uint32_t left = lanes & (lanes - 1); left; left &= left - 1)
    result = combine(result, static_cast<T>(operand(left)->given));
  for (uint32_t left = lanes; left; left &= left - 1) operand(left)->result = static_cast<uint32_t>(result);
}
template <class T, T (*combine)(T, T)>
inline T reduce(uint32_t mask, T value, const char* what, Place place) {
  ReduceOperand operand{static_cast<uint32_t>(value), 0};
  warp_together(mask, reduce_lanes<T, combine>, &operand, false, what, place);
  return static_cast<T>(operand.result);
}
// clang-format off
template <class T> inline T plus(T a, T b) { return a + b; }
template <class T> inline T smaller(T a, T b) { return b < a ? b : a; }
template <class T> inline T larger(T a, T b) { return a < b ? b : a; }
template <class T> inline T both(T a, T b) { return a & b; }
template <class T> inline T either(T a, T b) { return a | b; }
template <class T> inline T differ(T a, T b) { return a ^ b; }
// clang-format on

/// Lanes of equal value, as masks.
struct MatchOperand {
  uint64_t given;
  uint32_t equal;
};
void match_lanes(void* const* operands, uint32_t lanes);

}  // namespace simt

inline void __syncwarp(unsigned mask = 0xffffffffu, simt::Place place = simt::Place::here()) {
  simt::warp_barrier(mask, place);
}

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, simt::Place place = simt::Place::here()) {
  const int lane = static_cast<int>(simt::current_thread->lane);
  return simt::shuffle(mask, value, simt::segment_of(lane, width).first + (source & (width - 1)), "__shfl_sync", place);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, simt::Place place = simt::Place::here()) {
  const int lane = static_cast<int>(simt::current_thread->lane), source = lane ^ flip;
  const bool inside = source < simt::segment_of(lane, width).end;
  return simt::shuffle(mask, value, inside ? source : lane, "__shfl_xor_sync", place);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32,
                          simt::Place place = simt::Place::here()) {
  const int lane = static_cast<int>(simt::current_thread->lane), source = lane + static_cast<int>(delta);
  const bool inside = source < simt::segment_of(lane, width).end;
  return simt::shuffle(mask, value, inside ? source : lane, "__shfl_down_sync", place);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32,
                        simt::Place place = simt::Place::here()) {
  const int lane = static_cast<int>(simt::current_thread->lane), source = lane - static_cast<int>(delta);
  const bool inside = source >= simt::segment_of(lane, width).first;
  return simt::shuffle(mask, value, inside ? source : lane, "__shfl_up_sync", place);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, simt::Place place = simt::Place::here()) {
  const unsigned bit = predicate ? 1u << simt::current_thread->lane : 0u;
  return simt::reduce<unsigned, simt::either>(mask, bit, "__ballot_sync", place);
}
inline int __any_sync(unsigned mask, int predicate, simt::Place place = simt::Place::here()) {
  return simt::reduce<int, simt::either>(mask, predicate != 0, "__any_sync", place);
}
inline int __all_sync(unsigned mask, int predicate, simt::Place place = simt::Place::here()) {
  return simt::reduce<int, simt::both>(mask, predicate != 0, "__all_sync", place);
}
template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, simt::Place place = simt::Place::here()) {
  static_assert(sizeof(T) <= 8);
  simt::MatchOperand operand{0, 0};
  std::memcpy(&operand.given, &value, sizeof value);
  simt::warp_together(mask, simt::match_lanes, &operand, false, "__match_any_sync", place);
  return operand.equal;
}

// __reduce_NAME_sync of signed and unsigned words.
#define SIMT_REDUCE(NAME, T, COMBINE)                                                                \
  inline T __reduce_##NAME##_sync(unsigned mask, T value, simt::Place place = simt::Place::here()) { \
    return simt::reduce<T, simt::COMBINE>(mask, value, "__reduce_" #NAME "_sync", place);            \
  }
SIMT_REDUCE(add, int, plus)
SIMT_REDUCE(add, unsigned, plus)
SIMT_REDUCE(min, int, smaller)
SIMT_REDUCE(min, unsigned, smaller)
SIMT_REDUCE(max, int, larger)
SIMT_REDUCE(max, unsigned, larger)
SIMT_REDUCE(and, unsigned, both)
SIMT_REDUCE(or, unsigned, either)
SIMT_REDUCE(xor, unsigned, differ)
#undef SIMT_REDUCE
