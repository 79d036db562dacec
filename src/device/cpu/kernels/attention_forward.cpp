// Relative attention, forward.
//
// Dense and block: for each tile of 64 queries, stretches of up to 256 keys: scores in a buffer of [64, 256], softmax
// with a running maximum, product with the values into an accumulator. Exact top-k: 32 queries against all their keys,
// selection, softmax and values over the chosen keys.
#include "src/device/cpu/kernels/attention_pages.h"
#include "src/device/cpu/kernels/attention_topk.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

constexpr int64_t tile_rows = 64, guard = tile_rows, forward_columns = 256, topk_rows = 32;

struct ForwardState {
  Packed packed;
  float *key_panels, *value_rows, *qu, *qv, *qw;
  float *s, *out, *factors;
  int32_t* list;
  int64_t length;  // of a row of s
  PageState pages;
  float largest[tile_rows], total[tile_rows], segment[tile_rows][2];
};

static bool exact(const AttentionHead& h) { return h.topk > 0 && !h.pages; }
static int64_t key_tiles(const AttentionHead& h) { return (h.keys + h.shift + attention_page - 1) / attention_page; }

static int64_t columns_of(const AttentionHead& h) {
  return exact(h) ? key_tiles(h) * attention_page : least(key_tiles(h) * attention_page, forward_columns);
}

static int64_t forward_scratch(const AttentionHead& h) {
  int64_t keys = key_tiles(h) * attention_page, rows = exact(h) ? topk_rows : tile_rows;
  return keys * (h.width + h.padded) + 4 * tile_rows * h.padded + rows * row_length(columns_of(h), guard) +
         (exact(h) ? 2 : 1) * (columns_of(h) + 256) + page_scratch(h);
}

static void set_state(const AttentionHead& h, ForwardState& state, float* scratch) {
  int64_t keys = key_tiles(h) * attention_page, rows = exact(h) ? topk_rows : tile_rows;
  auto take = [&](int64_t n) { return scratch += n, scratch - n; };
  state.value_rows = take(keys * h.padded);
  state.qu = take(tile_rows * h.padded), state.qv = take(tile_rows * h.padded), state.qw = take(tile_rows * h.padded);
  state.out = take(tile_rows * h.padded);
  state.length = row_length(columns_of(h), guard);
  state.s = take(rows * state.length) + guard;
  state.factors = take(columns_of(h) + 256);
  if (exact(h)) state.list = reinterpret_cast<int32_t*>(take(columns_of(h) + 256));
  if (h.pages) set_pages(h, state.pages, take(page_scratch(h)));
  state.key_panels = take(keys * h.width);
}

static void load_queries(const AttentionHead& h, ForwardState& f, const QueryTile& t) {
  pack_rows(h, f.qu, h.q, t.first, t.rows, h.u, h.sigma);
  pack_rows(h, f.qv, h.q, t.first, t.rows, h.v, h.sigma);
  if (!h.w) return;
  pack_rows(h, f.qw, h.q, t.first, t.rows, h.w, h.sigma);
  for (int64_t i = 0; i < t.rows; ++i) segment_scores(h, f.qw + i * h.padded, f.segment[i]);
}

static float exponential_of(float x) { return exponential(splat(x))[0]; }

static float row_largest(const float* s, int64_t low, int64_t high, float start) {
  vec best = splat(start);
  int64_t c = low;
  for (; c + lanes <= high + 1; c += lanes) best = maximum(load(s + c), best);
  if (c <= high) best = maximum(select(inside(c, low, high), load(s + c), best), best);
  return largest(best);
}

// s = e^(s - m) in [low, high], 0 elsewhere in [0, columns); returns the sum.
static float exponentials(float* s, int64_t low, int64_t high, int64_t columns, float m) {
  vec total = splat(0), shift = splat(m);
  int64_t c = 0, first = low / lanes * lanes;
  for (; c < first; c += lanes) store(s + c, splat(0));
  for (; c <= high; c += lanes) {
    vec p = exponential(load(s + c) - shift);
    if (c < low || c + lanes - 1 > high) p = select(inside(c, low, high), p, splat(0));
    total = total + p;
    store(s + c, p);
  }
  for (; c < columns; c += lanes) store(s + c, splat(0));
  return sum(total);
}

static void scale_row(float* row, float factor, int64_t padded) {
  for (int64_t c = 0; c < padded; c += lanes) store(row + c, load(row + c) * splat(factor));
}

// One row of a stretch: running maximum and sum, dropout. Leaves the weights of the values.
static void softmax_row(const AttentionHead& h, ForwardState& f, const QueryTile& t, const Stretch& stretch,
                        int64_t i) {
  float* s = f.s + i * f.length;
  int64_t low = most(t.low[i] - stretch.start, 0), high = least(t.high[i] - stretch.start, stretch.columns - 1);
  if (low > high) {
    __builtin_memset(s, 0, stretch.columns * 4);
    return;
  }
  if (h.w) add_segments(h, s, stretch.start, low, high, t.first + i, f.segment[i]);
  float before = f.largest[i], m = row_largest(s, low, high, before);
  float total = exponentials(s, low, high, stretch.columns, m);
  if (m != before) {
    float factor = f.total[i] > 0 ? exponential_of(before - m) : 0.0f;
    f.total[i] *= factor, f.largest[i] = m;
    scale_row(f.out + i * h.padded, factor, h.padded);
  }
  f.total[i] += total;
  if (h.dropout.threshold) {
    const float* z = dropout_run(h.dropout, f.factors, t.first + i, stretch.start + low, high - low + 1);
    for (int64_t c = low; c <= high; ++c) s[c] *= z[c - low];
  }
}

static void values_into(const AttentionHead& h, ForwardState& f, const QueryTile& t, const Stretch& stretch) {
  const float* rows = f.value_rows + packed_row(h, f.packed, stretch.start) * h.padded;
  for (int64_t i = 0; i < t.rows; i += 8) {
    int64_t n = least(8, t.rows - i), low = stretch.columns, high = -1;
    for (int64_t r = i; r < i + n; ++r) low = least(low, t.low[r] - stretch.start);
    low = most(low, 0), high = least(t.high[i + n - 1] - stretch.start, stretch.columns - 1);
    if (low > high) continue;
    multiply({.rows = n,
              .columns = round_up(h.width, lanes),
              .depth = high - low + 1,
              .a = f.s + i * f.length + low,
              .a_row = f.length,
              .a_step = 1,
              .b = rows + low * h.padded,
              .b_row = h.padded,
              .c = f.out + i * h.padded,
              .c_row = h.padded,
              .add = true});
  }
}

static void dense_tile(const AttentionHead& h, ForwardState& f, const QueryTile& t, const uint64_t* kept) {
  __builtin_memset(f.out, 0, t.rows * h.padded * 4);
  for (int64_t i = 0; i < t.rows; ++i) f.largest[i] = -__builtin_inff(), f.total[i] = 0;
  Stretches walk(h, t, kept, columns_of(h));
  Stretch stretch;
  while (walk.next(stretch)) {
    scores(h, t, f.packed, stretch, f.s, f.length);
    for (int64_t i = 0; i < t.rows; ++i) softmax_row(h, f, t, stretch, i);
    values_into(h, f, t, stretch);
    if (stretch.carry)
      for (int64_t i = 0; i < t.rows; ++i)
        __builtin_memcpy(f.s + i * f.length, f.s + i * f.length + stretch.columns, guard * 4);
  }
  for (int64_t i = 0; i < t.rows; ++i) {
    scale_row(f.out + i * h.padded, 1.0f / f.total[i], h.padded);
    h.lse[t.first + i] = f.largest[i] + __builtin_logf(f.total[i]);
  }
  unpack_rows(h, h.out, t.first, t.rows, f.out);
}

static void mark(uint64_t* words, int64_t count, int64_t first_key, const int32_t* list, int64_t n) {
  __builtin_memset(words, 0, count * 8);
  for (int64_t t = 0; t < n; ++t) {
    int64_t j = first_key + list[t];
    words[j >> 6] |= uint64_t{1} << (j & 63);
  }
}

static void topk_row(const AttentionHead& h, ForwardState& f, const QueryTile& t, int64_t start, int64_t i) {
  int64_t query = t.first + i, low = t.low[i];
  float *s = f.s + i * f.length + (low - start), *p = f.factors;
  int64_t n = t.high[i] - low + 1;
  if (h.w) add_segments(h, f.s + i * f.length, start, low - start, t.high[i] - start, query, f.segment[i]);
  n = select_largest(s, n, h.topk, f.list);
  mark(h.selected + query * h.words, h.words, low, f.list, n);
  for (int64_t e = 0; e < n; ++e) p[e] = score_of(s[f.list[e]]);
  float m = row_largest(p, 0, n - 1, -__builtin_inff());
  float total = exponentials(p, 0, n - 1, n, m);
  h.lse[query] = m + __builtin_logf(total);
  if (h.dropout.threshold) {
    dropout_list(h.dropout, s, query, low, f.list, n);  // s is no longer needed
    for (int64_t e = 0; e < n; ++e) p[e] *= s[e];
  }
  float* out = f.out + i * h.padded;
  weighted_rows(out, p, f.list, n, f.value_rows + packed_row(h, f.packed, low) * h.padded, h.padded);
  scale_row(out, 1.0f / total, h.padded);
}

static void topk_tile(const AttentionHead& h, ForwardState& f, const QueryTile& t) {
  Stretch all = whole_stretch(h, t);
  scores(h, t, f.packed, all, f.s, f.length);
  for (int64_t i = 0; i < t.rows; ++i) topk_row(h, f, t, all.start, i);
  unpack_rows(h, h.out, t.first, t.rows, f.out);
}

static void forward(const AttentionHead& h, int64_t first, int64_t last, float* scratch) {
  ForwardState f;
  set_state(h, f, scratch);
  int64_t first_tile = (lowest_key(h, first, last) + h.shift) / attention_page;
  int64_t last_tile = (last - 1 + h.memory + h.shift) / attention_page + 1;
  if (h.pages) first_tile = 0;
  f.packed = {.first_tile = first_tile,
              .key_panels = f.key_panels,
              .key_rows = nullptr,
              .value_panels = nullptr,
              .value_rows = f.value_rows,
              .qu = f.qu,
              .qv = f.qv};
  pack_key_panels(h, f.key_panels, h.k, first_tile, last_tile);
  pack_key_rows(h, f.value_rows, h.value, first_tile, last_tile);
  if (h.pages) pack_page_bounds(h, f.pages, last_tile);
  int64_t step = exact(h) ? topk_rows : tile_rows;
  QueryTile t;
  for (int64_t at = first; at < last; at += step) {
    set_tile(h, t, at, least(step, last - at));
    load_queries(h, f, t);
    uint64_t* kept = h.pages ? h.selected + at / attention_page * h.words : nullptr;
    if (kept) choose_pages(h, f.pages, t, f.qu, f.qv, h.w ? &f.segment[0][0] : nullptr, kept);
    if (exact(h))
      topk_tile(h, f, t);
    else
      dense_tile(h, f, t, kept);
  }
}

int64_t backward_scratch(const AttentionHead& h);
void backward(const AttentionHead& h, int64_t first, int64_t last, const AttentionGradients& d, float* scratch);

static void to_float(float* out, const void* in, bool is_half, int64_t n) {
  if (is_half)
    for (int64_t i = 0; i < n; ++i) out[i] = longhand::cpu::to_float(static_cast<const half*>(in)[i]);
  else
    __builtin_memcpy(out, in, n * 4);
}
static void write_rows(const AttentionHead& h, HeadRows to, int64_t count, const float* from) {
  unpack_rows(h, to, 0, count, from);
}
static void add_floats(float* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += from[i];
}

}  // namespace attention
}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(AttentionKernels, attention_kernels) = {
    attention::pack_position, attention::forward_scratch, attention::backward_scratch, attention::forward,
    attention::backward,      attention::to_float,        attention::write_rows,       attention::add_floats};

}  // namespace longhand::cpu
