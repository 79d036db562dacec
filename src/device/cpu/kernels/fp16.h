// IEEE half precision: by instruction where there is one, by bits otherwise.
#pragma once

#include "src/device/cpu/kernels/rows.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

struct fp16 {
  uint16_t bits;
};

LONGHAND_INLINE vec load(const fp16* p) {
  hvec bits = *reinterpret_cast<const hvec_unaligned*>(p);
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_cvtph_ps(0xffff, (__m256i)bits);
#elif defined(__AVX2__)
  return (vec)_mm256_cvtph_ps((__m128i)bits);
#else
  uvec word = __builtin_convertvector(bits, uvec);
  uvec magnitude = (word & 0x7fff) << 13, sign = (word & 0x8000) << 16;
  uvec special = (uvec)((word & 0x7c00) == 0x7c00);  // infinite or NaN
  uvec finite = (uvec)((vec)magnitude * splat(0x1p112f));
  return (vec)(sign | (special & (magnitude | 0x7f800000u)) | (~special & finite));
#endif
}

/// To nearest, ties to even; too large becomes infinite, NaN stays one.
LONGHAND_INLINE void store(fp16* p, vec x) {
#if defined(__AVX512F__)
  *reinterpret_cast<hvec_unaligned*>(p) = (hvec)_mm512_maskz_cvtps_ph(0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__AVX2__)
  *reinterpret_cast<hvec_unaligned*>(p) = (hvec)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
  uvec word = (uvec)x, magnitude = word & 0x7fffffffu;
  uvec normal = (magnitude + 0xfff + ((magnitude >> 13) & 1) - (112u << 23)) >> 13;
  uvec small = (uvec)((vec)magnitude + splat(0.5f)) - 0x3f000000u;  // units of 2^-24, rounded by the addition
  uvec is_small = (uvec)(magnitude < 0x38800000u), is_large = (uvec)(magnitude >= 0x477ff000u);
  uvec is_nan = (uvec)(magnitude > 0x7f800000u);
  uvec finite = (is_small & small) | (~is_small & normal);
  uvec bits = (is_large & 0x7c00u) | (~is_large & finite);
  bits = (is_nan & (0x7e00u | ((word >> 13) & 0x3ff))) | (~is_nan & bits);
  *reinterpret_cast<hvec_unaligned*>(p) = __builtin_convertvector(bits | ((word >> 16) & 0x8000u), hvec);
#endif
}

LONGHAND_INLINE vec load_part(const fp16* p, int64_t n) {
  fp16 part[lanes] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = p[i];
  return load(part);
}
LONGHAND_INLINE void store_part(fp16* p, vec x, int64_t n) {
  fp16 part[lanes];
  store(part, x);
  for (int64_t i = 0; i < n; ++i) p[i] = part[i];
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
