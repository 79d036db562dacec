// Attention over rings, without gradients: up to four consecutive queries of one sequence share the loads of keys and
// values. A score is the sum of products over the lanes of a row, then of the lanes in a fixed tree; a softmax runs
// over columns counted from a multiple of 64; values add in the order of positions. None of this depends on how many
// queries stand side by side, so neither do the bits.
//
// Pages: a query bounds the scores of every page of 64 keys that it sees by the page's extremes, keeps the best and
// reads the keys and values of these alone.
#include "src/device/cpu/kernels/attention_decode.h"

#include "src/device/cpu/kernels/attention_topk.h"
#include "src/device/cpu/kernels/int8.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

struct DecodeState {
  int64_t base, end;  // positions of the group's keys: [base, end), base a multiple of 64
  float *qu, *qv, *s, *p, *out;
  int32_t* list;
  int64_t length;
};

static int64_t columns(const DecodeHead& h) {
  int64_t low = h.position - h.window + 1;
  low = low > 0 ? low / 64 * 64 : 0;
  return h.position + h.count - low;
}

static int64_t scratch_of(const DecodeHead& h) {
  return decode_group * (3 * h.padded + round_up(columns(h), 16) + 64) + 2 * (round_up(columns(h), 16) + 128);
}

static void set_state(const DecodeHead& h, DecodeState& d, float* scratch) {
  auto take = [&](int64_t n) { return scratch += n, scratch - n; };
  d.end = h.position + h.count, d.base = d.end - columns(h);
  d.length = round_up(d.end - d.base, 16) + 64;
  d.qu = take(decode_group * h.padded), d.qv = take(decode_group * h.padded), d.out = take(decode_group * h.padded);
  d.s = take(decode_group * d.length), d.p = take(d.length + 64);
  d.list = reinterpret_cast<int32_t*>(take(d.length + 64));
}

static int64_t low_of(const DecodeHead& h, int64_t i) { return most(0, h.position + i - h.window + 1); }

template <class T>
LONGHAND_INLINE const T* row_of(HeadRows rows, int64_t row) {
  return static_cast<const T*>(rows.data) + row * rows.stride;
}
/// What the entries of a row are multiplied by; integers alone have such a number.
template <class T>
LONGHAND_INLINE float scale_of(HeadRows scales, int64_t row) {
  if constexpr (sizeof(T) == 1) return *row_of<float>(scales, row);
  return 1;
}

// V whole vectors a row, or 0: any width.
template <int V, class T>
LONGHAND_INLINE vec row_product(const float* q, const T* row, int64_t width, vec x) {
  if constexpr (V > 0) {
#pragma GCC unroll 8
    for (int v = 0; v < V; ++v) x = x + load(q + v * lanes) * load(row + v * lanes);
  } else {
    int64_t c = 0;
    for (; c + lanes <= width; c += lanes) x = x + load(q + c) * load(row + c);
    if (c < width) x = x + load(q + c) * load_part(row + c, width - c);
  }
  return x;
}

/// sum + scale * (q . row)
template <int V, class T>
LONGHAND_INLINE vec add_product(vec sum, const float* q, HeadRows rows, HeadRows scales, int64_t row, int64_t width) {
  vec x = row_product<V>(q, row_of<T>(rows, row), width, splat(0));
  if constexpr (sizeof(T) == 1) return sum + x * splat(scale_of<T>(scales, row));
  return sum + x;
}

/// Positions [low, end); position p stands in column p - origin.
struct Run {
  int64_t low, end, origin;
};

/// Scores of queries i to i + N - 1, rows of s `length` apart.
template <int V, int N, class T>
static void score_keys(const DecodeHead& h, const DecodeState& d, int64_t i, const Run& run, float* s) {
  const float *qu = d.qu + i * h.padded, *qv = d.qv + i * h.padded;
  for (int64_t at = run.low / lanes * lanes; at < run.end; at += lanes) {
    vec x[N][lanes];
    for (int64_t lane = 0; lane < lanes; ++lane) {
      int64_t position = at + lane;
      if (position >= run.end || position < run.low) {
        for (int n = 0; n < N; ++n) x[n][lane] = splat(0);
        continue;
      }
      for (int n = 0; n < N; ++n) {
        int64_t distance = least(most(h.position + i + n - position, 0), h.distances - 1);
        vec content = add_product<V, T>(splat(0), qu + n * h.padded, h.keys, h.key_scales, position % h.slots, h.width);
        x[n][lane] = add_product<V, T>(content, qv + n * h.padded, h.r, h.r_scales, distance, h.width);
      }
    }
    for (int n = 0; n < N; ++n) store(s + n * d.length + (at - run.origin), sums(x[n]));
  }
}

static float softmax(float* s, int64_t low, int64_t high, int64_t first, int64_t end) {
  vec best = splat(-__builtin_inff());
  for (int64_t c = low / lanes * lanes; c <= high; c += lanes)
    best = maximum(select(inside(c, low, high), load(s + c), splat(-__builtin_inff())), best);
  vec m = splat(largest(best)), total = splat(0);
  for (int64_t c = first; c < end; c += lanes) {
    if (c + lanes <= low || c > high) {
      store(s + c, splat(0));
      continue;
    }
    vec p = select(inside(c, low, high), exponential(load(s + c) - m), splat(0));
    store(s + c, p), total = total + p;
  }
  return sum(total);
}

/// Adds values, weighted by columns of p (rows `length` apart), to out: V vectors of it from column c on.
template <int V, int N, class T>
LONGHAND_INLINE void add_values(const DecodeHead& h, const DecodeState& d, const Run& run, const float* p, int64_t c,
                                vec (&out)[N][V ? V : 1]) {
  constexpr int W = V ? V : 1;
  for (int64_t position = run.low; position < run.end; ++position) {
    int64_t slot = position % h.slots;
    const T* value = row_of<T>(h.values, slot) + c;
    float scale = scale_of<T>(h.value_scales, slot);
    vec y[W];
    for (int v = 0; v < W; ++v)
      y[v] = V || c + lanes <= h.width ? load(value + v * lanes) : load_part(value, h.width - c);
    for (int n = 0; n < N; ++n) {
      vec weight = splat(p[n * d.length + (position - run.origin)] * scale);
      for (int v = 0; v < W; ++v) out[n][v] = out[n][v] + weight * y[v];
    }
  }
}

/// The values of all runs, in order; run r's columns begin at p + 64 r.
template <int V, int N, class T, class RunOf>
static void weigh_values(const DecodeHead& h, const DecodeState& d, int64_t i, int64_t runs, const RunOf& run_of,
                         const float* p) {
  constexpr int W = V ? V : 1;
  for (int64_t c = 0; c < h.width; c += W * lanes) {
    vec x[N][W];
    for (int n = 0; n < N; ++n)
      for (int v = 0; v < W; ++v) x[n][v] = splat(0);
    for (int64_t r = 0; r < runs; ++r) add_values<V, N, T>(h, d, run_of(r), p + r * attention_page, c, x);
    for (int n = 0; n < N; ++n)
      for (int v = 0; v < W; ++v) store(d.out + (i + n) * h.padded + c + v * lanes, x[n][v]);
  }
}

/// The values of the d.list entries, counted from the query's lowest key, weighted by d.p.
template <class T>
static void chosen_values(const DecodeHead& h, const DecodeState& d, int64_t i, int64_t n) {
  float* out = d.out + i * h.padded;
  for (int64_t c = 0; c < h.width; c += lanes) {
    vec x = splat(0);
    for (int64_t e = 0; e < n; ++e) {
      int64_t slot = (low_of(h, i) + d.list[e]) % h.slots;
      const T* value = row_of<T>(h.values, slot) + c;
      vec weight = splat(d.p[e] * scale_of<T>(h.value_scales, slot));
      x = x + weight * (c + lanes <= h.width ? load(value) : load_part(value, h.width - c));
    }
    store(out + c, x);
  }
}

static void finish(const DecodeHead& h, const DecodeState& d, int64_t i, float total) {
  float* out = d.out + i * h.padded;
  for (int64_t c = 0; c < h.width; c += lanes) {
    vec x = load(out + c) * splat(1.0f / total);
    int64_t n = least(lanes, h.width - c);
    if (h.half)
      store_part(static_cast<half*>(h.out.data) + i * h.out.stride + c, x, n);
    else
      store_part(static_cast<float*>(h.out.data) + i * h.out.stride + c, x, n);
  }
}

template <int V, int N, class T>
static void decode_dense(const DecodeHead& h, DecodeState& d) {
  Run all{low_of(h, 0), d.end, d.base};
  score_keys<V, N, T>(h, d, 0, all, d.s);
  int64_t first = all.low / lanes * lanes - d.base, end = d.end - d.base;
  float total[N] = {};
  for (int n = 0; n < N; ++n)
    total[n] = softmax(d.s + n * d.length, low_of(h, n) - d.base, h.position + n - d.base, first, end);
  weigh_values<V, N, T>(
      h, d, 0, 1, [&](int64_t) { return all; }, d.s);
  for (int n = 0; n < N; ++n) finish(h, d, n, total[n]);
}

template <int V, int N, class T>
static void decode_largest(const DecodeHead& h, DecodeState& d) {
  score_keys<V, N, T>(h, d, 0, {low_of(h, 0), d.end, d.base}, d.s);
  for (int n = 0; n < N; ++n) {
    float* s = d.s + n * d.length;
    int64_t low = low_of(h, n) - d.base, high = h.position + n - d.base;
    int64_t count = select_largest(s + low, high - low + 1, h.topk, d.list);
    for (int64_t e = 0; e < count; ++e) d.p[e] = score_of(s[low + d.list[e]]);
    float sum = softmax(d.p, 0, count - 1, 0, count);
    chosen_values<T>(h, d, n, count);
    finish(h, d, n, sum);
  }
}

/// out[j] = sum_c max(q_c low_c, q_c high_c), the least that no q . x of page first + j exceeds; whole vectors of out
/// are written. row_of_page gives the row of a page's minima.
template <class RowOf>
static void bound_pages(const DecodeHead& h, const float* q, HeadRows bounds, int64_t count, const RowOf& row_of_page,
                        float* out) {
  for (int64_t at = 0; at < count; at += lanes) {
    vec x[lanes];
    for (int64_t lane = 0; lane < lanes; ++lane) {
      int64_t row = row_of_page(least(at + lane, count - 1));
      const float *low = row_of<float>(bounds, row), *high = row_of<float>(bounds, row + 1);
      x[lane] = splat(0);
      int64_t c = 0;
      for (; c + lanes <= h.width; c += lanes)
        x[lane] = x[lane] + maximum(load(q + c) * load(low + c), load(q + c) * load(high + c));
      if (c < h.width) {
        vec part = load(q + c);
        int64_t n = h.width - c;
        x[lane] = x[lane] + maximum(part * load_part(low + c, n), part * load_part(high + c, n));
      }
    }
    store(out + at, sums(x));
  }
}

/// Lists the pages that query i keeps, rising, counted from its lowest one; returns how many. The bound of a page is
/// that of its keys plus the larger one of the groups of distances that it straddles.
static int64_t choose_pages(const DecodeHead& h, const DecodeState& d, int64_t i) {
  int64_t position = h.position + i, low = low_of(h, i);
  int64_t oldest = low / attention_page, own = position / attention_page, candidates = most(own - oldest - 1, 0);
  int64_t keep = least((h.topk + attention_page - 1) / attention_page - 2, candidates), listed = 0;
  if (keep > 0) {
    int64_t pages = h.slots / attention_page, groups = (position - low) / attention_page + 1;
    float *value = d.p, *by_group = d.p + round_up(candidates, lanes) + lanes;
    auto page_row = [&](int64_t j) { return 2 * ((oldest + j) % pages); };
    auto group_row = [&](int64_t e) { return 2 * least(e, h.groups - 1); };
    bound_pages(h, d.qu + i * h.padded, h.key_bounds, candidates, page_row, value);
    bound_pages(h, d.qv + i * h.padded, h.r_bounds, groups, group_row, by_group);
    for (int64_t j = 0; j < candidates; ++j) {
      int64_t first = most((oldest + j) * attention_page, low), last = (oldest + j + 1) * attention_page - 1;
      float near = by_group[(position - last) / attention_page], far = by_group[(position - first) / attention_page];
      value[j] += near > far ? near : far;
    }
    listed = select_largest(value, candidates, keep, d.list);
  }
  if (own > oldest) d.list[listed++] = static_cast<int32_t>(own - 1 - oldest);
  d.list[listed++] = static_cast<int32_t>(own - oldest);
  return listed;
}

template <int V, class T>
static void decode_pages(const DecodeHead& h, DecodeState& d, int64_t i) {
  int64_t low = low_of(h, i), position = h.position + i, count = choose_pages(h, d, i);
  auto run_of = [&](int64_t r) {
    int64_t origin = (low / attention_page + d.list[r]) * attention_page;
    return Run{most(low, origin), least(position + 1, origin + attention_page), origin};
  };
  for (int64_t r = 0; r < count; ++r) {
    Run run = run_of(r);
    float* s = d.s + r * attention_page;
    score_keys<V, 1, T>(h, d, i, run, s);
    for (int64_t c = 0; c < run.low - run.origin; ++c) s[c] = -__builtin_inff();
    for (int64_t c = run.end - run.origin; c < attention_page; ++c) s[c] = -__builtin_inff();
  }
  int64_t columns = count * attention_page;
  float total = softmax(d.s, 0, columns - 1, 0, columns);
  weigh_values<V, 1, T>(h, d, i, count, run_of, d.s);
  finish(h, d, i, total);
}

template <int V, int N, class T>
static void decode_some(const DecodeHead& h, DecodeState& d) {
  if (h.topk == 0)
    decode_dense<V, N, T>(h, d);
  else if (h.pages)
    for (int64_t i = 0; i < N; ++i) decode_pages<V, T>(h, d, i);
  else
    decode_largest<V, N, T>(h, d);
}

template <int V, class T>
static void decode_count(const DecodeHead& h, DecodeState& d) {
  if (h.count == 1)
    decode_some<V, 1, T>(h, d);
  else if (h.count == 2)
    decode_some<V, 2, T>(h, d);
  else if (h.count == 3)
    decode_some<V, 3, T>(h, d);
  else
    decode_some<V, 4, T>(h, d);
}

/// sigma (q + u), sigma (q + v) of every query.
template <class T>
static void load_queries(const DecodeHead& h, const DecodeState& d) {
  for (int64_t i = 0; i < h.count; ++i) {
    const T* q = row_of<T>(h.q, i);
    for (int64_t c = 0; c < h.padded; c += lanes) {
      vec x = c + lanes <= h.width ? load(q + c) : c < h.width ? load_part(q + c, h.width - c) : splat(0);
      store(d.qu + i * h.padded + c, (x + load(h.u + c)) * splat(h.sigma));
      store(d.qv + i * h.padded + c, (x + load(h.v + c)) * splat(h.sigma));
    }
  }
}

template <class T>
static void decode_ring(const DecodeHead& h, DecodeState& d) {
  if (h.width == 2 * lanes)
    decode_count<2, T>(h, d);
  else if (h.width == 4 * lanes)
    decode_count<4, T>(h, d);
  else if (h.width == 8 * lanes)
    decode_count<8, T>(h, d);
  else
    decode_count<0, T>(h, d);
}

static void decode(const DecodeHead& h, float* scratch) {
  DecodeState d;
  set_state(h, d, scratch);
  if (h.half)
    load_queries<half>(h, d);
  else
    load_queries<float>(h, d);
  if (h.ring == RingType::fp32)
    decode_ring<float>(h, d);
  else if (h.ring == RingType::bf16)
    decode_ring<half>(h, d);
  else
    decode_ring<int8_t>(h, d);
}

}  // namespace attention
}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(DecodeKernels, decode_kernels) = {attention::scratch_of, attention::decode};

}  // namespace longhand::cpu
