// The part of <cuda_fp16.h> that kernels use: fp16 as a storage type, converted to and from float.
#pragma once
#include <bit>
#include <cstdint>

#include "vector_types.h"

struct alignas(2) __half {
  unsigned short raw;
};
struct alignas(4) __half2 {
  __half x, y;
};
using half = __half;
using half2 = __half2;

inline __half __ushort_as_half(unsigned short bits) { return __half{bits}; }
inline unsigned short __half_as_ushort(__half h) { return h.raw; }

/// Exact: every fp16 is a float.
inline float __half2float(__half h) {
  const uint32_t sign = static_cast<uint32_t>(h.raw & 0x8000u) << 16, exponent = h.raw >> 10 & 31u,
                 mantissa = h.raw & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero and the subnormals
  return sign ? -magnitude : magnitude;
}

/// Rounds to the nearest fp16, ties to even; what is too large becomes infinite, a NaN the canonical one.
inline __half __float2half_rn(float f) {
  const uint32_t bits = std::bit_cast<uint32_t>(f), magnitude = bits & 0x7fffffffu;
  const auto sign = static_cast<unsigned short>(bits >> 16 & 0x8000u);
  if (magnitude > 0x7f800000u) return __half{0x7fff};
  if (magnitude >= 0x477ff000u) return __half{static_cast<unsigned short>(sign | 0x7c00u)};  // 65520 and above
  if (magnitude < 0x38800000u) {  // below 2^-14: adding 1/2 leaves the subnormal's rounded bits at the end of the word
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return __half{static_cast<unsigned short>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u))};
  }
  const uint32_t rebased = magnitude - (112u << 23);
  return __half{static_cast<unsigned short>(sign | (rebased + 0xfffu + (rebased >> 13 & 1u)) >> 13)};
}
inline __half __float2half(float f) { return __float2half_rn(f); }

inline __half2 __halves2half2(__half low, __half high) { return {low, high}; }
inline __half2 __floats2half2_rn(float low, float high) { return {__float2half_rn(low), __float2half_rn(high)}; }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
inline float2 __half22float2(__half2 v) { return {__half2float(v.x), __half2float(v.y)}; }
inline __half __low2half(__half2 v) { return v.x; }
inline __half __high2half(__half2 v) { return v.y; }
inline float __low2float(__half2 v) { return __half2float(v.x); }
inline float __high2float(__half2 v) { return __half2float(v.y); }
