// Walking a row in vectors: the body is written once and runs on whole vectors, then on the rest of the row.
#pragma once

#include "src/device/cpu/kernels/simd.h"

/// A kernel: everything that it calls is inlined into it.
#define LONGHAND_KERNEL __attribute__((flatten))

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

struct Whole {};
struct Part {
  int64_t count;
};

template <class T>
LONGHAND_INLINE vec load(const T* p, Whole) {
  return load(p);
}
template <class T>
LONGHAND_INLINE vec load(const T* p, Part part) {
  return load_part(p, part.count);
}
template <class T>
LONGHAND_INLINE void store(T* p, vec x, Whole) {
  store(p, x);
}
template <class T>
LONGHAND_INLINE void store(T* p, vec x, Part part) {
  store_part(p, x, part.count);
}

LONGHAND_INLINE ivec lane_index() {
  alignas(64) int32_t index[lanes];
  for (int lane = 0; lane < lanes; ++lane) index[lane] = lane;
  ivec value;
  __builtin_memcpy(&value, index, sizeof value);
  return value;
}

/// Lanes beyond the row become `other`.
LONGHAND_INLINE vec keep(vec x, Whole, float = 0) { return x; }
LONGHAND_INLINE vec keep(vec x, Part part, float other = 0) {
  return select(lane_index() < splat_int(static_cast<int32_t>(part.count)), x, splat(other));
}

/// body(i, Whole{}) for the whole vectors of a row of n entries, body(i, Part{rest}) for what remains.
template <class Body>
LONGHAND_INLINE void each_vector(int64_t n, Body body) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) body(i, Whole{});
  if (i < n) body(i, Part{n - i});
}

/// The value that storing as T would leave.
LONGHAND_INLINE vec rounded_as(const float*, vec x) { return x; }
LONGHAND_INLINE vec rounded_as(const half*, vec x) {
  uvec word = (uvec)x;
  uvec is_nan = (uvec)((word & 0x7fffffffu) > 0x7f800000u);
  uvec bits = (is_nan & (word | 0x400000u)) | (~is_nan & (word + 0x7fffu + ((word >> 16) & 1)));
  return (vec)(bits & 0xffff0000u);
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
