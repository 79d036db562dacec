// Functions of a vector beyond simd.h.
#pragma once

#include "src/device/cpu/kernels/simd.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

LONGHAND_INLINE vec square_root(vec x) {
#if defined(__AVX512F__)
  return (vec)_mm512_maskz_sqrt_ps(0xffff, (__m512)x);
#elif defined(__AVX2__)
  return (vec)_mm256_sqrt_ps((__m256)x);
#else
  return (vec)_mm_sqrt_ps((__m128)x);
#endif
}

struct Normal {
  vec cumulative, bell;  // (1 + erf(x / sqrt 2)) / 2 and exp(-x^2 / 2)
};

/// The normal distribution, cumulative to 1e-7: erf z = 1 - t (a1 + t (a2 + ...)) exp(-z^2), t = 1 / (1 + p z), z >= 0
/// (Abramowitz and Stegun 7.1.26).
LONGHAND_INLINE Normal normal(vec x) {
  vec z = (vec)((ivec)x & 0x7fffffff) * splat(0.70710678118654752f);
  vec bell = exponential(-z * z);
  vec t = splat(1.0f) / (splat(0.3275911f) * z + splat(1.0f));
  vec p = splat(1.061405429f);
  p = p * t + splat(-1.453152027f);
  p = p * t + splat(1.421413741f);
  p = p * t + splat(-0.284496736f);
  p = p * t + splat(0.254829592f);
  vec tail = splat(0.5f) * p * t * bell;
  return {x < splat(0.0f) ? tail : splat(1.0f) - tail, bell};
}

LONGHAND_INLINE vec gelu(vec x) { return x * normal(x).cumulative; }

/// Phi(x) + x exp(-x^2 / 2) / sqrt(2 pi)
LONGHAND_INLINE vec gelu_derivative(vec x) {
  Normal n = normal(x);
  return n.cumulative + x * n.bell * splat(0.39894228040143268f);
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
