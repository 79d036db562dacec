#include "src/device/cpu/kernels/attention_topk.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

LONGHAND_INLINE ivec load_int(const float* p) { return (ivec)load(p); }
LONGHAND_INLINE int64_t total(ivec x) {
  int64_t n = 0;
  for (int i = 0; i < lanes; ++i) n += x[i];
  return n;
}
/// Bit i: lane i of a comparison's result is set.
LONGHAND_INLINE uint64_t bits_of(ivec mask) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask));
#else
  return static_cast<uint32_t>(_mm_movemask_ps((__m128)mask));
#endif
}

// A step function's bracket: count(low) >= keep > count(high), where count(x) is how many entries are >= x.
struct Bracket {
  int64_t low, high, at_low, at_high;
};

static int64_t count_from(const float* keys, int64_t n, int64_t pivot) {
  ivec p = splat_int(static_cast<int32_t>(pivot)), a{}, b{};
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) a -= load_int(keys + i) >= p, b -= load_int(keys + i + lanes) >= p;
  for (; i < n; i += lanes) a -= load_int(keys + i) >= p;
  return total(a + b);
}

static float as_score(int64_t key) {
  int32_t bits = static_cast<int32_t>(key);
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return score_of(x);
}
static int64_t as_key(float score) {
  int32_t x;
  __builtin_memcpy(&x, &score, 4);
  return x ^ ((x >> 31) & 0x7fffffff);
}

struct RowMoments {
  float mean, deviation;
  int64_t largest;
};

// Turns scores into integers of the same order, in place, and fills up to the next whole vector.
static RowMoments order(float* scores, int64_t n) {
  vec total = splat(0), squares = splat(0);
  ivec top = splat_int(INT32_MIN);
  for (int64_t i = 0; i < n; i += lanes) {
    vec x = load(scores + i) + splat(0);
    ivec valid = inside(i, 0, n - 1);
    vec y = select(valid, x, splat(0));
    total = total + y, squares = squares + y * y;
    ivec key = (ivec)x ^ (((ivec)x >> 31) & 0x7fffffff);
    key = (key & valid) | (~valid & splat_int(INT32_MIN));
    top = key > top ? key : top;
    store(scores + i, (vec)key);
  }
  int64_t largest = INT32_MIN;
  for (int i = 0; i < lanes; ++i) largest = most(largest, top[i]);
  float mean = sum(total) / static_cast<float>(n), variance = sum(squares) / static_cast<float>(n) - mean * mean;
  return {mean, variance > 0 ? __builtin_sqrtf(variance) : 0.0f, largest};
}

// The quantile of a normal distribution above which a share p <= 1/2 lies (Abramowitz & Stegun 26.2.23).
static float normal_quantile(float p) {
  bool flip = p > 0.5f;
  float t = __builtin_sqrtf(-2.0f * __builtin_logf(flip ? 1.0f - p : p));
  float z =
      t - (2.515517f + t * (0.802853f + t * 0.010328f)) / (1.0f + t * (1.432788f + t * (0.189269f + t * 0.001308f)));
  return flip ? -z : z;
}

// Finds the threshold by counting: a normal guess, then interpolation, with halving of the integers as the way out.
static Bracket find_threshold(const float* keys, int64_t n, int64_t keep, const RowMoments& m) {
  Bracket b{INT32_MIN, m.largest + 1, n, 0};
  float share = (static_cast<float>(keep) + 0.5f) / static_cast<float>(n + 1);
  float step = 0.1f * m.deviation;
  bool low_known = false, high_known = false;
  float guess = m.mean + m.deviation * normal_quantile(share);
  for (int round = 0; b.at_low > keep && b.high - b.low > 1; ++round) {
    int64_t middle = b.low + (b.high - b.low) / 2, pivot = middle;
    if (round > 0) {
      if (low_known && high_known) {
        float low = as_score(b.low), high = as_score(b.high);
        guess = low + (high - low) * ((static_cast<float>(b.at_low - keep) + 0.5f) /
                                      (static_cast<float>(b.at_low - b.at_high) + 1.0f));
      } else {
        guess = low_known ? as_score(b.low) + step : as_score(b.high) - step;
        step *= 3;
      }
    }
    if (round < 12 || round % 2 == 0) {
      int64_t wanted = as_key(guess + 0.0f);
      if (wanted > b.low && wanted < b.high) pivot = wanted;
    }
    int64_t count = count_from(keys, n, pivot);
    if (count >= keep)
      b.low = pivot, b.at_low = count, low_known = true;
    else
      b.high = pivot, b.at_high = count, high_known = true;
  }
  return b;
}

// Lists the entries >= threshold, without the first `excess` of those that equal it.
static int64_t list_from(const float* keys, int64_t n, int64_t threshold, int64_t excess, int32_t* list) {
  ivec p = splat_int(static_cast<int32_t>(threshold));
  int64_t found = 0;
  for (int64_t i = 0; i < n; i += lanes) {
    ivec x = load_int(keys + i);
    uint64_t bits = bits_of(x >= p);
    if (i + lanes > n) bits &= (uint64_t{1} << (n - i)) - 1;
    if (excess > 0)
      for (uint64_t equal = bits & bits_of(x == p); equal && excess > 0; equal &= equal - 1, --excess)
        bits &= ~(equal & -equal);
    for (; bits; bits &= bits - 1) list[found++] = static_cast<int32_t>(i + __builtin_ctzll(bits));
  }
  return found;
}

int64_t select_largest(float* scores, int64_t n, int64_t keep, int32_t* list) {
  RowMoments m = order(scores, n);
  if (keep >= n) {
    for (int64_t i = 0; i < n; ++i) list[i] = static_cast<int32_t>(i);
    return n;
  }
  Bracket b = find_threshold(scores, n, keep, m);
  return list_from(scores, n, b.low, b.at_low - keep, list);
}

template <int V>
static void weighted_columns(float* out, const float* weight, const int32_t* list, int64_t n, const float* rows,
                             int64_t padded) {
  vec x[V], y[V];
  for (int v = 0; v < V; ++v) x[v] = y[v] = splat(0);
  int64_t t = 0;
  for (; t + 2 <= n; t += 2) {
    const float *a = rows + list[t] * padded, *b = rows + list[t + 1] * padded;
    for (int v = 0; v < V; ++v) {
      x[v] = x[v] + splat(weight[t]) * load(a + v * lanes);
      y[v] = y[v] + splat(weight[t + 1]) * load(b + v * lanes);
    }
  }
  if (t < n)
    for (int v = 0; v < V; ++v) x[v] = x[v] + splat(weight[t]) * load(rows + list[t] * padded + v * lanes);
  for (int v = 0; v < V; ++v) store(out + v * lanes, x[v] + y[v]);
}

void weighted_rows(float* out, const float* weight, const int32_t* list, int64_t n, const float* rows, int64_t padded) {
  int64_t c = 0;
  for (; c + 4 * lanes <= padded; c += 4 * lanes) weighted_columns<4>(out + c, weight, list, n, rows + c, padded);
  for (; c < padded; c += lanes) weighted_columns<1>(out + c, weight, list, n, rows + c, padded);
}

// V > 0: rows of V vectors, known when compiled; 0: any.
template <int V>
static void products(const SparseRow& s) {
  const int64_t width = V ? V * lanes : s.padded;
  for (int64_t t = 0; t < s.n; t += lanes) {
    vec a[lanes], b[lanes];
    int64_t n = least(lanes, s.n - t);
    for (int64_t i = n; i < lanes; ++i) a[i] = b[i] = splat(0);
    for (int64_t i = 0; i < n; ++i) {
      int64_t row = s.list[t + i];
      const float *k = s.key_rows + row * width, *r = s.r + (s.distance - row) * width;
      const float* value = s.value_rows + row * width;
      vec x = splat(0), y = splat(0), z = splat(0);
      for (int64_t c = 0; c < width; c += lanes) {
        x = x + load(s.qu + c) * load(k + c);
        y = y + load(s.qv + c) * load(r + c);
        z = z + load(s.d_out + c) * load(value + c);
      }
      a[i] = x + y, b[i] = z;
    }
    store(s.s + t, sums(a)), store(s.dp + t, sums(b));
  }
}

template <int V>
static void gradients(const SparseRow& s) {
  const int64_t width = V ? V * lanes : s.padded, at_once = V ? V : 1;
  for (int64_t c = 0; c < width; c += at_once * lanes) {
    constexpr int W = V ? V : 1;
    vec content[W], position[W], qu[W], qv[W], d_out[W];
    for (int v = 0; v < W; ++v) {
      content[v] = load(s.dq_content + c + v * lanes), position[v] = load(s.dq_position + c + v * lanes);
      qu[v] = load(s.qu + c + v * lanes), qv[v] = load(s.qv + c + v * lanes), d_out[v] = load(s.d_out + c + v * lanes);
    }
    for (int64_t t = 0; t < s.n; ++t) {
      int64_t key = s.list[t] * width + c, distance = (s.distance - s.list[t]) * width + c;
      vec ds = splat(s.s[t]), p = splat(s.dp[t]);
      for (int v = 0; v < W; ++v) {
        int64_t o = v * lanes;
        content[v] = content[v] + ds * load(s.key_rows + key + o);
        position[v] = position[v] + ds * load(s.r + distance + o);
        store(s.d_k + key + o, load(s.d_k + key + o) + ds * qu[v]);
        store(s.d_r + distance + o, load(s.d_r + distance + o) + ds * qv[v]);
        store(s.d_value + key + o, load(s.d_value + key + o) + p * d_out[v]);
      }
    }
    for (int v = 0; v < W; ++v)
      store(s.dq_content + c + v * lanes, content[v]), store(s.dq_position + c + v * lanes, position[v]);
  }
}

template <class Run>
static void with_width(int64_t padded, Run run) {
  int64_t vectors = padded / lanes;
  if (vectors == 1)
    run(Count<1>{});
  else if (vectors == 2)
    run(Count<2>{});
  else if (vectors == 4)
    run(Count<4>{});
  else
    run(Count<0>{});
}

void sparse_products(const SparseRow& s) {
  with_width(s.padded, [&](auto v) { products<decltype(v)::value>(s); });
}
void sparse_gradients(const SparseRow& s) {
  with_width(s.padded, [&](auto v) { gradients<decltype(v)::value>(s); });
}

}  // namespace attention
}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
