// Attention over rings, without gradients: up to four consecutive queries of one sequence share the loads of keys and
// values. A score is the sum of products over the lanes of a row, then of the lanes in a fixed tree; a softmax runs
// over columns counted from a multiple of 64; values add in the order of positions. None of this depends on how many
// queries stand side by side, so neither do the bits.
#include "src/device/cpu/kernels/attention_topk.h"

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
LONGHAND_INLINE const T* ring_row(const DecodeHead& h, HeadRows rows, int64_t position) {
  return static_cast<const T*>(rows.data) + position % h.slots * rows.stride;
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

template <int V, int N, class T>
static void group_scores(const DecodeHead& h, const DecodeState& d) {
  const T* r = static_cast<const T*>(h.r.data);
  for (int64_t at = low_of(h, 0) / lanes * lanes; at < d.end; at += lanes) {
    vec x[N][lanes];
    for (int64_t i = 0; i < lanes; ++i) {
      int64_t position = at + i;
      if (position >= d.end || position < low_of(h, 0)) {
        for (int n = 0; n < N; ++n) x[n][i] = splat(0);
        continue;
      }
      const T* key = ring_row<T>(h, h.keys, position);
      for (int n = 0; n < N; ++n) {
        int64_t distance = h.position + n - position;
        distance = least(most(distance, 0), h.distances - 1);
        vec content = row_product<V>(d.qu + n * h.padded, key, h.width, splat(0));
        x[n][i] = content + row_product<V>(d.qv + n * h.padded, r + distance * h.r.stride, h.width, splat(0));
      }
    }
    for (int n = 0; n < N; ++n) store(d.s + n * d.length + (at - d.base), sums(x[n]));
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

template <int V, int N, class T>
static void group_values(const DecodeHead& h, const DecodeState& d) {
  constexpr int W = V ? V : 1;
  for (int64_t c = 0; c < h.width; c += W * lanes) {
    vec x[N][W];
    for (int n = 0; n < N; ++n)
      for (int v = 0; v < W; ++v) x[n][v] = splat(0);
    for (int64_t position = low_of(h, 0); position < d.end; ++position) {
      const T* value = ring_row<T>(h, h.values, position) + c;
      vec y[W];
      for (int v = 0; v < W; ++v)
        y[v] = V || c + lanes <= h.width ? load(value + v * lanes) : load_part(value, h.width - c);
      for (int n = 0; n < N; ++n) {
        vec p = splat(d.s[n * d.length + (position - d.base)]);
        for (int v = 0; v < W; ++v) x[n][v] = x[n][v] + p * y[v];
      }
    }
    for (int n = 0; n < N; ++n)
      for (int v = 0; v < W; ++v) store(d.out + n * h.padded + c + v * lanes, x[n][v]);
  }
}

template <class T>
static void chosen_values(const DecodeHead& h, const DecodeState& d, int64_t i, int64_t n) {
  float* out = d.out + i * h.padded;
  for (int64_t c = 0; c < h.width; c += lanes) {
    vec x = splat(0);
    for (int64_t e = 0; e < n; ++e) {
      const T* value = ring_row<T>(h, h.values, low_of(h, i) + d.list[e]) + c;
      x = x + splat(d.p[e]) * (c + lanes <= h.width ? load(value) : load_part(value, h.width - c));
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
static void decode_some(const DecodeHead& h, DecodeState& d) {
  group_scores<V, N, T>(h, d);
  int64_t first = low_of(h, 0) / lanes * lanes - d.base, end = d.end - d.base;
  float total[N] = {};
  for (int n = 0; n < N; ++n) {
    float* s = d.s + n * d.length;
    int64_t low = low_of(h, n) - d.base, high = h.position + n - d.base;
    if (h.topk == 0) {
      total[n] = softmax(s, low, high, first, end);
      continue;
    }
    int64_t count = select_largest(s + low, high - low + 1, h.topk, d.list);
    for (int64_t e = 0; e < count; ++e) d.p[e] = score_of(s[low + d.list[e]]);
    float sum = softmax(d.p, 0, count - 1, 0, count);
    chosen_values<T>(h, d, n, count);
    finish(h, d, n, sum);
  }
  if (h.topk > 0) return;
  group_values<V, N, T>(h, d);
  for (int n = 0; n < N; ++n) finish(h, d, n, total[n]);
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

template <class T>
static void decode_type(const DecodeHead& h, DecodeState& d) {
  for (int64_t i = 0; i < h.count; ++i) {
    const T* q = static_cast<const T*>(h.q.data) + i * h.q.stride;
    for (int64_t c = 0; c < h.padded; c += lanes) {
      vec x = c + lanes <= h.width ? load(q + c) : c < h.width ? load_part(q + c, h.width - c) : splat(0);
      store(d.qu + i * h.padded + c, (x + load(h.u + c)) * splat(h.sigma));
      store(d.qv + i * h.padded + c, (x + load(h.v + c)) * splat(h.sigma));
    }
  }
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
    decode_type<half>(h, d);
  else
    decode_type<float>(h, d);
}

}  // namespace attention
}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(DecodeKernels, decode_kernels) = {attention::scratch_of, attention::decode};

}  // namespace longhand::cpu
