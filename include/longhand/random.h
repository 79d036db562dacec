// Random numbers by counter: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A number depends on (seed, stream, element) alone, never on the order in which numbers are drawn, so a dropout mask
// is the same on every device and is regenerated, not stored.
#pragma once

#include <array>
#include <cstdint>

#ifdef __CUDACC__
#define LONGHAND_HOST_DEVICE __host__ __device__
#else
#define LONGHAND_HOST_DEVICE
#endif

namespace longhand {

struct PhiloxBlock {
  uint32_t word[4];
};

LONGHAND_HOST_DEVICE inline PhiloxBlock philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0, p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0, n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1), c3 = static_cast<uint32_t>(p0), c0 = n0, c2 = n2;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// Where in the model a random number is used. The values are part of the file format: a resumed run draws the same.
enum class RandomUse : uint32_t {
  initialization = 1,
  embedding_dropout = 2,
  attention_dropout = 3,
  residual_dropout = 4,     // attention output before it joins the stream
  activation_dropout = 5,   // between the two feed-forward products
  feedforward_dropout = 6,  // feed-forward output before it joins the stream
  stochastic_rounding = 7,
  sampling = 8,
  shuffle = 9,
  augmentation = 10,
};

/// One stream of numbers: block b of it is philox(seed, b, b >> 32 (16 bits) | layer << 16, step, use << 24 | step >>
/// 32).
struct RandomStream {
  uint64_t seed = 0;
  uint64_t step = 0;  // optimizer step times accumulation, plus micro-step; below 2^56
  RandomUse use = RandomUse::initialization;
  uint32_t layer = 0;  // below 2^16

  LONGHAND_HOST_DEVICE PhiloxBlock block(uint64_t index) const {
    return philox(seed, static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32 & 0xffff) | layer << 16,
                  static_cast<uint32_t>(step),
                  static_cast<uint32_t>(use) << 24 | static_cast<uint32_t>(step >> 32 & 0xffffff));
  }
  /// Word `element % 4` of block `element / 4`.
  LONGHAND_HOST_DEVICE uint32_t bits(uint64_t element) const { return block(element >> 2).word[element & 3]; }
};

/// Uniform in [0, 1) with 24 bits, and in (0, 1] for logarithms.
LONGHAND_HOST_DEVICE inline float uniform(uint32_t bits) { return static_cast<float>(bits >> 8) * 0x1p-24f; }
LONGHAND_HOST_DEVICE inline float uniform_positive(uint32_t bits) {
  return (static_cast<float>(bits >> 8) + 1.0f) * 0x1p-24f;
}

/// Dropout with probability `rate`: element e is kept when bits(e) >= threshold(), and scaled by 1 / (1 - rate).
struct Dropout {
  float rate = 0;
  RandomStream stream;

  explicit operator bool() const { return rate > 0; }
  LONGHAND_HOST_DEVICE uint32_t threshold() const {
    return static_cast<uint32_t>(static_cast<double>(rate) * 4294967296.0);
  }
  LONGHAND_HOST_DEVICE float scale() const { return 1.0f / (1.0f - rate); }
  LONGHAND_HOST_DEVICE float factor(uint64_t element) const {
    return stream.bits(element) >= threshold() ? scale() : 0.0f;
  }
};

}  // namespace longhand
