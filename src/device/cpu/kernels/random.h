// The random numbers of include/longhand/random.h, a vector at a time (tests hold the two equal), with dropout factors
// and stochastic rounding on top. The plain structures are what launchers hand to kernels.
#pragma once

#include <cstdint>

namespace longhand::cpu {

/// A RandomStream as counter words: block b is philox(seed, b, (b >> 32 & 0xffff) | layer, step, use).
struct RandomKey {
  uint64_t seed;
  uint32_t layer, step, use;
};

/// Element e is kept, times `scale`, when its word is at least `threshold`.
struct DropoutKey {
  RandomKey key;
  uint32_t threshold;
  float scale;
  bool on;
};

}  // namespace longhand::cpu

#ifdef LONGHAND_ISA
#include "src/device/cpu/kernels/rows.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

typedef uint64_t wide_vec __attribute__((vector_size(lanes * 4)));

struct RandomWords {
  uvec word[4];
};

/// The product of the even 32-bit lanes.
LONGHAND_INLINE wide_vec multiply_even(wide_vec a, wide_vec b) {
#if defined(__AVX512F__)
  return (wide_vec)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (wide_vec)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (wide_vec)_mm_mul_epu32((__m128i)a, (__m128i)b);
#endif
}

struct PhiloxHalf {
  wide_vec c0, c1, c2, c3;  // the upper half of a 64-bit lane is rubbish that no product reads
};

LONGHAND_INLINE void philox_round(PhiloxHalf& s, wide_vec k0, wide_vec k1) {
  wide_vec p0 = multiply_even(s.c0, wide_vec{} + 0xD2511F53u), p1 = multiply_even(s.c2, wide_vec{} + 0xCD9E8D57u);
  s.c0 = (p1 >> 32) ^ s.c1 ^ k0, s.c2 = (p0 >> 32) ^ s.c3 ^ k1;
  s.c1 = p1, s.c3 = p0;
}

/// Blocks first + offset, one a lane.
LONGHAND_INLINE RandomWords philox_blocks(const RandomKey& key, uint64_t first, uvec offset) {
  uvec low = offset + static_cast<uint32_t>(first);
  uvec carry = (uvec)(low < uvec{} + static_cast<uint32_t>(first)) & 1;
  uvec high = ((carry + static_cast<uint32_t>(first >> 32)) & 0xffff) | key.layer;
  PhiloxHalf even = {(wide_vec)low, (wide_vec)high, wide_vec{} + key.step, wide_vec{} + key.use};
  PhiloxHalf odd = {(wide_vec)low >> 32, (wide_vec)high >> 32, even.c2, even.c3};
  uint32_t k0 = static_cast<uint32_t>(key.seed), k1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    wide_vec w0 = wide_vec{} + k0, w1 = wide_vec{} + k1;
    philox_round(even, w0, w1);
    philox_round(odd, w0, w1);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  auto join = [](wide_vec e, wide_vec o) { return (uvec)((e & 0xffffffffu) | (o << 32)); };
  return {{join(even.c0, odd.c0), join(even.c1, odd.c1), join(even.c2, odd.c2), join(even.c3, odd.c3)}};
}

/// Four vectors of four words a block to the order of elements, within groups of four lanes.
LONGHAND_INLINE void transpose_words(RandomWords& w) {
#if defined(__AVX512F__)
  auto low = [](uvec a, uvec b) { return (uvec)_mm512_maskz_unpacklo_epi32(0xffff, (__m512i)a, (__m512i)b); };
  auto high = [](uvec a, uvec b) { return (uvec)_mm512_maskz_unpackhi_epi32(0xffff, (__m512i)a, (__m512i)b); };
#elif defined(__AVX2__)
  auto low = [](uvec a, uvec b) { return (uvec)_mm256_unpacklo_epi32((__m256i)a, (__m256i)b); };
  auto high = [](uvec a, uvec b) { return (uvec)_mm256_unpackhi_epi32((__m256i)a, (__m256i)b); };
#else
  auto low = [](uvec a, uvec b) { return (uvec)_mm_unpacklo_epi32((__m128i)a, (__m128i)b); };
  auto high = [](uvec a, uvec b) { return (uvec)_mm_unpackhi_epi32((__m128i)a, (__m128i)b); };
#endif
  uvec a = low(w.word[0], w.word[2]), b = low(w.word[1], w.word[3]);
  uvec c = high(w.word[0], w.word[2]), d = high(w.word[1], w.word[3]);
  w = {{low(a, b), high(a, b), low(c, d), high(c, d)}};
}

/// Random numbers are made for pieces of a row of at most this many elements, in a buffer that stays in the L1 cache.
constexpr int64_t random_piece = 256;
struct alignas(64) RandomBuffer {
  uint32_t word[random_piece + 8 * lanes];
};

/// The words of elements [first, first + count); they may be read a whole vector at a time.
LONGHAND_INLINE const uint32_t* random_words(const RandomKey& key, uint64_t first, int64_t count,
                                             RandomBuffer& buffer) {
  // Lane 4 g + i computes block i * (lanes / 4) + g, so that the transpose leaves vector i in order.
  alignas(64) uint32_t order[lanes];
  for (int lane = 0; lane < lanes; ++lane) order[lane] = lane % 4 * (lanes / 4) + lane / 4;
  uvec offset = *reinterpret_cast<const uvec_unaligned*>(order);
  int64_t skip = first & 3;
  for (int64_t i = 0; i < skip + count; i += 4 * lanes) {
    RandomWords w = philox_blocks(key, (first >> 2) + i / 4, offset);
    transpose_words(w);
    for (int part = 0; part < 4; ++part)
      *reinterpret_cast<uvec_unaligned*>(buffer.word + i + part * lanes) = w.word[part];
  }
  return buffer.word + skip;
}

/// 0 or `scale` for elements [first, first + count).
LONGHAND_INLINE const float* dropout_factors(const DropoutKey& dropout, uint64_t first, int64_t count,
                                             RandomBuffer& buffer, float* factors) {
  const uint32_t* words = random_words(dropout.key, first, count, buffer);
  for (int64_t i = 0; i < count; i += lanes) {
    uvec word = *reinterpret_cast<const uvec_unaligned*>(words + i);
    store(factors + i, select((ivec)(word >= uvec{} + dropout.threshold), splat(dropout.scale), splat(0.0f)));
  }
  return factors;
}

/// Room for the above, and the factors of the current piece; null when nothing is dropped.
struct DropoutRow {
  RandomBuffer buffer;
  alignas(64) float factors[random_piece + lanes];
};
LONGHAND_INLINE const float* dropout_piece(DropoutRow& row, const DropoutKey& dropout, uint64_t first, int64_t count) {
  return dropout.on ? dropout_factors(dropout, first, count, row.buffer, row.factors) : nullptr;
}

/// fp32 to bf16 by chance: the upper 16 bits of the random word are added to the lower half, which is then cut off.
LONGHAND_INLINE vec round_by_chance(vec x, uvec random) {
  uvec word = (uvec)x;
  uvec special = (uvec)((word & 0x7f800000u) == 0x7f800000u);
  uvec is_nan_bit = (uvec)((word & 0x7fffffffu) > 0x7f800000u) & 0x400000u;
  uvec moved = word + (~special & (random >> 16));
  return (vec)((moved & 0xffff0000u) | is_nan_bit);
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
#endif
