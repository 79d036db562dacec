#include "src/device/cpu/kernels/attention_tile.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

// R x V vectors of c stay in registers while k runs.
template <int R, int V>
LONGHAND_INLINE void micro(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row, float* c,
                           int64_t c_row, int64_t depth, bool add) {
  vec x[R][V];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) x[r][v] = add ? load(c + r * c_row + v * lanes) : splat(0);
  for (int64_t k = 0; k < depth; ++k) {
    vec y[V];
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) y[v] = load(b + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      vec s = splat(a[r * a_row]);
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) x[r][v] = x[r][v] + s * y[v];
    }
    a += a_step, b += b_row;
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) store(c + r * c_row + v * lanes, x[r][v]);
}

#if defined(__AVX512F__)
constexpr int block = 8;
#elif defined(__AVX2__)
constexpr int block = 6;
#else
constexpr int block = 4;
#endif

template <int V>
static void column_block(const Product& p, int64_t column) {
  const float *a = p.a, *b = p.b + column;
  float* c = p.c + column;
  int64_t rows = p.rows;
  auto run = [&](auto size) {
    constexpr int R = decltype(size)::value;
    micro<R, V>(a, p.a_row, p.a_step, b, p.b_row, c, p.c_row, p.depth, p.add);
    a += R * p.a_row, c += R * p.c_row, rows -= R;
  };
  while (rows >= block) run(Count<block>{});
  if (rows >= 4) run(Count<4>{});
  if (rows >= 2) run(Count<2>{});
  if (rows >= 1) run(Count<1>{});
}

void multiply(const Product& p) {
  if (p.rows <= 0) return;
  int64_t column = 0;
  for (; column + 2 * lanes <= p.columns; column += 2 * lanes) column_block<2>(p, column);
  if (column < p.columns) column_block<1>(p, column);
}

template <class T>
static const T* element(HeadRows rows, int64_t i) {
  return static_cast<const T*>(rows.data) + i * rows.stride;
}

template <class T>
static void pack_row(float* out, const T* in, int64_t width, int64_t padded, const float* bias, float scale) {
  for (int64_t c = 0; c < padded; c += lanes) {
    vec x = splat(0);
    if (c + lanes <= width)
      x = load(in + c);
    else if (c < width)
      x = load_part(in + c, width - c);
    if (bias) x = (x + load(bias + c)) * splat(scale);
    store(out + c, x);
  }
}

void pack_rows(const AttentionHead& h, float* out, HeadRows rows, int64_t first, int64_t count, const float* bias,
               float scale) {
  for (int64_t i = 0; i < count; ++i, out += h.padded)
    if (h.half)
      pack_row(out, element<half>(rows, first + i), h.width, h.padded, bias, scale);
    else
      pack_row(out, element<float>(rows, first + i), h.width, h.padded, bias, scale);
}

void unpack_rows(const AttentionHead& h, HeadRows rows, int64_t first, int64_t count, const float* in) {
  auto run = [&](auto* data) {
    for (int64_t i = 0; i < count; ++i, in += h.padded) {
      auto* out = data + (first + i) * rows.stride;
      int64_t c = 0;
      for (; c + lanes <= h.width; c += lanes) store(out + c, load(in + c));
      if (c < h.width) store_part(out + c, load(in + c), h.width - c);
    }
  };
  if (h.half)
    run(static_cast<half*>(rows.data));
  else
    run(static_cast<float*>(rows.data));
}

// One panel: 32 rows become columns; a null row is zero.
template <class T>
static void pack_panel(float* out, const T* const rows[attention_panel], int64_t width) {
  for (int64_t group = 0; group < attention_panel; group += lanes)
    for (int64_t c = 0; c < width; c += lanes) {
      int64_t n = least(lanes, width - c);
      vec x[lanes];
      for (int i = 0; i < lanes; ++i) {
        const T* row = rows[group + i];
        x[i] = !row ? splat(0) : n == lanes ? load(row + c) : load_part(row + c, n);
      }
      transpose(x);
      for (int64_t i = 0; i < n; ++i) store(out + (c + i) * attention_panel + group, x[i]);
    }
}

template <class T>
static void key_panels(const AttentionHead& h, float* out, HeadRows rows, int64_t first_tile, int64_t last_tile) {
  const T* row[attention_panel];
  for (int64_t j = first_tile * attention_page - h.shift; j < last_tile * attention_page - h.shift;
       j += attention_panel, out += attention_panel * h.width) {
    for (int64_t i = 0; i < attention_panel; ++i)
      row[i] = j + i >= 0 && j + i < h.keys ? element<T>(rows, j + i) : nullptr;
    pack_panel(out, row, h.width);
  }
}

void pack_key_panels(const AttentionHead& h, float* out, HeadRows rows, int64_t first_tile, int64_t last_tile) {
  if (h.half)
    key_panels<half>(h, out, rows, first_tile, last_tile);
  else
    key_panels<float>(h, out, rows, first_tile, last_tile);
}

void pack_key_rows(const AttentionHead& h, float* out, HeadRows rows, int64_t first_tile, int64_t last_tile) {
  int64_t start = first_tile * attention_page - h.shift, end = last_tile * attention_page - h.shift;
  int64_t first = most(start, 0), last = least(end, h.keys);
  __builtin_memset(out, 0, (first - start) * h.padded * 4);
  pack_rows(h, out + (first - start) * h.padded, rows, first, last - first, nullptr, 1);
  __builtin_memset(out + (last - start) * h.padded, 0, (end - last) * h.padded * 4);
}

template <class T>
static void pack_position_of(const AttentionPosition& p) {
  const T* r = static_cast<const T*>(p.r);
  int64_t rows = p.keys + attention_r_margin;
  for (int64_t d = 0; d < rows; ++d)
    pack_row(p.rows + d * p.padded, r + least(d, p.distances - 1) * p.stride, p.width, p.padded, nullptr, 1);
  const T* row[attention_panel];
  for (int64_t e = 0; 32 * e + p.phase <= rows; ++e) {
    for (int64_t i = 0; i < attention_panel; ++i) {
      int64_t d = 32 * e + p.phase - 1 - i;
      row[i] = d < 0 ? nullptr : r + least(d, p.distances - 1) * p.stride;
    }
    pack_panel(p.panels + e * attention_panel * p.width, row, p.width);
  }
}

void pack_position(const AttentionPosition& p) {
  if (p.half)
    pack_position_of<half>(p);
  else
    pack_position_of<float>(p);
  if (p.bounds)
    for (int64_t page = 0; page * attention_page < p.keys; ++page)
      row_bounds(p.bounds + page * 2 * p.padded, p.rows + page * attention_page * p.padded, attention_page, p.padded);
}

void row_bounds(float* out, const float* rows, int64_t count, int64_t padded) {
  for (int64_t c = 0; c < padded; c += lanes) {
    vec low = load(rows + c), high = low;
    for (int64_t i = 1; i < count; ++i) {
      vec x = load(rows + i * padded + c);
      low = minimum(low, x), high = maximum(high, x);
    }
    store(out + c, low), store(out + padded + c, high);
  }
}

static int64_t lowest_of(const AttentionHead& h, int64_t i) {
  int64_t low = 0;
  if (h.max_distance >= 0) low = most(low, i + h.memory - h.max_distance);
  if (h.document_start) low = most(low, h.document_start[i * h.document_stride]);
  return least(low, i + h.memory);
}

void set_tile(const AttentionHead& h, QueryTile& t, int64_t first, int64_t rows) {
  t.first = first, t.rows = rows;
  t.lowest = h.keys, t.highest = first + rows - 1 + h.memory;
  for (int64_t i = 0; i < rows; ++i) {
    t.low[i] = lowest_of(h, first + i), t.high[i] = first + i + h.memory;
    t.lowest = least(t.lowest, t.low[i]);
  }
}

int64_t lowest_key(const AttentionHead& h, int64_t first, int64_t last) {
  int64_t low = h.keys;
  for (int64_t i = first; i < last; ++i) low = least(low, lowest_of(h, i));
  return low;
}

void times_keys(const AttentionHead& h, const QueryTile& t, const Packed& p, const Stretch& s, const float* a,
                const float* panels, float* out, int64_t length, bool add) {
  int64_t distance = t.first + h.memory - s.start;  // of row 0 to column 0
  const float* panel = panels + packed_row(h, p, s.start) * h.width;
  for (int64_t c = 0; c < s.columns; c += attention_panel, panel += attention_panel * h.width) {
    int64_t first = most(0, c - distance) & ~int64_t{7}, last = t.rows;
    if (h.max_distance >= 0) last = least(last, h.max_distance - distance + c + attention_panel);
    multiply({.rows = last - first,
              .columns = attention_panel,
              .depth = h.width,
              .a = a + first * h.padded,
              .a_row = h.padded,
              .a_step = 1,
              .b = panel,
              .b_row = attention_panel,
              .c = out + first * length + c,
              .c_row = length,
              .add = add});
  }
}

// Column x of G (x = key column - row) stands for distance `distance` - x; panel m holds x in [32 m - 31, 32 m].
static void position_terms(const AttentionHead& h, const QueryTile& t, const Packed& p, const Stretch& s, float* out,
                           int64_t length) {
  int64_t distance = t.first + h.memory - s.start;
  int64_t first = s.carried ? 1 : -((t.rows - 1) / attention_panel);
  int64_t last = least(s.columns / attention_panel, (distance + 31) >> 5);
  for (int64_t m = first; m <= last; ++m) {
    int64_t x = attention_panel * m;
    int64_t top = most(0, -x), bottom = s.carry ? t.rows : least(t.rows, s.columns + 31 - x);
    int64_t panel = (distance - x - h.phase) / attention_panel + 1;
    multiply({.rows = bottom - top,
              .columns = attention_panel,
              .depth = h.width,
              .a = p.qv + top * h.padded,
              .a_row = h.padded,
              .a_step = 1,
              .b = h.r_panels + panel * attention_panel * h.width,
              .b_row = attention_panel,
              .c = out + top * (length + 1) + x - 31,
              .c_row = length + 1,
              .add = false});
  }
}

void scores(const AttentionHead& h, const QueryTile& t, const Packed& p, const Stretch& stretch, float* s,
            int64_t length) {
  position_terms(h, t, p, stretch, s, length);
  times_keys(h, t, p, stretch, p.qu, p.key_panels, s, length, true);
}

void segment_scores(const AttentionHead& h, const float* qw, float* y) {
  y[0] = dot(qw, h.segments, h.padded), y[1] = dot(qw, h.segments + h.padded, h.padded);
}

void add_segments(const AttentionHead& h, float* s, int64_t start, int64_t low, int64_t high, int64_t query,
                  const float* y) {
  uint8_t id = h.query_ids[query * h.query_id_stride];
  for (int64_t c = low; c <= high; ++c) s[c] += y[h.key_ids[(start + c) * h.key_id_stride] != id];
}

typedef uint64_t wide __attribute__((vector_size(lanes * 4)));
constexpr int wides = lanes / 2;

LONGHAND_INLINE wide multiply_low(wide a, uint32_t b) {
#if defined(__AVX512F__)
  return (wide)_mm512_maskz_mul_epu32(0xff, (__m512i)a, _mm512_set1_epi32(static_cast<int>(b)));
#elif defined(__AVX2__)
  return (wide)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi32(static_cast<int>(b)));
#else
  return (wide)_mm_mul_epu32((__m128i)a, _mm_set1_epi32(static_cast<int>(b)));
#endif
}

// Philox4x32-10 of `wides` blocks; words come in the lower halves, the upper halves hold anything.
LONGHAND_INLINE void philox(const HeadDropout& d, wide block, wide out[4]) {
  uint32_t k0 = static_cast<uint32_t>(d.seed), k1 = static_cast<uint32_t>(d.seed >> 32);
  wide c0 = block, c1 = (block >> 32 & 0xffff) | d.word1, c2 = wide{} + d.word2, c3 = wide{} + d.word3;
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    wide p0 = multiply_low(c0, 0xD2511F53u), p1 = multiply_low(c2, 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ k0, c2 = (p0 >> 32) ^ c3 ^ k1;
    c1 = p1, c3 = p0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

LONGHAND_INLINE vec factors(const HeadDropout& d, uvec bits) {
  return select((ivec)(bits >= uvec{} + d.threshold), splat(d.scale), splat(0));
}

const float* dropout_run(const HeadDropout& d, float* z, int64_t query, int64_t key, int64_t n) {
  uint64_t element = d.first + static_cast<uint64_t>(query) * d.row + static_cast<uint64_t>(key);
  int64_t offset = static_cast<int64_t>(element & 3);
  wide step;
  for (int i = 0; i < wides; ++i) step[i] = static_cast<uint64_t>(i);
  wide block = (element >> 2) + step;
  for (int64_t at = 0; at < offset + n; at += 2 * lanes, block += wides) {
    wide w[4];
    philox(d, block, w);
    constexpr uint64_t lower = 0xffffffffu;
    wide even = (w[0] & lower) | w[1] << 32, odd = (w[2] & lower) | w[3] << 32;
    wide first, second;
    for (int i = 0; i < wides / 2; ++i) {
      first[2 * i] = even[i], first[2 * i + 1] = odd[i];
      second[2 * i] = even[wides / 2 + i], second[2 * i + 1] = odd[wides / 2 + i];
    }
    store(z + at, factors(d, (uvec)first)), store(z + at + lanes, factors(d, (uvec)second));
  }
  return z + offset;
}

void dropout_list(const HeadDropout& d, float* z, int64_t query, int64_t base, const int32_t* list, int64_t n) {
  uint64_t first = d.first + static_cast<uint64_t>(query) * d.row + static_cast<uint64_t>(base);
  for (int64_t at = 0; at < n; at += wides) {
    wide element;
    for (int i = 0; i < wides; ++i) element[i] = first + static_cast<uint64_t>(at + i < n ? list[at + i] : 0);
    wide w[4];
    philox(d, element >> 2, w);
    for (int i = 0; i < wides; ++i) {
      uint32_t bits = static_cast<uint32_t>(w[element[i] & 3][i]);
      z[at + i] = bits >= d.threshold ? d.scale : 0;
    }
  }
}

}  // namespace attention
}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
