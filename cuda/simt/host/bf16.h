// The part of <cuda_bf16.h> that kernels use. As on the card, every operation rounds once: bf16 operands go through
// float, which has more than twice their bits and two to spare, so that the second rounding never shows; fma goes
// through double.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>

#include "vector_types.h"

struct __nv_bfloat16_raw {
  unsigned short x;
};
struct alignas(2) __nv_bfloat16 {
  unsigned short raw;

  __nv_bfloat16() = default;
  constexpr __nv_bfloat16(__nv_bfloat16_raw bits) : raw(bits.x) {}
  __nv_bfloat16(float f);
  __nv_bfloat16(double d);
  __nv_bfloat16(int i) : __nv_bfloat16(static_cast<float>(i)) {}
  operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(raw) << 16); }
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

inline float __bfloat162float(__nv_bfloat16 b) { return b; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16(__nv_bfloat16_raw{bits}); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.raw; }

namespace simt {

inline bool is_nan_word(uint32_t word) { return (word & 0x7fffffffu) > 0x7f800000u; }
constexpr unsigned short bf16_nan = 0x7fff;  // the card's only NaN

/// A double's nearest float towards zero, its last bit set when anything was cut off: rounding that once more gives
/// what rounding the double itself would have given (round to odd).
inline float float_to_odd(double d) {
  const float nearest = static_cast<float>(d);
  if (!std::isfinite(nearest) || static_cast<double>(nearest) == d) return nearest;
  uint32_t word = std::bit_cast<uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(d)) word -= 1;
  return std::bit_cast<float>(word | 1u);
}

/// p + q as a double rounded to odd.
inline double sum_to_odd(double p, double q) {
  const double sum = p + q;
  if (!std::isfinite(sum)) return sum;
  const double q_taken = sum - p, lost = (p - (sum - q_taken)) + (q - q_taken);
  if (lost == 0) return sum;
  uint64_t word = std::bit_cast<uint64_t>(sum);
  if ((lost < 0) != std::signbit(sum)) word -= 1;
  return std::bit_cast<double>(word | 1u);
}

}  // namespace simt

/// To the nearest, ties to even: adds half of the last place kept, and its lowest bit on top.
inline __nv_bfloat16 __float2bfloat16_rn(float f) {
  const uint32_t word = std::bit_cast<uint32_t>(f);
  if (simt::is_nan_word(word)) return __ushort_as_bfloat16(simt::bf16_nan);
  return __ushort_as_bfloat16(static_cast<unsigned short>((word + 0x7fffu + (word >> 16 & 1u)) >> 16));
}
inline __nv_bfloat16 __float2bfloat16(float f) { return __float2bfloat16_rn(f); }
inline __nv_bfloat16 __float2bfloat16_rz(float f) {
  const uint32_t word = std::bit_cast<uint32_t>(f);
  if (simt::is_nan_word(word)) return __ushort_as_bfloat16(simt::bf16_nan);
  return __ushort_as_bfloat16(static_cast<unsigned short>(word >> 16));
}
inline __nv_bfloat16 __double2bfloat16(double d) { return __float2bfloat16_rn(simt::float_to_odd(d)); }
inline __nv_bfloat16::__nv_bfloat16(float f) : __nv_bfloat16(__float2bfloat16_rn(f)) {}
inline __nv_bfloat16::__nv_bfloat16(double d) : __nv_bfloat16(__double2bfloat16(d)) {}

// Pairs.
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) { return {low, high}; }
inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) { return {low, high}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
}
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
inline __nv_bfloat162 __float2bfloat162_rn(float f) { return __floats2bfloat162_rn(f, f); }
inline __nv_bfloat162 __bfloat162bfloat162(__nv_bfloat16 b) { return {b, b}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {__bfloat162float(v.x), __bfloat162float(v.y)}; }
inline float __low2float(__nv_bfloat162 v) { return __bfloat162float(v.x); }
inline float __high2float(__nv_bfloat162 v) { return __bfloat162float(v.y); }
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) { return v.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) { return v.y; }

// Arithmetic, of one and of two.
#define SIMT_BF16_OPERATION(NAME, RESULT)                                    \
  inline __nv_bfloat16 NAME(__nv_bfloat16 left, __nv_bfloat16 right) {       \
    const float a = left, b = right;                                         \
    return __float2bfloat16_rn(RESULT);                                      \
  }                                                                          \
  inline __nv_bfloat162 NAME##2(__nv_bfloat162 left, __nv_bfloat162 right) { \
    return {NAME(left.x, right.x), NAME(left.y, right.y)};                   \
  }
SIMT_BF16_OPERATION(__hadd, a + b)
SIMT_BF16_OPERATION(__hsub, a - b)
SIMT_BF16_OPERATION(__hmul, a* b)
SIMT_BF16_OPERATION(__hmax, std::fmax(a, b))
SIMT_BF16_OPERATION(__hmin, std::fmin(a, b))
#undef SIMT_BF16_OPERATION
inline __nv_bfloat16 __hfma(__nv_bfloat16 a, __nv_bfloat16 b, __nv_bfloat16 c) {
  const double product = static_cast<double>(__bfloat162float(a)) * static_cast<double>(__bfloat162float(b));  // exact
  return __double2bfloat16(simt::sum_to_odd(product, __bfloat162float(c)));
}
inline __nv_bfloat162 __hfma2(__nv_bfloat162 a, __nv_bfloat162 b, __nv_bfloat162 c) {
  return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
inline __nv_bfloat16 __hneg(__nv_bfloat16 a) { return __ushort_as_bfloat16(a.raw ^ 0x8000); }

inline __nv_bfloat16 operator+(__nv_bfloat16 a, __nv_bfloat16 b) { return __hadd(a, b); }
inline __nv_bfloat16 operator-(__nv_bfloat16 a, __nv_bfloat16 b) { return __hsub(a, b); }
inline __nv_bfloat16 operator*(__nv_bfloat16 a, __nv_bfloat16 b) { return __hmul(a, b); }
