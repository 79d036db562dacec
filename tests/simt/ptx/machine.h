// What the C++ that scripts/ptx_to_cpp.py makes of PTX is written in: registers, memory and the instructions as
// functions, each as the PTX manual defines it. Warp and block instructions are those of cuda/simt/host.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

#include "cuda/simt/simt.h"

namespace ptx {

/// One kernel of a module, known to the comparison by its mangled name.
struct Kernel {
  Kernel(const char* name_, void (*run_)(const void* const*), size_t shared_, size_t dynamic_alignment_,
         const char* approximate_);
  const char* name;
  void (*run)(const void* const* parameters);
  size_t shared;             // static
  size_t dynamic_alignment;  // of the dynamic array behind it
  const char* approximate;   // its instructions whose last bits the manual leaves open
};

// Registers. A register holds bits or a float; an instruction reads and writes it as its own type.

template <class T, class R>
inline T as(R r) {
  if constexpr (std::is_same_v<T, R>)
    return r;
  else if constexpr (std::is_floating_point_v<T> != std::is_floating_point_v<R>)
    return std::bit_cast<T>(r);
  else
    return static_cast<T>(r);
}
/// Narrower signed values are extended by their sign, unsigned ones by zeros.
template <class R, class T>
inline void set(R& r, T value) {
  if constexpr (std::is_floating_point_v<T> != std::is_floating_point_v<R> && !std::is_same_v<R, bool>)
    r = std::bit_cast<R>(value);
  else
    r = static_cast<R>(value);
}

template <class T>
using Unsigned = std::make_unsigned_t<T>;
template <class T>
using Wide =
    std::conditional_t<sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, int32_t, uint32_t>,
                       std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>,
                                          std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

// Arithmetic. Integers wrap; floats round to nearest.

template <class T>
inline T add(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a + b;
  else
    return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
}
template <class T>
inline T sub(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a - b;
  else
    return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
}
template <class T>
inline T mul(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return a * b;
  else
    return static_cast<T>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
}
template <class T>
inline T mul_hi(T a, T b) {
  return static_cast<T>(static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b) >> 8 * sizeof(T));
}
template <class T>
inline Wide<T> mul_wide(T a, T b) {
  return static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b);
}
template <class T>
inline T mad(T a, T b, T c) {
  return add(mul(a, b), c);
}
template <class T>
inline Wide<T> mad_wide(T a, T b, Wide<T> c) {
  return add(mul_wide(a, b), c);
}
template <class T>
inline T add_with_carry(T a, T b, bool carry_in, bool& carry) {
  const auto sum = static_cast<unsigned __int128>(a) + b + carry_in;
  carry = sum >> 8 * sizeof(T) & 1;
  return static_cast<T>(sum);
}
template <class T>
inline T subtract_with_borrow(T a, T b, bool borrow_in, bool& borrow) {
  const auto difference = static_cast<unsigned __int128>(a) - b - borrow_in;
  borrow = difference >> 8 * sizeof(T) & 1;
  return static_cast<T>(difference);
}
template <class T>
inline T fma(T a, T b, T c) {
  return std::fma(a, b, c);
}
/// Rounded down: the exact sum, as a double that knows whether bits were lost, to the float below.
inline float fma_down(float a, float b, float c) {
  const double exact = simt::sum_to_odd(static_cast<double>(a) * b, c);
  const auto nearest = static_cast<float>(exact);
  return static_cast<double>(nearest) > exact ? std::nextafterf(nearest, -INFINITY) : nearest;
}
/// Rounded towards zero.
inline float add_to_zero(float a, float b) {
  const double exact = simt::sum_to_odd(a, b);
  const auto nearest = static_cast<float>(exact);
  return std::fabs(static_cast<double>(nearest)) > std::fabs(exact) ? std::nextafterf(nearest, 0.0f) : nearest;
}
template <class T>
inline T div(T a, T b) {
  return a / b;
}
template <class T>
inline T rem(T a, T b) {
  return a % b;
}
template <class T>
inline T smaller(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return std::fmin(a, b);
  else
    return b < a ? b : a;
}
template <class T>
inline T larger(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return std::fmax(a, b);
  else
    return a < b ? b : a;
}
template <class T>
inline T negate(T a) {
  if constexpr (std::is_floating_point_v<T>)
    return -a;
  else
    return sub(T(0), a);
}
template <class T>
inline T absolute(T a) {
  if constexpr (std::is_floating_point_v<T>)
    return std::fabs(a);
  else
    return a < 0 ? negate(a) : a;
}
/// The sign of a, the magnitude of b.
template <class T>
inline T copysign(T a, T b) {
  return std::copysign(b, a);
}
template <class T>
inline T saturate(T a) {
  return a > 0 ? (a < 1 ? a : T(1)) : T(0);
}

// Functions whose result the manual gives within a few last places; .ftz takes and gives zero for what is not normal.

template <bool flush>
inline float flushed(float a) {
  return flush && std::fpclassify(a) == FP_SUBNORMAL ? std::copysign(0.0f, a) : a;
}
template <bool flush = false>
inline float exp2(float a) {
  return flushed<flush>(std::exp2(flushed<flush>(a)));
}
template <bool flush = false>
inline float log2(float a) {
  return flushed<flush>(std::log2(flushed<flush>(a)));
}
template <bool flush = false, class T>
inline T reciprocal(T a) {
  if constexpr (!flush) return 1 / a;
  return flushed<flush>(1 / flushed<flush>(a));
}
template <bool flush = false, class T>
inline T root(T a) {
  if constexpr (!flush) return std::sqrt(a);
  return flushed<flush>(std::sqrt(flushed<flush>(a)));
}
template <bool flush = false, class T>
inline T reciprocal_root(T a) {
  if constexpr (!flush) return 1 / std::sqrt(a);
  return flushed<flush>(1 / std::sqrt(flushed<flush>(a)));
}
/// What is known of an approximate double: its upper 32 bits.
inline double upper_word(double a) { return std::bit_cast<double>(std::bit_cast<uint64_t>(a) & 0xffffffff00000000ull); }
template <bool flush = false>
inline float sine(float a) {
  return flushed<flush>(std::sin(flushed<flush>(a)));
}
template <bool flush = false>
inline float cosine(float a) {
  return flushed<flush>(std::cos(flushed<flush>(a)));
}
template <bool flush = false>
inline float tangent_hyperbolic(float a) {
  return flushed<flush>(std::tanh(flushed<flush>(a)));
}

// Bits.

template <class T>
inline T shift_left(T a, uint32_t by) {
  return by >= 8 * sizeof(T) ? 0 : static_cast<T>(static_cast<Unsigned<T>>(a) << by);
}
template <class T>
inline T shift_right(T a, uint32_t by) {
  return by >= 8 * sizeof(T) ? static_cast<T>(a < 0 ? -1 : 0) : static_cast<T>(a >> by);
}
/// The upper half of high:low << by (l) or the lower half of high:low >> by (r); `wrap` takes the shift modulo 32.
inline uint32_t funnel_left(uint32_t low, uint32_t high, uint32_t by, bool wrap) {
  by = wrap ? by & 31 : (by > 32 ? 32 : by);
  const uint64_t both = static_cast<uint64_t>(high) << 32 | low;
  return by == 32 ? low : static_cast<uint32_t>(both << by >> 32);
}
inline uint32_t funnel_right(uint32_t low, uint32_t high, uint32_t by, bool wrap) {
  by = wrap ? by & 31 : (by > 32 ? 32 : by);
  return static_cast<uint32_t>((static_cast<uint64_t>(high) << 32 | low) >> by);
}
template <class T>
inline T field_mask(uint32_t length) {
  return length >= 8 * sizeof(T) ? static_cast<T>(~T(0)) : static_cast<T>((T(1) << length) - 1);
}
/// b with `length` bits of a put in at `start`.
template <class T>
inline T insert_field(T a, T b, uint32_t start, uint32_t length) {
  start &= 255, length &= 255;
  const T mask = shift_left(field_mask<T>(length), start);
  return static_cast<T>((b & ~mask) | (shift_left(a, start) & mask));
}
/// `length` bits of a from `start`, extended by the sign that the type has.
template <class T>
inline T extract_field(T a, uint32_t start, uint32_t length) {
  start &= 255, length &= 255;
  if (length == 0) return 0;
  const auto bits = static_cast<Unsigned<T>>(a);
  const uint32_t last = 8 * sizeof(T) - 1, top = start + length - 1 < last ? start + length - 1 : last;
  const auto field = static_cast<Unsigned<T>>(shift_right(bits, start) & field_mask<Unsigned<T>>(length));
  const bool negative = std::is_signed_v<T> && (bits >> top & 1);
  return static_cast<T>(negative ? field | ~field_mask<Unsigned<T>>(length) : field);
}

/// The highest set bit, all ones when there is none; shift_to_highest counts from the other end.
template <class T>
inline uint32_t highest_bit(T a) {
  return a ? static_cast<uint32_t>(8 * sizeof(T) - 1 - std::countl_zero(a)) : 0xffffffffu;
}
template <class T>
inline uint32_t shift_to_highest(T a) {
  return a ? static_cast<uint32_t>(std::countl_zero(a)) : 0xffffffffu;
}

// Conversions between numbers.

/// An integer from a float that is already rounded: clamped, NaN becomes 0.
template <class To, class From>
inline To to_integer(From rounded) {
  return simt::to_integer<To>(rounded);
}

// Comparisons: `u` ones hold as well when an operand is NaN.

template <class T>
inline bool unordered(T a, T b) {
  return std::isnan(a) || std::isnan(b);
}

// Memory. Shared memory has addresses of its own, from 0; the arena is where they begin.

template <class T>
inline T* at(const void* base, int64_t offset, size_t alignment) {
  auto* p = static_cast<char*>(const_cast<void*>(base)) + offset;
  if (reinterpret_cast<uintptr_t>(p) % alignment)
    simt::fail("PTX: %p is not %zu-byte aligned", static_cast<void*>(p), alignment);
  return reinterpret_cast<T*>(p);
}
inline const void* pointer(uint64_t address) { return reinterpret_cast<const void*>(address); }
template <class T>
inline T parameter(const void* value, size_t offset) {
  T t;
  std::memcpy(&t, static_cast<const char*>(value) + offset, sizeof t);
  return t;
}

/// Words of global memory that a kernel stores as bits, not as floats: they may be bf16, one or two a word.
void wrote_halves(const void* p, size_t bytes);

template <class T>
inline void set_parameter(void* value, size_t offset, T t) {
  std::memcpy(static_cast<char*>(value) + offset, &t, sizeof t);
}

// Warp and block.

enum class Shuffle { butterfly, down, up, index };
/// shfl.sync as the manual writes it: `control` has the clamp in its low bits and the segment mask from bit 8.
inline uint32_t shuffle(Shuffle mode, uint32_t value, uint32_t by, uint32_t control, uint32_t members, bool& valid) {
  const int lane = static_cast<int>(simt::current_thread->lane), b = static_cast<int>(by & 31);
  const int clamp = static_cast<int>(control & 31), segment = static_cast<int>(control >> 8 & 31);
  const int highest = (lane & segment) | (clamp & ~segment), lowest = lane & segment;
  int source = lane;
  switch (mode) {
    case Shuffle::up:
      source = lane - b, valid = source >= highest;
      break;
    case Shuffle::down:
      source = lane + b, valid = source <= highest;
      break;
    case Shuffle::butterfly:
      source = lane ^ b, valid = source <= highest;
      break;
    case Shuffle::index:
      source = lowest | (b & ~segment), valid = source <= highest;
      break;
  }
  return simt::shuffle<uint32_t>(members, value, valid ? source : lane, "shfl.sync", simt::Place::here());
}

/// atom: the old value, and change(old) in its place.
template <class T, class Change>
inline T atomic(T* p, Change change) {
  return simt::atomic_change(p, change);
}

// bf16, one and two in a word.

inline uint32_t bf16_pair(float low, float high) {
  return static_cast<uint32_t>(__float2bfloat16_rn(high).raw) << 16 | __float2bfloat16_rn(low).raw;
}
inline __nv_bfloat16 bf16(uint32_t bits) { return __ushort_as_bfloat16(static_cast<unsigned short>(bits)); }
template <class Operation>
inline uint32_t by_halves(uint32_t a, uint32_t b, uint32_t c, Operation operation) {
  const uint32_t low = operation(bf16(a), bf16(b), bf16(c)).raw,
                 high = operation(bf16(a >> 16), bf16(b >> 16), bf16(c >> 16)).raw;
  return high << 16 | low;
}

}  // namespace ptx
