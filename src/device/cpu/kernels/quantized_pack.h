// Floats to integers: rows of activations as the product's kernels read them, and weights as they are stored, and back.
#pragma once

#include "src/device/cpu/kernels/fp16.h"
#include "src/device/cpu/kernels/quantized.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

constexpr int vector_bytes = lanes * 4;

/// The largest magnitude of n elements; NaN when one of them is not finite.
template <class T>
LONGHAND_INLINE float largest_of(const T* x, int64_t n) {
  vec top = splat(0), finite = splat(0);
  each_vector(n, [&](int64_t i, auto part) {
    vec y = load(x + i, part);
    top = maximum((vec)((ivec)y & splat_int(0x7fffffff)), top);
    finite = finite + y * splat(0);
  });
  return largest(top) + sum(finite);
}

/// x / scale to the nearest integer within the levels; 0 where the scale is.
LONGHAND_INLINE void round_scaled(vec x, float scale, float levels, int32_t* lane) {
  vec q = minimum(maximum(round_to_even(x / splat(scale)), splat(-levels)), splat(levels));
  ivec whole = __builtin_convertvector(scale > 0 ? q : splat(0), ivec);
  __builtin_memcpy(lane, &whole, sizeof whole);
}

/// Pairs of integers as words of weights have them: pair t of word i at [i][t].
template <int pairs>
LONGHAND_INLINE void pack_words(const QuantizedShape& s, const QuantizedRows& rows, int r, const int32_t* integers) {
  uint32_t* to = rows.words + r;
  for (const int32_t* word = integers; word < integers + s.padded(); word += 2 * pairs)
    for (int t = 0; t < pairs; ++t, to += rows.width)
      *to = (static_cast<uint32_t>(word[t]) & 0xffffu) | static_cast<uint32_t>(word[t + pairs]) << 16;
}

LONGHAND_INLINE void pack_bytes(const QuantizedShape& s, const QuantizedRows& rows, int r, const int32_t* integers) {
  uint8_t* to = reinterpret_cast<uint8_t*>(rows.words + r);
  for (int64_t i = 0; i < s.padded(); i += 4, to += rows.width * 4)
    for (int byte = 0; byte < 4; ++byte) to[byte] = static_cast<uint8_t>(integers[i + byte]);
}

template <class T>
LONGHAND_INLINE void pack_row_of(const QuantizedShape& s, const QuantizedRows& rows, int r, const T* row,
                                 bool eight_bits, int32_t* integers) {
  int64_t length = eight_bits ? s.padded() : s.block();
  float levels = eight_bits ? 127.0f : 32767.0f;
  for (int64_t at = 0; at < s.padded(); at += length) {
    int64_t n = row == nullptr || at >= s.k ? 0 : s.k - at < length ? s.k - at : length;
    const T* from = n > 0 ? row + at : nullptr;
    float scale = largest_of(from, n) / levels;
    for (int64_t i = n / lanes * lanes; i < length; ++i) integers[at + i] = 0;
    // Whole vectors: what a part leaves empty is 0, and blocks are multiples of vectors.
    each_vector(n, [&](int64_t i, auto part) { round_scaled(load(from + i, part), scale, levels, integers + at + i); });
    for (int64_t b = at / s.block(); b < (at + length) / s.block(); ++b) rows.scales[b * rows.width + r] = scale;
  }
  for (int64_t b = 0; b < s.blocks(); ++b) {
    int32_t sum = 0, excess = s.bytes ? 128 : s.four_bits ? 8 : 0;  // by which registers hold weights too large
    if (excess)
      for (int64_t i = 0; i < s.block(); ++i) sum += integers[b * s.block() + i];
    rows.starts[b * rows.width + r] = -excess * sum;
  }
  rows.starts[s.blocks() * rows.width + r] = 0;
  if (s.bytes)
    pack_bytes(s, rows, r, integers);
  else if (s.four_bits)
    pack_words<4>(s, rows, r, integers);
  else
    pack_words<2>(s, rows, r, integers);
}

template <class T>
LONGHAND_INLINE void quantize_of(const T* x, int64_t n, bool four_bits, void* out, void* scale_at, bool half_scale) {
  float levels = four_bits ? 7.0f : 127.0f, scale = largest_of(x, n) / levels;
  if (half_scale) {
    fp16 rounded[lanes];
    store(rounded, splat(scale));
    __builtin_memcpy(scale_at, rounded, 2);
    scale = load(rounded)[0];
  } else {
    __builtin_memcpy(scale_at, &scale, 4);
  }
  uint8_t* to = static_cast<uint8_t*>(out);
  each_vector(n, [&](int64_t i, auto part) {
    int32_t lane[lanes];
    round_scaled(load(x + i, part), scale, levels, lane);
    int64_t count = n - i < lanes ? n - i : lanes;
    for (int64_t e = 0; e < count; ++e) {
      if (!four_bits)
        to[i + e] = static_cast<uint8_t>(lane[e]);
      else if (e % 2 == 0)
        to[(i + e) / 2] = static_cast<uint8_t>(lane[e] + 8);
      else
        to[(i + e) / 2] = static_cast<uint8_t>(to[(i + e) / 2] | (lane[e] + 8) << 4);
    }
  });
}

typedef int8_t bvec_unaligned __attribute__((vector_size(lanes), aligned(1), may_alias));

/// Lanes of a and b in turn, the first or the second half of them all.
LONGHAND_INLINE vec interleave(vec a, vec b, int from) {
  ivec order;
  for (int i = 0; i < lanes; ++i) order[i] = from + i / 2 + i % 2 * lanes;
  return __builtin_shuffle(a, b, order);
}

template <class T>
LONGHAND_INLINE void dequantize_of(const uint8_t* integers, float scale, int64_t n, bool four_bits, T* out) {
  auto widen = [](const uint8_t* from) __attribute__((always_inline)) {
    return __builtin_convertvector(*reinterpret_cast<const bvec_unaligned*>(from), ivec);
  };
  auto scaled = [&](ivec x) __attribute__((always_inline)) { return __builtin_convertvector(x, vec) * splat(scale); };
  int64_t i = 0;
  if (four_bits)
    for (; i + 2 * lanes <= n; i += 2 * lanes) {
      ivec bytes = widen(integers + i / 2);
      vec low = scaled((bytes & 15) - 8), high = scaled((bytes >> 4 & 15) - 8);
      store(out + i, interleave(low, high, 0)), store(out + i + lanes, interleave(low, high, lanes / 2));
    }
  else
    for (; i + lanes <= n; i += lanes) store(out + i, scaled(widen(integers + i)));
  for (; i < n; ++i) {
    int integer = four_bits ? (integers[i / 2] >> (i % 2 * 4) & 15) - 8 : static_cast<int8_t>(integers[i]);
    from_float(out + i, static_cast<float>(integer) * scale);
  }
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
