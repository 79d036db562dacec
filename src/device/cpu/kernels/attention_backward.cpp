// Relative attention, backward. P is recomputed from the log-sum-exp; with Z the dropout factors and
//   dP = (dO V^T) Z,  delta_i = dO_i . O_i,  dS = P (dP - delta):
//   dV += (P Z)^T dO,  dK += dS^T sigma (Q + u),  dQ = sigma (dS K + shifted dS R),  dR += shifted dS^T sigma (Q + v).
// Dense: tiles of 128 queries by stretches of up to 128 keys; block: of 64 queries. Exact top-k: only the chosen keys,
// by blocks of 256 keys, so that the rows of K, V, R and their gradients stay in the second-level cache while 128
// queries use them.
#include "src/device/cpu/kernels/attention_pages.h"
#include "src/device/cpu/kernels/attention_topk.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

constexpr int64_t tile_rows = 128, guard = tile_rows, backward_columns = 128, sparse_keys = 256, edge = 16;

struct BackwardState {
  Packed packed;
  float *key_panels, *key_rows, *value_panels, *value_rows;
  float *qu, *qv, *qw, *d_out, *out, *dq_content, *dq_position;
  float *s, *dp, *factors;
  int64_t length;
  float delta[tile_rows], segment[tile_rows][2], d_segment[tile_rows][2];
};

static bool exact(const AttentionHead& h) { return h.topk > 0 && !h.pages; }
static int64_t tiles(const AttentionHead& h) { return (h.keys + h.shift + attention_page - 1) / attention_page; }

int64_t backward_scratch(const AttentionHead& h) {
  int64_t keys = tiles(h) * attention_page, length = row_length(backward_columns, guard);
  return keys * 2 * (exact(h) ? h.padded : h.width) + keys * h.padded + 7 * tile_rows * h.padded +
         2 * tile_rows * length + 1024;
}

static void set_state(const AttentionHead& h, BackwardState& b, float* scratch) {
  int64_t keys = tiles(h) * attention_page, tile = tile_rows * h.padded;
  auto take = [&](int64_t n) { return scratch += n, scratch - n; };
  b.qu = take(tile), b.qv = take(tile), b.qw = take(tile), b.d_out = take(tile), b.out = take(tile);
  b.dq_content = take(tile), b.dq_position = take(tile);
  b.length = row_length(backward_columns, guard);
  b.s = take(tile_rows * b.length) + guard, b.dp = take(tile_rows * b.length) + guard;
  b.factors = take(1024);
  b.key_rows = take(keys * h.padded);
  if (exact(h)) {
    b.value_rows = take(keys * h.padded);
  } else {
    b.key_panels = take(keys * h.width), b.value_panels = take(keys * h.width);
  }
}

static void load_queries(const AttentionHead& h, BackwardState& b, const QueryTile& t) {
  pack_rows(h, b.qu, h.q, t.first, t.rows, h.u, h.sigma);
  pack_rows(h, b.qv, h.q, t.first, t.rows, h.v, h.sigma);
  pack_rows(h, b.d_out, h.d_out, t.first, t.rows, nullptr, 1);
  pack_rows(h, b.out, h.out, t.first, t.rows, nullptr, 1);
  for (int64_t i = 0; i < t.rows; ++i) b.delta[i] = dot(b.d_out + i * h.padded, b.out + i * h.padded, h.padded);
  __builtin_memset(b.dq_content, 0, t.rows * h.padded * 4);
  __builtin_memset(b.dq_position, 0, t.rows * h.padded * 4);
  if (!h.w) return;
  pack_rows(h, b.qw, h.q, t.first, t.rows, h.w, h.sigma);
  for (int64_t i = 0; i < t.rows; ++i) {
    segment_scores(h, b.qw + i * h.padded, b.segment[i]);
    b.d_segment[i][0] = b.d_segment[i][1] = 0;
  }
}

static void segment_sums(const AttentionHead& h, const float* ds, int64_t start, int64_t low, int64_t high,
                         int64_t query, float* y) {
  uint8_t id = h.query_ids[query * h.query_id_stride];
  for (int64_t c = low; c <= high; ++c) y[h.key_ids[(start + c) * h.key_id_stride] != id] += ds[c];
}

// One row of a stretch: scores and dO V^T come in, P Z and dS stay, 0 where nothing is visible.
static void gradient_row(const AttentionHead& h, BackwardState& b, const QueryTile& t, const Stretch& stretch,
                         int64_t i) {
  float *s = b.s + i * b.length, *dp = b.dp + i * b.length;
  int64_t low = most(t.low[i] - stretch.start, 0), high = least(t.high[i] - stretch.start, stretch.columns - 1);
  if (low > high) {
    __builtin_memset(s, 0, stretch.columns * 4), __builtin_memset(dp, 0, stretch.columns * 4);
    return;
  }
  if (h.w) add_segments(h, s, stretch.start, low, high, t.first + i, b.segment[i]);
  int64_t first = low / lanes * lanes;
  const float* z = nullptr;
  if (h.dropout.threshold)
    z = dropout_run(h.dropout, b.factors, t.first + i, stretch.start + first, (high / lanes + 1) * lanes - first);
  vec lse = splat(h.lse[t.first + i]), delta = splat(b.delta[i]), zero = splat(0);
  int64_t c = 0;
  for (; c < first; c += lanes) store(s + c, zero), store(dp + c, zero);
  for (; c <= high; c += lanes) {
    vec p = exponential(load(s + c) - lse), g = load(dp + c);
    vec factor = z ? load(z + (c - first)) : splat(1);
    vec weight = p * factor, ds = p * (g * factor - delta);
    if (c < low || c + lanes - 1 > high) {
      ivec visible = inside(c, low, high);
      weight = select(visible, weight, zero), ds = select(visible, ds, zero);
    }
    store(s + c, weight), store(dp + c, ds);
  }
  for (; c < stretch.columns; c += lanes) store(s + c, zero), store(dp + c, zero);
  if (h.w) segment_sums(h, dp, stretch.start, low, high, t.first + i, b.d_segment[i]);
}

// A product's right side stays in the first-level cache when 32 columns of it are used by every row before the next 32.
constexpr int64_t column_group = 2 * lanes;

// out [key] += weights^T rows: eight keys a time, over the queries that see them.
static void to_keys(const AttentionHead& h, const QueryTile& t, const Stretch& s, const float* weights, int64_t length,
                    const float* rows, float* out) {
  int64_t distance = t.first + h.memory - s.start, width = round_up(h.width, lanes);
  for (int64_t column = 0; column < width; column += column_group)
    for (int64_t c = 0; c < s.columns; c += 8) {
      int64_t key = s.start + c, first = most(0, c - distance), last = t.rows;
      if (h.max_distance >= 0) last = least(last, h.max_distance - distance + c + 8);
      if (key + 8 <= 0 || first >= last) continue;
      multiply({.rows = 8,
                .columns = least(column_group, width - column),
                .depth = last - first,
                .a = weights + first * length + c,
                .a_row = 1,
                .a_step = length,
                .b = rows + first * h.padded + column,
                .b_row = h.padded,
                .c = out + (key + h.shift) * h.padded + column,
                .c_row = h.padded,
                .add = true});
    }
}

// dS K.
static void content_gradients(const AttentionHead& h, const BackwardState& b, const QueryTile& t, const Stretch& s) {
  int64_t distance = t.first + h.memory - s.start, width = round_up(h.width, lanes);
  const float* keys = b.key_rows + packed_row(h, b.packed, s.start) * h.padded;
  for (int64_t column = 0; column < width; column += column_group)
    for (int64_t i = 0; i < t.rows; i += 8) {
      int64_t n = least(8, t.rows - i), depth = least(s.columns, distance + i + n);
      if (depth <= 0) continue;
      multiply({.rows = n,
                .columns = least(column_group, width - column),
                .depth = depth,
                .a = b.dp + i * b.length,
                .a_row = b.length,
                .a_step = 1,
                .b = keys + column,
                .b_row = h.padded,
                .c = b.dq_content + i * h.padded + column,
                .c_row = h.padded,
                .add = true});
    }
}

// dS R along the diagonals: column x = c - i stands for distance `distance` - x.
static void position_gradients(const AttentionHead& h, const BackwardState& b, const QueryTile& t, const Stretch& s) {
  int64_t distance = t.first + h.memory - s.start, width = round_up(h.width, lanes);
  for (int64_t column = 0; column < width; column += column_group)
    for (int64_t i = 0; i < t.rows; i += 8) {
      int64_t n = least(8, t.rows - i), x = -(i + n - 1), end = least(s.columns - i, distance + 1);
      if (end <= x) continue;
      multiply({.rows = n,
                .columns = least(column_group, width - column),
                .depth = end - x,
                .a = b.dp + i * b.length + x + i,
                .a_row = b.length + 1,
                .a_step = 1,
                .b = h.r + (distance - x) * h.padded + column,
                .b_row = -h.padded,
                .c = b.dq_position + i * h.padded + column,
                .c_row = h.padded,
                .add = true});
    }
}

static void distance_gradients(const AttentionHead& h, const BackwardState& b, const QueryTile& t, const Stretch& s,
                               const AttentionGradients& d) {
  int64_t distance = t.first + h.memory - s.start, end = least(s.columns - 1, distance);
  for (int64_t x = -(t.rows - 1); x <= end; x += 8) {
    int64_t n = least(8, end - x + 1), first = most(0, -(x + n - 1)), last = least(t.rows, s.columns - x);
    multiply({.rows = n,
              .columns = round_up(h.width, lanes),
              .depth = last - first,
              .a = b.dp + first * (b.length + 1) + x,
              .a_row = 1,
              .a_step = b.length + 1,
              .b = b.qv + first * h.padded,
              .b_row = h.padded,
              .c = d.d_r + (distance - x) * h.padded,
              .c_row = -h.padded,
              .add = true});
  }
}

static void dense_tile(const AttentionHead& h, BackwardState& b, const QueryTile& t, const uint64_t* kept,
                       const AttentionGradients& d) {
  Stretches walk(h, t, kept, backward_columns);
  Stretch stretch;
  while (walk.next(stretch)) {
    scores(h, t, b.packed, stretch, b.s, b.length);
    times_keys(h, t, b.packed, stretch, b.d_out, b.value_panels, b.dp, b.length, false);
    for (int64_t i = 0; i < t.rows; ++i) {
      gradient_row(h, b, t, stretch, i);
      for (int64_t c = 0; c < edge; c += lanes)
        store(b.dp + i * b.length - edge + c, splat(0)), store(b.dp + i * b.length + stretch.columns + c, splat(0));
    }
    to_keys(h, t, stretch, b.s, b.length, b.d_out, d.d_value);
    to_keys(h, t, stretch, b.dp, b.length, b.qu, d.d_k);
    content_gradients(h, b, t, stretch);
    position_gradients(h, b, t, stretch);
    distance_gradients(h, b, t, stretch, d);
    if (stretch.carry)
      for (int64_t i = 0; i < t.rows; ++i)
        __builtin_memcpy(b.s + i * b.length, b.s + i * b.length + stretch.columns, guard * 4);
  }
}

// The chosen keys of one query in one block of keys.
static void sparse_block(const AttentionHead& h, BackwardState& b, const QueryTile& t, int64_t i, int64_t block,
                         const AttentionGradients& d) {
  int64_t query = t.first + i, base = block * sparse_keys, n = 0;
  int32_t list[sparse_keys + 16];
  const uint64_t* words = h.selected + query * h.words;
  for (int64_t w = base / 64; w < least(h.words, (base + sparse_keys) / 64); ++w)
    for (uint64_t bits = words[w]; bits; bits &= bits - 1)
      list[n++] = static_cast<int32_t>(w * 64 - base + __builtin_ctzll(bits));
  if (n == 0) return;
  float s[sparse_keys + 16], dp[sparse_keys + 16], z[sparse_keys + 16];
  int64_t row = i * h.padded, key = packed_row(h, b.packed, base) * h.padded, to = (base + h.shift) * h.padded;
  SparseRow r{.list = list,
              .n = n,
              .distance = query + h.memory - base,
              .qu = b.qu + row,
              .qv = b.qv + row,
              .d_out = b.d_out + row,
              .key_rows = b.key_rows + key,
              .value_rows = b.value_rows + key,
              .r = h.r,
              .d_k = d.d_k + to,
              .d_value = d.d_value + to,
              .d_r = d.d_r,
              .dq_content = b.dq_content + row,
              .dq_position = b.dq_position + row,
              .s = s,
              .dp = dp,
              .padded = h.padded};
  sparse_products(r);
  uint8_t id = h.w ? h.query_ids[query * h.query_id_stride] : 0;
  const uint8_t* ids = h.key_ids + base * h.key_id_stride;
  if (h.w)
    for (int64_t e = 0; e < n; ++e) s[e] += b.segment[i][ids[list[e] * h.key_id_stride] != id];
  if (h.dropout.threshold) dropout_list(h.dropout, z, query, base, list, n);
  for (int64_t e = 0; e < n; e += lanes) {
    vec p = exponential(load(s + e) - splat(h.lse[query]));
    vec factor = h.dropout.threshold ? load(z + e) : splat(1);
    vec ds = p * (load(dp + e) * factor - splat(b.delta[i]));
    store(s + e, ds), store(dp + e, p * factor);
  }
  if (h.w)
    for (int64_t e = 0; e < n; ++e) b.d_segment[i][ids[list[e] * h.key_id_stride] != id] += s[e];
  sparse_gradients(r);
}

static void sparse_tile(const AttentionHead& h, BackwardState& b, const QueryTile& t, const AttentionGradients& d) {
  for (int64_t block = t.lowest / sparse_keys; block <= t.highest / sparse_keys; ++block)
    for (int64_t i = 0; i < t.rows; ++i) sparse_block(h, b, t, i, block, d);
}

// d_q, and what the tile adds to the gradients of the biases and of the segment rows.
static void finish_tile(const AttentionHead& h, BackwardState& b, const QueryTile& t, const AttentionGradients& d) {
  vec sigma = splat(h.sigma);
  for (int64_t i = 0; i < t.rows; ++i)
    for (int64_t c = 0; c < h.padded; c += lanes) {
      int64_t at = i * h.padded + c;
      vec content = load(b.dq_content + at) * sigma, position = load(b.dq_position + at) * sigma;
      store(d.d_u + c, load(d.d_u + c) + content), store(d.d_v + c, load(d.d_v + c) + position);
      vec all = content + position;
      if (h.w) {
        vec y0 = splat(b.d_segment[i][0]), y1 = splat(b.d_segment[i][1]);
        vec segment = (y0 * load(h.segments + c) + y1 * load(h.segments + h.padded + c)) * sigma;
        store(d.d_segment_bias + c, load(d.d_segment_bias + c) + segment);
        float* rows = d.d_segment_rows + c;
        store(rows, load(rows) + y0 * load(b.qw + at));
        store(rows + h.padded, load(rows + h.padded) + y1 * load(b.qw + at));
        all = all + segment;
      }
      store(b.dq_content + at, all);
    }
  unpack_rows(h, h.d_q, t.first, t.rows, b.dq_content);
}

void backward(const AttentionHead& h, int64_t first, int64_t last, const AttentionGradients& d, float* scratch) {
  BackwardState b;
  set_state(h, b, scratch);
  int64_t first_tile = (lowest_key(h, first, last) + h.shift) / attention_page;
  if (exact(h)) first_tile = 0;  // blocks of keys start anywhere
  int64_t last_tile = (last - 1 + h.memory + h.shift) / attention_page + 1;
  pack_key_rows(h, b.key_rows, h.k, first_tile, last_tile);
  if (exact(h)) {
    pack_key_rows(h, b.value_rows, h.value, first_tile, last_tile);
  } else {
    pack_key_panels(h, b.key_panels, h.k, first_tile, last_tile);
    pack_key_panels(h, b.value_panels, h.value, first_tile, last_tile);
  }
  b.packed = {.first_tile = first_tile,
              .key_panels = b.key_panels,
              .key_rows = b.key_rows,
              .value_panels = b.value_panels,
              .value_rows = b.value_rows,
              .qu = b.qu,
              .qv = b.qv};
  int64_t step = h.pages ? attention_page : tile_rows;
  QueryTile t;
  for (int64_t at = first; at < last; at += step) {
    set_tile(h, t, at, least(step, last - at));
    load_queries(h, b, t);
    if (exact(h))
      sparse_tile(h, b, t, d);
    else
      dense_tile(h, b, t, h.pages ? h.selected + at / attention_page * h.words : nullptr, d);
    finish_tile(h, b, t, d);
  }
}

}  // namespace attention
}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
