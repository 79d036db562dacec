// The activations of the feed-forward layer and their slopes: relu, and gelu in its erf form, x/2 (1 + erf(x / sqrt
// 2)).
#pragma once

#include "cuda/numeric.h"

namespace longhand::LONGHAND_GPU {

__device__ __forceinline__ float activate(Activation activation, float x) {
  if (activation == Activation::relu) return x > 0 ? x : 0.0f;
  if (activation == Activation::gelu) return 0.5f * x * erfcf(-0.70710678118654752f * x);
  return x;
}

/// The derivative at x: for gelu, Phi(x) + x phi(x).
__device__ __forceinline__ float slope(Activation activation, float x) {
  if (activation == Activation::relu) return x > 0 ? 1.0f : 0.0f;
  if (activation == Activation::gelu)
    return 0.5f * erfcf(-0.70710678118654752f * x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
  return 1.0f;
}

}  // namespace longhand::LONGHAND_GPU
