// Integer weights times activations of 16 bits.
//
// A word of weights holds the integers of 4 or 8 successive k; in registers it becomes 2 or 4 pairs of 16 bits, pair t
// of the integers t and t + 2 (or 4). Panels of activations have their pairs in the same order, so that one instruction
// multiplies two k of `lanes` columns. Sums are integers within a block, hence exact in any order; blocks add in order.
// Interleaved weights have word i of `lanes` rows side by side: they are read from front to back, a vector at a time,
// which the memory answers about half as fast again as it does `lanes` rows in step, and need no transposition.
#include "src/device/cpu/kernels/quantized.h"

#include "src/device/cpu/kernels/quantized_bytes.h"
#include "src/device/cpu/kernels/quantized_words.h"
#include "src/device/cpu/kernels/transpose.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace {

/// Up to `lanes` rows of weights, by vectors of their words: word i of row r in lane r of x[i]. What comes next is
/// called into a cache.
template <bool interleaved>
struct WordsOf;

template <>
struct WordsOf<false> {
  const uint8_t* row[lanes];
  int64_t row_bytes;

  [[gnu::always_inline]] WordsOf(const uint8_t* from, int64_t row_bytes, int count) : row_bytes(row_bytes) {
    for (int r = 0; r < lanes; ++r) row[r] = from + (r < count ? r : count - 1) * row_bytes;
  }
  [[gnu::always_inline]] void load(uvec (&x)[lanes], int64_t v) const {
    int64_t at = v * vector_bytes, rest = row_bytes - at;
    if (rest >= vector_bytes) {
      // A row's end is followed by the next vector of rows.
      int64_t ahead = at + row_bytes_ahead;
      if (ahead >= row_bytes) ahead += (lanes - 1) * row_bytes;
#pragma GCC unroll 16
      for (int r = 0; r < lanes; ++r) {
        if (vector_bytes == 64 || at % 64 == 0) __builtin_prefetch(row[r] + ahead, 0, 2);
        x[r] = *reinterpret_cast<const bytes_unaligned*>(row[r] + at);
      }
    } else {
      for (int r = 0; r < lanes; ++r) {
        uint8_t part[vector_bytes] = {};
        for (int64_t i = 0; i < rest; ++i) part[i] = row[r][at + i];
        __builtin_memcpy(&x[r], part, vector_bytes);
      }
    }
    transpose(x);
  }
};

template <>
struct WordsOf<true> {
  const uint8_t* from;

  [[gnu::always_inline]] WordsOf(const uint8_t* from, int64_t, int) : from(from) {}
  [[gnu::always_inline]] void load(uvec (&x)[lanes], int64_t v) const {
    const uint8_t* at = from + v * lanes * vector_bytes;
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i, at += vector_bytes) {
      if (i * vector_bytes % 64 == 0) __builtin_prefetch(at + bytes_ahead);
      x[i] = *reinterpret_cast<const bytes_unaligned*>(at);
    }
  }
};

template <class T>
LONGHAND_INLINE void scales_of(const QuantizedShape& s, const T* from, int64_t stride, int count, float* to) {
  for (int first = 0; first < count; first += lanes)
    for (int64_t b = 0; b < s.blocks(); b += lanes) {
      int64_t rest = s.k / 64 - b;
      uvec x[lanes];
      for (int r = 0; r < lanes; ++r) {
        const T* row = from + (first + r) * stride + b;
        x[r] = first + r >= count || rest <= 0 ? uvec{} : (uvec)(rest >= lanes ? load(row) : load_part(row, rest));
      }
      transpose(x);
      for (int i = 0; i < lanes && b + i < s.blocks(); ++i) store(to + (b + i) * tile_columns + first, (vec)x[i]);
    }
}
/// Of interleaved weights.
LONGHAND_INLINE void scales_side_by_side(const QuantizedShape& s, const fp16* from, int count, float* to) {
  int64_t groups = s.k / 64;
  for (int first = 0; first < count; first += lanes, from += groups * lanes)
    for (int64_t b = 0; b < s.blocks(); ++b)
      store(to + b * tile_columns + first, b < groups ? load(from + b * lanes) : splat(0));
}
template <class T>
LONGHAND_INLINE void scales_of(const T* from, int count, float* to) {
  for (int first = 0; first < tile_columns; first += lanes) {
    int rest = count - first;
    store(to + first, rest >= lanes ? load(from + first) : rest > 0 ? load_part(from + first, rest) : splat(0));
  }
}

/// The scales of the columns from c.first + column on: [block][tile_columns], or of the rows of weights alone.
template <class T>
LONGHAND_INLINE void find_scales(const QuantizedShape& s, const QuantizedColumns& c, int64_t column, int count,
                                 float* to) {
  const T* from = static_cast<const T*>(c.scales) + (c.first + column) * c.scale_stride;
  if (s.grouped)
    scales_of(s, from, c.scale_stride, count, to);
  else
    scales_of(from, count, to);
}
void find_scales(const QuantizedShape& s, const QuantizedColumns& c, int64_t column, int count, float* to) {
  if (s.grouped && s.interleaved)
    scales_side_by_side(s, static_cast<const fp16*>(c.scales) + (c.first + column) * c.scale_stride, count, to);
  else if (c.half_scales)
    find_scales<fp16>(s, c, column, count, to);
  else
    find_scales<float>(s, c, column, count, to);
}

/// Scales of weights in groups, a vector of columns: floats as find_scales leaves them, or, interleaved, as they lie.
template <bool interleaved>
LONGHAND_INLINE vec scales_at(const void* scales, int64_t block) {
  if (!interleaved) return load(static_cast<const float*>(scales) + block * tile_columns);
  const fp16* at = static_cast<const fp16*>(scales) + block * lanes;
  __builtin_prefetch(at + scales_ahead);
  return load(at);
}

/// One vector of columns with R rows, sums [R][tile_columns]. With one or two rows several chains of sums hide the
/// instruction's latency.
template <int R, bool four, bool grouped, bool interleaved>
void few_tile(const QuantizedShape& s, const QuantizedRows& rows, const uint8_t* from, int columns, const void* scales,
              float* sums) {
  constexpr int steps = four ? 4 : 2, block_words = (grouped ? 64 : 256) / (2 * steps);
  constexpr int chains = R == 1 ? 4 : R == 2 ? 2 : 1;
  WordsOf<interleaved> words(from, s.row_bytes(), columns);
  const int32_t* a = reinterpret_cast<const int32_t*>(rows.words);
  int64_t block = 0, vectors = (s.row_bytes() + vector_bytes - 1) / vector_bytes;
  ivec c[chains][R];
  auto begin = [&]() __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      c[0][r] = splat_int(rows.starts[block * R + r]);
#pragma GCC unroll 4
      for (int chain = 1; chain < chains; ++chain) c[chain][r] = ivec{};
    }
  };
  auto flush = [&]() __attribute__((always_inline)) {
    vec of_weights = grouped ? scales_at<interleaved>(scales, block) : vec{};
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      ivec all = c[0][r];
#pragma GCC unroll 4
      for (int chain = 1; chain < chains; ++chain) all += c[chain][r];
      float* sum = sums + r * tile_columns;
      store(sum, block_sum<R, grouped>(rows, block, r, all, load(sum), of_weights));
    }
    ++block;
    begin();
  };
  for (int r = 0; r < R; ++r) store(sums + r * tile_columns, splat(0));
  begin();
  for (int64_t v = 0; v < vectors; ++v) {
    uvec x[lanes];
    words.load(x, v);
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
#pragma GCC unroll 4
      for (int t = 0; t < steps; ++t, a += R) {
        uvec pair = pair_of<four>(x[i], t);
        int chain = (i * steps + t) % chains;
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) c[chain][r] = dot(c[chain][r], pair, splat_int(a[r]));
      }
      if (block_words < lanes && (i + 1) % block_words == 0) flush();
    }
    if (block_words >= lanes && (v + 1) * lanes % block_words == 0) flush();
  }
  if (vectors * lanes % block_words != 0) flush();
}

using FewTile = void (*)(const QuantizedShape&, const QuantizedRows&, const uint8_t*, int, const void*, float*);
template <int R, bool four, bool grouped>
LONGHAND_INLINE FewTile few_tile_for(const QuantizedShape& s) {
  return s.interleaved ? few_tile<R, four, grouped, true> : few_tile<R, four, grouped, false>;
}
template <int R>
LONGHAND_INLINE FewTile few_tile_for(const QuantizedShape& s) {
  if (s.four_bits) return s.grouped ? few_tile_for<R, true, true>(s) : few_tile_for<R, true, false>(s);
  return s.grouped ? few_tile_for<R, false, true>(s) : few_tile_for<R, false, false>(s);
}
LONGHAND_INLINE FewTile few_tile_for(const QuantizedShape& s, int width) {
  if (width == 1) return few_tile_for<1>(s);
  if (width == 2) return few_tile_for<2>(s);
  if constexpr (tile_rows > 4) {
    if (width == 4) return few_tile_for<4>(s);
  }
  if constexpr (tile_rows > 8) {
    if (width == 8) return few_tile_for<8>(s);
  }
  return few_tile_for<tile_rows>(s);
}

/// The scales of rows of weights, then what follows the sums.
LONGHAND_INLINE void finish(const QuantizedShape& s, const MatmulOutput& output, float* sums, const float* scales,
                            int64_t row, int rows, int64_t column, int columns) {
  if (!s.grouped)
    for (int r = 0; r < rows; ++r)
      for (int v = 0; v < tile_columns; v += lanes) {
        float* sum = sums + r * tile_columns + v;
        store(sum, load(sum) * load(scales + v));
      }
  finish_tile(output, sums, row, rows, column, columns);
}

void multiply_few(const QuantizedShape& s, const QuantizedRows* panel, int64_t panels, int64_t rows,
                  const QuantizedColumns& c, const MatmulOutput& output, float* scales) {
  alignas(64) float sums[tile_rows * tile_columns] = {};
  for (int64_t column = 0; column < c.count; column += tile_columns) {
    int64_t rest = c.count - column;
    int columns = static_cast<int>(rest < tile_columns ? rest : tile_columns);
    bool as_they_lie = s.grouped && s.interleaved;
    const fp16* lying = static_cast<const fp16*>(c.scales) + (c.first + column) * c.scale_stride;
    if (!as_they_lie) find_scales(s, c, column, columns, scales);
    for (int64_t i = 0; i < panels; ++i) {
      int64_t begin = i * rows / panels, end = (i + 1) * rows / panels;
      FewTile run = few_tile_for(s, panel[i].width);
      for (int first = 0; first < columns; first += lanes) {
        const void* part = as_they_lie ? static_cast<const void*>(lying + first * c.scale_stride) : scales + first;
        run(s, panel[i], c.weights + (c.first + column + first) * s.row_bytes(),
            columns - first < lanes ? columns - first : lanes, part, sums + first);
      }
      finish(s, output, sums, scales, begin, static_cast<int>(end - begin), c.first + column, columns);
    }
  }
}

/// Pairs of k0 .. k0 + k (multiples of 256) of one vector of columns: pair (step, column) at to[step * tile_columns].
template <bool four, bool interleaved>
LONGHAND_INLINE void pack_columns(const QuantizedShape& s, const uint8_t* from, int columns, int64_t k0, int64_t k,
                                  uint32_t* to) {
  constexpr int steps = four ? 4 : 2;
  WordsOf<interleaved> words(from, s.row_bytes(), columns);
  constexpr int64_t vector_k = lanes * steps * 2;
  for (int64_t v = k0 / vector_k; v < (k0 + k) / vector_k && v * vector_bytes < s.row_bytes(); ++v) {
    uvec x[lanes];
    words.load(x, v);
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i)
#pragma GCC unroll 4
      for (int t = 0; t < steps; ++t, to += tile_columns)
        *reinterpret_cast<uvec_unaligned*>(to) = pair_of<four>(x[i], t);
  }
}
void pack_columns(const QuantizedShape& s, const uint8_t* from, int columns, int64_t k0, int64_t k, uint32_t* to) {
  if (s.interleaved)
    (s.four_bits ? pack_columns<true, true> : pack_columns<false, true>)(s, from, columns, k0, k, to);
  else
    (s.four_bits ? pack_columns<true, false> : pack_columns<false, false>)(s, from, columns, k0, k, to);
}

/// R rows by two vectors of columns over blocks [first, last) of k; words [step from `first` on][tile_columns].
template <int R, bool grouped>
void tile(const QuantizedRows& rows, const uint32_t* words, int64_t first, int64_t last, const float* scales,
          float* sums) {
  constexpr int block_steps = grouped ? 32 : 128;
  const int32_t* a = reinterpret_cast<const int32_t*>(rows.words) + first * block_steps * R;
  for (int64_t block = first; block < last; ++block) {
    ivec c[R][2];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) c[r][0] = c[r][1] = splat_int(rows.starts[block * R + r]);
    for (int step = 0; step < block_steps; ++step, a += R, words += tile_columns) {
      __builtin_prefetch(a + 8 * R);
      __builtin_prefetch(words + 8 * tile_columns);
      __builtin_prefetch(words + 8 * tile_columns + lanes);
      uvec left = *reinterpret_cast<const uvec_unaligned*>(words);
      uvec right = *reinterpret_cast<const uvec_unaligned*>(words + lanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        ivec x = splat_int(a[r]);
        c[r][0] = dot(c[r][0], left, x), c[r][1] = dot(c[r][1], right, x);
      }
    }
    vec of_weights[2] = {};
    if (grouped)
      for (int v = 0; v < 2; ++v) of_weights[v] = load(scales + block * tile_columns + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < 2; ++v) {
        float* sum = sums + r * tile_columns + v * lanes;
        store(sum, block_sum<R, grouped>(rows, block, r, c[r][v], load(sum), of_weights[v]));
      }
  }
}

using Tile = void (*)(const QuantizedRows&, const uint32_t*, int64_t, int64_t, const float*, float*);
template <bool grouped, int R = tile_rows>
LONGHAND_INLINE Tile tile_for(int rows) {
  if constexpr (R == 1) {
    return tile<1, grouped>;
  } else {
    return rows == R ? tile<R, grouped> : tile_for<grouped, R - 1>(rows);
  }
}

int64_t scratch_bytes(const QuantizedShape& s, int64_t panels) {
  return (chunk_k / 2 + s.blocks() + panels * tile_rows) * tile_columns * 4;
}

void multiply(const QuantizedShape& s, const QuantizedRows* panel, int64_t panels, int64_t first_row, int64_t rows,
              const QuantizedColumns& c, const MatmulOutput& output, void* scratch) {
  uint32_t* words = static_cast<uint32_t*>(scratch);
  float* scales = reinterpret_cast<float*>(words + chunk_k / 2 * tile_columns);
  float* sums = scales + s.blocks() * tile_columns;
  for (int64_t i = 0; i < panels * tile_rows * tile_columns; i += lanes) store(sums + i, splat(0));
  int columns = static_cast<int>(c.count);
  find_scales(s, c, 0, columns, scales);
  const uint8_t* from = c.weights + c.first * s.row_bytes();
  for (int64_t k0 = 0; k0 < s.padded(); k0 += chunk_k) {
    int64_t k = s.padded() - k0 < chunk_k ? s.padded() - k0 : chunk_k;
    for (int first = 0; first < columns; first += lanes) {
      int count = columns - first < lanes ? columns - first : lanes;
      pack_columns(s, from + first * s.row_bytes(), count, k0, k, words + first);
    }
    for (int64_t i = 0; i < panels; ++i) {
      Tile run = s.grouped ? tile_for<true>(panel[i].width) : tile_for<false>(panel[i].width);
      run(panel[i], words, k0 / s.block(), (k0 + k) / s.block(), scales, sums + i * tile_rows * tile_columns);
    }
  }
  for (int64_t i = 0; i < panels; ++i) {
    int64_t begin = i * rows / panels, end = (i + 1) * rows / panels;
    finish(s, output, sums + i * tile_rows * tile_columns, scales, first_row + begin, static_cast<int>(end - begin),
           c.first, columns);
  }
}

void multiply_bytes([[maybe_unused]] const QuantizedShape& s, [[maybe_unused]] const QuantizedRows* panel,
                    [[maybe_unused]] int64_t panels, [[maybe_unused]] int64_t first_row, [[maybe_unused]] int64_t rows,
                    [[maybe_unused]] const QuantizedColumns& c, [[maybe_unused]] const MatmulOutput& output,
                    [[maybe_unused]] void* scratch) {
#if defined(__AVX512F__)
  float* scales = static_cast<float*>(scratch);
  float* sums = scales + tile_columns;
  for (int64_t i = 0; i < panels * tile_rows * tile_columns; i += lanes) store(sums + i, splat(0));
  int columns = static_cast<int>(c.count);
  find_scales(s, c, 0, columns, scales);
  const uint8_t* left = c.weights + c.first * s.row_bytes();
  const uint8_t* right = columns > lanes ? left + lanes * s.row_bytes() : left;
  constexpr int64_t chunk = chunk_k / 256;
  for (int64_t block = 0; block < s.blocks(); block += chunk)
    for (int64_t i = 0; i < panels; ++i)
      bytes_tile_for(panel[i].width)(s, panel[i], left, right, block,
                                     block + chunk < s.blocks() ? block + chunk : s.blocks(),
                                     sums + i * tile_rows * tile_columns);
  for (int64_t i = 0; i < panels; ++i) {
    int64_t begin = i * rows / panels, end = (i + 1) * rows / panels;
    finish(s, output, sums + i * tile_rows * tile_columns, scales, first_row + begin, static_cast<int>(end - begin),
           c.first, columns);
  }
#endif
}

void pack_row(const QuantizedShape& s, const QuantizedRows& rows, int r, const void* row, bool is_bf16, bool eight_bits,
              int32_t* scratch) {
  if (is_bf16)
    pack_row_of(s, rows, r, static_cast<const half*>(row), eight_bits, scratch);
  else
    pack_row_of(s, rows, r, static_cast<const float*>(row), eight_bits, scratch);
}

void quantize(const void* x, bool is_bf16, int64_t n, bool four_bits, void* out, void* scale, bool half_scale) {
  if (is_bf16)
    quantize_of(static_cast<const half*>(x), n, four_bits, out, scale, half_scale);
  else
    quantize_of(static_cast<const float*>(x), n, four_bits, out, scale, half_scale);
}

void dequantize(const void* integers, const void* scale, bool half_scale, int64_t n, bool four_bits, void* out,
                bool is_bf16) {
  float factor = half_scale ? load_part(static_cast<const fp16*>(scale), 1)[0] : *static_cast<const float*>(scale);
  if (is_bf16)
    dequantize_of(static_cast<const uint8_t*>(integers), factor, n, four_bits, static_cast<half*>(out));
  else
    dequantize_of(static_cast<const uint8_t*>(integers), factor, n, four_bits, static_cast<float*>(out));
}

}  // namespace
}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(QuantizedKernels, quantized_kernels) = {
    tile_rows,
    tile_columns,
    lanes,
    lanes == 16,
    {1, 2, tile_rows > 4 ? 4 : tile_rows, tile_rows > 8 ? 8 : tile_rows, tile_rows},
    pack_row,
    multiply_few,
    multiply,
    scratch_bytes,
    multiply_bytes,
    quantize,
    dequantize,
};

}  // namespace longhand::cpu
