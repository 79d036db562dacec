// What follows the sums of a matrix product's tile while they are in the first-level cache: partial sums of earlier
// blocks of k, bias, activation, dropout, the store. Kernels only.
#pragma once

#include "src/device/cpu/kernels/matmul.h"
#include "src/device/cpu/kernels/simd.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

constexpr int tile_columns = 2 * lanes;

/// The normal distribution function, to about 5e-7 relative in both tails. With t = 1 / (1 + 0.4 |x| / sqrt 2):
///   erfc(|x| / sqrt 2) = t exp(-x^2/2 + P(t)),
/// P a minimax fit of degree 8 of our own. The square is split so that its larger part is exact; what the exponent then
/// loses in rounding comes back as a factor.
LONGHAND_INLINE vec normal_cdf(vec x) {
  vec size = (vec)((ivec)x & splat_int(0x7fffffff));
  size = size > splat(16.0f) ? splat(16.0f) : size;
  vec t = splat(1.0f) / (splat(1.0f) + splat(0.28284271f) * size);
  vec p = splat(-0.207041127f);
  p = p * t + splat(0.922266373f);
  p = p * t + splat(-1.48069123f);
  p = p * t + splat(0.992570704f);
  p = p * t + splat(-0.438500956f);
  p = p * t + splat(0.298092906f);
  p = p * t + splat(0.400402772f);
  p = p * t + splat(1.0016061f);
  p = p * t + splat(-1.48870563f);
  vec high = (vec)((ivec)size & splat_int(0xfffff000)), low = size - high;
  vec square = splat(0.5f) * high * high;
  p = p - splat(0.5f) * low * (size + high);
  vec exponent = p - square;
  vec lost = p - (exponent + square);
  vec tail = exponential(exponent) * t * splat(0.5f);
  tail = tail + tail * lost;
  return x > splat(0.0f) ? splat(1.0f) - tail : tail;
}

/// activation: that of device.h, none, relu, gelu.
LONGHAND_INLINE vec activate(vec x, int activation) {
  if (activation == 1) x = x > splat(0.0f) ? x : x != x ? x : splat(0.0f);
  if (activation == 2) x = x * normal_cdf(x);
  return x;
}

typedef uint64_t lvec __attribute__((vector_size(lanes * 4)));

/// Products of the lower halves of the lanes.
LONGHAND_INLINE lvec multiply_low(lvec a, lvec b) {
#if defined(__AVX512F__)
  return (lvec)_mm512_maskz_mul_epu32(0xff, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
  return (lvec)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#else
  return (lvec)_mm_mul_epu32((__m128i)a, (__m128i)b);
#endif
}

/// The random words of tile_columns elements from `element` (a multiple of 4) on: Philox4x32-10, a block a lane.
LONGHAND_INLINE void random_words(const MatmulOutput& o, uint64_t element, uvec (&word)[2]) {
  lvec c0{}, c1{}, c2 = c0 + o.counter2, c3 = c0 + o.counter3;
  for (int i = 0; i < lanes / 2; ++i) c0[i] = i;
  c0 += element >> 2;
  c1 = (c0 >> 32 & 0xffff) | o.counter1;
  uint32_t k0 = static_cast<uint32_t>(o.seed), k1 = static_cast<uint32_t>(o.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    lvec p0 = multiply_low(c0, lvec{} + 0xD2511F53u), p1 = multiply_low(c2, lvec{} + 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ k0, c2 = (p0 >> 32) ^ c3 ^ k1;
    c1 = p1, c3 = p0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  lvec low = (c0 & 0xffffffffu) | c1 << 32, high = (c2 & 0xffffffffu) | c3 << 32;
  lvec first, second;
  for (int i = 0; i < lanes / 2; ++i) {
    first[i] = i / 2 + (i % 2) * (lanes / 2);
    second[i] = lanes / 4 + first[i];
  }
  word[0] = (uvec)__builtin_shuffle(low, high, first);
  word[1] = (uvec)__builtin_shuffle(low, high, second);
}

/// Dropout factors of tile_columns elements from any element on.
LONGHAND_INLINE void dropout_factors(const MatmulOutput& o, uint64_t element, vec (&factor)[2]) {
  uvec word[2];
  random_words(o, element & ~uint64_t{3}, word);
  if (element & 3) {
    uvec next[2];
    random_words(o, (element & ~uint64_t{3}) + tile_columns, next);
    uint32_t run[2 * tile_columns];
    for (int v = 0; v < 2; ++v) {
      *reinterpret_cast<uvec_unaligned*>(run + v * lanes) = word[v];
      *reinterpret_cast<uvec_unaligned*>(run + tile_columns + v * lanes) = next[v];
    }
    for (int v = 0; v < 2; ++v) word[v] = *reinterpret_cast<const uvec_unaligned*>(run + v * lanes + (element & 3));
  }
  for (int v = 0; v < 2; ++v) factor[v] = select((ivec)(word[v] >= uvec{} + o.threshold), splat(o.scale), splat(0.0f));
}

LONGHAND_INLINE vec get(const void* from, bool is_bf16, int64_t at, int64_t n) {
  if (is_bf16) {
    const half* p = static_cast<const half*>(from) + at;
    return n >= lanes ? load(p) : load_part(p, n);
  }
  const float* p = static_cast<const float*>(from) + at;
  return n >= lanes ? load(p) : load_part(p, n);
}
LONGHAND_INLINE void put(void* to, bool is_bf16, int64_t at, vec x, int64_t n) {
  if (is_bf16) {
    half* p = static_cast<half*>(to) + at;
    n >= lanes ? store(p, x) : store_part(p, x, n);
  } else {
    float* p = static_cast<float*>(to) + at;
    n >= lanes ? store(p, x) : store_part(p, x, n);
  }
}

/// One row of at most tile_columns sums, the value of its first column standing at [row, column].
LONGHAND_INLINE void finish_row(const MatmulOutput& o, const float* sums, int64_t row, int64_t column, int columns) {
  vec factor[2];
  if (o.last && o.dropout) dropout_factors(o, row * o.columns + column, factor);
  for (int v = 0; v < 2; ++v, column += lanes, columns -= lanes) {
    if (columns <= 0) break;
    vec x = load(sums + v * lanes);
    if (o.add_partial) x = get(o.partial, false, row * o.partial_stride + column, columns) + x;
    if (!o.last) {
      put(o.partial, false, row * o.partial_stride + column, x, columns);
      continue;
    }
    if (o.bias) x = x + get(o.bias, o.bias_bf16, column, columns);
    if (o.pre_activation) put(o.pre_activation, o.pre_bf16, row * o.pre_stride + column, x, columns);
    x = activate(x, o.activation);
    if (o.dropout) x = factor[v] != splat(0.0f) ? x * factor[v] : splat(0.0f);
    if (o.accumulate) x = get(o.out, o.out_bf16, row * o.out_stride + column, columns) + x;
    put(o.out, o.out_bf16, row * o.out_stride + column, x, columns);
  }
}

/// Where the sums of a row go when nothing happens to them but, at most, an addition; null otherwise.
LONGHAND_INLINE float* plain_row(const MatmulOutput& o, int64_t row, int64_t column) {
  if (!o.last) return o.partial + row * o.partial_stride + column;
  if (o.out_bf16 || o.bias || o.pre_activation || o.activation || o.dropout || o.accumulate) return nullptr;
  if (o.add_partial && o.partial != o.out) return nullptr;
  return static_cast<float*>(o.out) + row * o.out_stride + column;
}

/// Calls the lines of a tile's results into the cache while its sums are being formed.
LONGHAND_INLINE void expect_tile(const MatmulOutput& o, int64_t row, int rows, int64_t column, int columns) {
  bool in_partial = !o.last || (o.add_partial && o.partial != o.out);
  int64_t width = !in_partial && o.out_bf16 ? 2 : 4, stride = (in_partial ? o.partial_stride : o.out_stride) * width;
  const char* at = static_cast<const char*>(in_partial ? o.partial : o.out) + column * width + row * stride;
  for (int r = 0; r < rows; ++r, at += stride) {
    __builtin_prefetch(at, 1);
    __builtin_prefetch(at + columns * width - 1, 1);
  }
}

/// The sums of a tile, tile_columns a row.
LONGHAND_INLINE void finish_tile(const MatmulOutput& o, const float* sums, int64_t row, int rows, int64_t column,
                                 int columns) {
  float* to = columns == tile_columns ? plain_row(o, row, column) : nullptr;
  if (!to) {
    for (int r = 0; r < rows; ++r) finish_row(o, sums + r * tile_columns, row + r, column, columns);
    return;
  }
  int64_t stride = o.last ? o.out_stride : o.partial_stride;
  for (int r = 0; r < rows; ++r, sums += tile_columns, to += stride)
    for (int v = 0; v < 2; ++v) {
      vec x = load(sums + v * lanes);
      store(to + v * lanes, o.add_partial ? load(to + v * lanes) + x : x);
    }
}

}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
