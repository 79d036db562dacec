// Vectors from integers of 8 bits.
#pragma once

#include "src/device/cpu/kernels/simd.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

typedef int8_t bvec __attribute__((vector_size(lanes)));
typedef int8_t bvec_unaligned __attribute__((vector_size(lanes), aligned(1), may_alias));

LONGHAND_INLINE vec load(const int8_t* p) {
  bvec integers = *reinterpret_cast<const bvec_unaligned*>(p);
  return __builtin_convertvector(__builtin_convertvector(integers, ivec), vec);
}
/// The first n < lanes entries; the others read as 0.
LONGHAND_INLINE vec load_part(const int8_t* p, int64_t n) {
  int8_t part[lanes] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = p[i];
  return load(part);
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
