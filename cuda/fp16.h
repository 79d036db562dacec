// IEEE half precision by its bits, the same on a card and on the host: only casts use it.
#pragma once

#include "cuda/numeric.h"

namespace longhand::LONGHAND_GPU {

struct fp16_t {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(fp16_t x) {
  uint32_t magnitude = (x.bits & 0x7fffu) << 13, sign = (x.bits & 0x8000u) << 16;
  bool special = (x.bits & 0x7c00u) == 0x7c00u;  // infinite or NaN
  uint32_t finite = __float_as_uint(__uint_as_float(magnitude) * 0x1p112f);
  return __uint_as_float(sign | (special ? magnitude | 0x7f800000u : finite));
}

/// To nearest, ties to even; too large becomes infinite, NaN stays one.
template <>
__device__ __forceinline__ fp16_t from_float<fp16_t>(float x) {
  uint32_t word = __float_as_uint(x), magnitude = word & 0x7fffffffu, bits;
  if (magnitude > 0x7f800000u)
    bits = 0x7e00u | (word >> 13 & 0x3ffu);
  else if (magnitude >= 0x477ff000u)
    bits = 0x7c00u;
  else if (magnitude < 0x38800000u)  // in units of 2^-24, rounded by the addition
    bits = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
  else
    bits = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  return {static_cast<uint16_t>(bits | (word >> 16 & 0x8000u))};
}

}  // namespace longhand::LONGHAND_GPU
