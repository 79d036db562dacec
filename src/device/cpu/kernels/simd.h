// Vectors of the width that this build's instruction set has, for kernels that read the same at every width.
// Only for files in this folder. `vec` behaves like a float of `lanes` lanes: + - * / and comparisons work on it, and
// a * b + c becomes one fused multiply-add where the processor has one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#define LONGHAND_INLINE static inline __attribute__((always_inline))

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

#if defined(__AVX512F__)
constexpr int lanes = 16;
#elif defined(__AVX2__)
constexpr int lanes = 8;
#else
constexpr int lanes = 4;
#endif
typedef float vec __attribute__((vector_size(lanes * 4)));
typedef int32_t ivec __attribute__((vector_size(lanes * 4)));
typedef uint32_t uvec __attribute__((vector_size(lanes * 4)));
typedef uint16_t hvec __attribute__((vector_size(lanes * 2)));
typedef float vec_unaligned __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef uint32_t uvec_unaligned __attribute__((vector_size(lanes * 4), aligned(4), may_alias));
typedef uint16_t hvec_unaligned __attribute__((vector_size(lanes * 2), aligned(2), may_alias));

/// bf16 as the kernels see it: the same bytes as longhand::bf16, without its header.
struct half {
  uint16_t bits;
};

LONGHAND_INLINE vec splat(float x) { return x - vec{}; }  // x + 0 would cost an addition and lose -0
LONGHAND_INLINE ivec splat_int(int32_t x) { return ivec{} + x; }

LONGHAND_INLINE vec load(const float* p) { return *reinterpret_cast<const vec_unaligned*>(p); }
LONGHAND_INLINE void store(float* p, vec x) { *reinterpret_cast<vec_unaligned*>(p) = x; }
// The compiler takes conversions between 16 and 32 bits apart where there is an instruction for them.
LONGHAND_INLINE uvec widen(const hvec_unaligned* p) {
#if defined(__AVX512F__)
  return (uvec)_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return (uvec)_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  return __builtin_convertvector(*p, uvec);
#endif
}
LONGHAND_INLINE void narrow(hvec_unaligned* p, uvec x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtepi32_epi16(0xffff, (__m512i)x));
#else
  *p = __builtin_convertvector(x, hvec);
#endif
}

LONGHAND_INLINE vec load(const half* p) { return (vec)(widen(reinterpret_cast<const hvec_unaligned*>(p)) << 16); }
/// Round to nearest, ties to even; a NaN stays one.
LONGHAND_INLINE void store(half* p, vec x) {
  uvec word = (uvec)x;
  uvec rounded = (word + 0x7fffu + ((word >> 16) & 1)) >> 16;
  uvec nan = (word >> 16) | 0x40;
  uvec is_nan = (uvec)((word & 0x7fffffffu) > 0x7f800000u);
  uvec bits = (is_nan & nan) | (~is_nan & rounded);
  narrow(reinterpret_cast<hvec_unaligned*>(p), bits);
}

LONGHAND_INLINE float to_float(float x) { return x; }
LONGHAND_INLINE float to_float(half x) {
  uint32_t word = static_cast<uint32_t>(x.bits) << 16;
  float value;
  __builtin_memcpy(&value, &word, 4);
  return value;
}
LONGHAND_INLINE void from_float(float* p, float x) { *p = x; }
LONGHAND_INLINE void from_float(half* p, float x) {
  uint32_t word;
  __builtin_memcpy(&word, &x, 4);
  bool nan = (word & 0x7fffffffu) > 0x7f800000u;
  p->bits = static_cast<uint16_t>(nan ? (word >> 16) | 0x40 : (word + 0x7fffu + ((word >> 16) & 1)) >> 16);
}

/// The first n < lanes entries; the others read as 0 and are not written.
template <class T>
LONGHAND_INLINE vec load_part(const T* p, int64_t n) {
  float part[lanes] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = to_float(p[i]);
  return load(part);
}
template <class T>
LONGHAND_INLINE void store_part(T* p, vec x, int64_t n) {
  float part[lanes];
  store(part, x);
  for (int64_t i = 0; i < n; ++i) from_float(p + i, part[i]);
}
#if defined(__AVX512F__)
LONGHAND_INLINE vec load_part(const float* p, int64_t n) {
  return (vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
LONGHAND_INLINE void store_part(float* p, vec x, int64_t n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)x);
}
#endif

LONGHAND_INLINE vec select(ivec mask, vec yes, vec no) { return (vec)((mask & (ivec)yes) | (~mask & (ivec)no)); }
LONGHAND_INLINE vec maximum(vec a, vec b) { return a > b ? a : b; }
LONGHAND_INLINE vec minimum(vec a, vec b) { return a < b ? a : b; }

/// Pairwise, in a fixed order.
LONGHAND_INLINE float sum(vec x) {
  float part[lanes];
  store(part, x);
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] += part[i + width];
  return part[0];
}
LONGHAND_INLINE float largest(vec x) {
  float part[lanes];
  store(part, x);
  for (int width = lanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) part[i] = part[i] > part[i + width] ? part[i] : part[i + width];
  return part[0];
}

LONGHAND_INLINE vec round_to_even(vec x) {
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_roundscale_ps(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return (vec)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  return (vec)_mm_cvtepi32_ps(_mm_cvtps_epi32((__m128)x));
#endif
}

/// e^x to about 1 ulp: x = n ln 2 + r, a polynomial in r (Cephes expf), exponent by bits. Below -87.3: 0; NaN stays
/// NaN.
LONGHAND_INLINE vec exponential(vec x) {
  vec clamped = x < splat(-87.33f) ? splat(-87.33f) : x;
  clamped = clamped > splat(88.37f) ? splat(88.37f) : clamped;
  vec n = round_to_even(clamped * splat(1.44269504088896341f));
  vec r = clamped - n * splat(0.693359375f);
  r = r - n * splat(-2.12194440e-4f);
  vec p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * r * r + r + splat(1.0f);
  ivec exponent = (__builtin_convertvector(n, ivec) + 127) << 23;
  vec y = p * (vec)exponent;
  y = x < splat(-87.33f) ? splat(0.0f) : y;
  return x == x ? y : x;
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
