// Vectors from integers of 8 bits.
#pragma once

#include "src/device/cpu/kernels/simd.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

typedef int8_t bvec __attribute__((vector_size(lanes)));
typedef int8_t bvec_unaligned __attribute__((vector_size(lanes), aligned(1), may_alias));

LONGHAND_INLINE vec load(const int8_t* p) {
  // The compiler takes the conversion apart where there is an instruction for it.
#if defined(__AVX512F__)
  __m512i words = _mm512_maskz_cvtepi8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return __builtin_convertvector((ivec)words, vec);
#elif defined(__AVX2__)
  __m256i words = _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return __builtin_convertvector((ivec)words, vec);
#else
  bvec integers = *reinterpret_cast<const bvec_unaligned*>(p);
  return __builtin_convertvector(__builtin_convertvector(integers, ivec), vec);
#endif
}
/// The first n < lanes entries; the others read as 0.
LONGHAND_INLINE vec load_part(const int8_t* p, int64_t n) {
  int8_t part[lanes] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = p[i];
  return load(part);
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
