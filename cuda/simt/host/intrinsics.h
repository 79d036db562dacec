// CUDA's arithmetic and bit functions that touch one thread alone. Those that the host's <cmath> has under the same
// name (expf, erfcf, log1pf, fmaf, sincosf, ...) come from there.
#pragma once
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

// The same bits as another type
inline float __uint_as_float(unsigned u) { return std::bit_cast<float>(u); }
inline unsigned __float_as_uint(float f) { return std::bit_cast<unsigned>(f); }
inline float __int_as_float(int i) { return std::bit_cast<float>(i); }
inline int __float_as_int(float f) { return std::bit_cast<int>(f); }
inline double __longlong_as_double(long long i) { return std::bit_cast<double>(i); }
inline long long __double_as_longlong(double d) { return std::bit_cast<long long>(d); }

// Arithmetic with a stated rounding, which is the host's own
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

// Fast functions: the card's are a few units in the last place off, the host's are the accurate ones
inline float __expf(float x) { return ::expf(x); }
inline float __exp10f(float x) { return ::exp10f(x); }
inline float __logf(float x) { return ::logf(x); }
inline float __log2f(float x) { return ::log2f(x); }
inline float __log10f(float x) { return ::log10f(x); }
inline float __sinf(float x) { return ::sinf(x); }
inline float __cosf(float x) { return ::cosf(x); }
inline void __sincosf(float x, float* sine, float* cosine) { ::sincosf(x, sine, cosine); }
inline float __tanf(float x) { return ::tanf(x); }
inline float __powf(float x, float y) { return ::powf(x, y); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frsqrt_rn(float x) { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(x))); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }

// Conversions; what does not fit is clamped and a NaN becomes 0, as the card does it
namespace simt {
template <class Integer, class Float>
inline Integer to_integer(Float rounded) {
  constexpr int digits = static_cast<int>(8 * sizeof(Integer)) - (Integer(-1) < Integer(0) ? 1 : 0);
  const Float end = std::ldexp(Float(1), digits), begin = Integer(-1) < Integer(0) ? -end : Float(0);
  constexpr Integer lowest = Integer(-1) < Integer(0) ? static_cast<Integer>(uint64_t(1) << (digits & 63)) : Integer(0);
  if (std::isnan(rounded)) return 0;
  if (rounded >= end) return static_cast<Integer>(~lowest);
  if (rounded < begin) return lowest;
  return static_cast<Integer>(rounded);
}
}  // namespace simt
inline int __float2int_rn(float x) { return simt::to_integer<int>(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return simt::to_integer<int>(std::trunc(x)); }
inline int __float2int_rd(float x) { return simt::to_integer<int>(std::floor(x)); }
inline int __float2int_ru(float x) { return simt::to_integer<int>(std::ceil(x)); }
inline unsigned __float2uint_rn(float x) { return simt::to_integer<unsigned>(std::nearbyint(x)); }
inline unsigned __float2uint_rz(float x) { return simt::to_integer<unsigned>(std::trunc(x)); }
inline long long __float2ll_rn(float x) { return simt::to_integer<long long>(std::nearbyint(x)); }
inline long long __float2ll_rz(float x) { return simt::to_integer<long long>(std::trunc(x)); }
inline float __int2float_rn(int i) { return static_cast<float>(i); }
inline float __uint2float_rn(unsigned u) { return static_cast<float>(u); }
inline float __ll2float_rn(long long i) { return static_cast<float>(i); }
inline float __ull2float_rn(unsigned long long u) { return static_cast<float>(u); }
inline float __double2float_rn(double d) { return static_cast<float>(d); }

// Bits
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(static_cast<unsigned>(x)) + 1 : 0; }
inline int __ffsll(long long x) { return x ? std::countr_zero(static_cast<unsigned long long>(x)) + 1 : 0; }
inline unsigned __brev(unsigned x) {
  x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
  x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
  x = (x >> 4 & 0x0f0f0f0fu) | (x & 0x0f0f0f0fu) << 4;
  return __builtin_bswap32(x);
}
inline unsigned long long __brevll(unsigned long long x) {
  return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32 |
         __brev(static_cast<unsigned>(x >> 32));
}
/// The four bytes of the result, each chosen by a nibble of `selector` from the eight of b:a; bit 3 repeats its sign.
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) {
    const unsigned choice = selector >> 4 * i & 15u;
    unsigned byte = static_cast<unsigned>(bytes >> 8 * (choice & 7u)) & 255u;
    if (choice & 8u) byte = byte & 128u ? 255u : 0u;
    result |= byte << 8 * i;
  }
  return result;
}
/// The upper (l) or lower (r) 32 bits of high:low moved by `shift` modulo 32.
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) << (shift & 31u) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
  return static_cast<unsigned>((static_cast<uint64_t>(high) << 32 | low) >> (shift & 31u));
}

// Integers
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<int64_t>(a) * b >> 32); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(static_cast<uint64_t>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline int __mul24(int a, int b) { return (a << 8 >> 8) * (b << 8 >> 8); }
/// c plus the inner product of four bytes with four bytes.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) c += static_cast<int8_t>(a >> 8 * i) * static_cast<int8_t>(b >> 8 * i);
  return c;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 4; ++i) c += (a >> 8 * i & 255u) * (b >> 8 * i & 255u);
  return c;
}

// Min and max, for every pair of types that CUDA has them for
#define SIMT_MIN_MAX(T)                            \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
SIMT_MIN_MAX(int)
SIMT_MIN_MAX(unsigned)
SIMT_MIN_MAX(long)
SIMT_MIN_MAX(unsigned long)
SIMT_MIN_MAX(long long)
SIMT_MIN_MAX(unsigned long long)
#undef SIMT_MIN_MAX
inline float min(float a, float b) { return std::fmin(a, b); }
inline float max(float a, float b) { return std::fmax(a, b); }
inline double min(double a, double b) { return std::fmin(a, b); }
inline double max(double a, double b) { return std::fmax(a, b); }
#define SIMT_MIXED_MIN_MAX(A, B)                               \
  inline B min(A a, B b) { return min(static_cast<B>(a), b); } \
  inline B max(A a, B b) { return max(static_cast<B>(a), b); } \
  inline B min(B a, A b) { return min(a, static_cast<B>(b)); } \
  inline B max(B a, A b) { return max(a, static_cast<B>(b)); }
SIMT_MIXED_MIN_MAX(int, unsigned)
SIMT_MIXED_MIN_MAX(long, unsigned long)
SIMT_MIXED_MIN_MAX(long long, unsigned long long)
SIMT_MIXED_MIN_MAX(float, double)
#undef SIMT_MIXED_MIN_MAX
