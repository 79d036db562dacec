#include "tests/ops/attention_reference.h"

#include <algorithm>
#include <cmath>

namespace longhand::ops {

AttentionCase::AttentionCase(const Case& c)
    : c(c),
      T(c("T")),
      M(c("M")),
      K(T + M),
      B(c("B")),
      H(c("H")),
      dh(c("dh")),
      distances(c("distances") ? c("distances") : K),
      topk(c("topk")),
      block(c("block")),
      first(c("first")),
      max_distance(c("same") - 1),
      sigma(1 / std::sqrt(static_cast<double>(dh))),
      dropout(c.dropout(RandomUse::attention_dropout)),
      q(c["q"]),
      k(c["k"]),
      value(c["value"]),
      r(c["r"]),
      u(c["u"]),
      v(c["v"]),
      starts(c["document_start"]),
      bias(c["segment_bias"]),
      embedding(c["segment_embedding"]),
      query_ids(c["query_ids"]),
      key_ids(c["key_ids"]) {}

bool AttentionCase::visible(int64_t b, int64_t i, int64_t j) const {
  int64_t d = i + M - j;
  return d >= 0 && (max_distance < 0 || d <= max_distance) && (starts.empty() || j >= starts(i, b));
}

void tiled_shapes(std::vector<Sizes>& list) {
  list.push_back({{"T", 130}, {"M", 200}, {"B", 1}, {"H", 2}, {"dh", 64}, {"packed", 2}});
  list.push_back({{"T", 130}, {"M", 0}, {"B", 2}, {"H", 1}, {"dh", 32}, {"same", 75}});
  list.push_back({{"T", 70}, {"M", 128}, {"B", 1}, {"H", 1}, {"dh", 128}, {"distances", 90}, {"dropout", 1}});
  list.push_back({{"T", 140},
                  {"M", 101},
                  {"B", 2},
                  {"H", 1},
                  {"dh", 64},
                  {"distances", 100},
                  {"same", 190},
                  {"docs", 1},
                  {"segments", 1},
                  {"dropout", 1}});
  list.push_back({{"T", 80}, {"M", 150}, {"B", 1}, {"H", 2}, {"dh", 64}, {"topk", 20}, {"dropout", 1}});
  list.push_back({{"T", 130},
                  {"M", 350},
                  {"B", 1},
                  {"H", 1},
                  {"dh", 64},
                  {"topk", 192},
                  {"block", 1},
                  {"first", 37},
                  {"distances", 300},
                  {"dropout", 1},
                  {"segments", 1}});
}

void wide_shapes(std::vector<Sizes>& list) {
  for (int64_t topk : {0, 5})
    list.push_back(
        {{"T", 4}, {"M", 66}, {"B", 1}, {"H", 1}, {"dh", 128}, {"topk", topk}, {"dropout", 1}, {"segments", 1}});
  list.push_back({{"T", 4}, {"M", 66}, {"B", 1}, {"H", 1}, {"dh", 100}});
}

void attention_inputs(Case& c, Random& random) {
  AttentionCase a(c);
  double stretch = c("sharp") ? 25 : 1;
  auto normal = [&] { return random.normal(); };
  auto half = [&] { return random.normal() / 2; };
  auto pack = [&](Array& x) {
    x.row_axes = 2, x.padding = c("packed") ? 2 * a.H * a.dh + (c("packed") == 1 ? 3 : 0) : 0;
  };
  pack(c.input("q", {a.T, a.B, a.H, a.dh}, [&] { return stretch * random.normal(); }));
  pack(c.input("k", {a.K, a.B, a.H, a.dh}, normal));
  pack(c.input("value", {a.K, a.B, a.H, a.dh}, normal));
  c.input("r", {a.distances, a.H, a.dh}, normal);
  c.input("u", {a.H, a.dh}, half);
  c.input("v", {a.H, a.dh}, half);
  if (c("docs")) {
    Array& starts = c.input(
        "document_start", {a.T, a.B}, [] { return 0; }, Dtype::i32);
    for (int64_t b = 0; b < a.B; ++b)
      for (int64_t j = 0, start = 0; j < a.K; ++j) {
        if (random.uniform() < 0.15) start = j;
        if (j >= a.M) starts(j - a.M, b) = static_cast<double>(start);
      }
  }
  if (c("segments")) {
    c.input("segment_bias", {a.H, a.dh}, half);
    c.input("segment_embedding", {2, a.H, a.dh}, normal);
    Array& keys = c.input(
        "key_ids", {a.K, a.B}, [&] { return random.below(3); }, Dtype::u8);
    Array& queries = c.input(
        "query_ids", {a.T, a.B}, [] { return 0; }, Dtype::u8);
    for (int64_t i = 0; i < a.T; ++i)
      for (int64_t b = 0; b < a.B; ++b) queries(i, b) = keys(i + a.M, b);
  }
  if (c("ties"))  // halves: every order of summation gives the same score
    for (const char* name : {"q", "k", "r", "u", "v"})
      for (double& x : c.at(name).value) x = std::round(2 * x) / 2;
  if (c("ties") == 1)  // equal keys, equal r
    for (const char* name : {"k", "r"}) {
      Array& x = c.at(name);
      int64_t row = x.elements() / x.size(0);
      for (int64_t e = row; e < x.elements(); ++e) x.value[e] = x.value[e % row];
    }
  if (c("ties") == 2)  // q + u = q + v = 0
    for (int64_t e = 0; e < c.at("q").elements(); ++e) {
      int64_t of = e % (a.H * a.dh);
      c.at("v").value[of] = c.at("u").value[of];
      c.at("q").value[e] = -c.at("u").value[of];
    }
}

Array attention_scores(const AttentionCase& a, const Fp64& f) {
  Array scores;
  scores.shape = {a.B, a.H, a.T, a.K};
  scores.value.assign(scores.elements(), -INFINITY);
  std::vector<double> content(a.dh), position(a.dh);
  for (int64_t b = 0; b < a.B; ++b)
    for (int64_t h = 0; h < a.H; ++h)
      for (int64_t i = 0; i < a.T; ++i) {
        double segment[2] = {};
        for (int64_t x = 0; x < a.dh; ++x) {
          content[x] = f.store(a.q(i, b, h, x) + a.u(h, x));
          position[x] = f.store(a.q(i, b, h, x) + a.v(h, x));
          for (int64_t e = 0; e < 2 && !a.bias.empty(); ++e)
            segment[e] += f.store(a.q(i, b, h, x) + a.bias(h, x)) * a.embedding(e, h, x);
        }
        for (int64_t j = 0; j < a.K; ++j) {
          if (!a.visible(b, i, j)) continue;
          const double *key = &a.k.value[((j * a.B + b) * a.H + h) * a.dh],
                       *r = &a.r.value[(a.distance(i, j) * a.H + h) * a.dh];
          double by_content = 0, by_position = 0;
          for (int64_t x = 0; x < a.dh; ++x) by_content += content[x] * key[x], by_position += position[x] * r[x];
          double score = f.store(by_content) + f.store(by_position);
          if (!a.bias.empty()) score += f.store(segment[a.segment(b, i, j)]);
          scores(b, h, i, j) = f.store(score * a.sigma);
        }
      }
  return scores;
}

Array attention_kept(const AttentionCase& a, const Array& mask) {
  Array kept;
  kept.shape = {a.B, a.H, a.T, a.K};
  kept.value.assign(kept.elements(), 0);
  for (int64_t b = 0; b < a.B; ++b)
    for (int64_t h = 0; h < a.H; ++h)
      for (int64_t i = 0; i < a.T; ++i)
        for (int64_t j = 0; j < a.K; ++j) {
          bool selected = !a.topk || (a.block ? mask.bit(a.page(j), b, h, i / 64) : mask.bit(j, b, h, i));
          kept(b, h, i, j) = selected && a.visible(b, i, j);
        }
  return kept;
}

Array page_bounds(const AttentionCase& a) {
  Array bounds;
  bounds.shape = {a.B, a.H, (a.T + 63) / 64, a.pages()};
  bounds.value.assign(bounds.elements(), -INFINITY);
  // The largest and smallest entries of channel x over rows [begin, end) of an array whose rows are `step` apart.
  auto best = [](const Array& rows, int64_t begin, int64_t end, int64_t step, int64_t at, double factor) {
    double low = INFINITY, high = -INFINITY;
    for (int64_t row = begin; row < end; ++row) {
      low = std::min(low, rows.value[row * step + at]);
      high = std::max(high, rows.value[row * step + at]);
    }
    return std::max(factor * low, factor * high);
  };
  for (int64_t b = 0; b < a.B; ++b)
    for (int64_t h = 0; h < a.H; ++h)
      for (int64_t i = 0; i < a.T; ++i)
        for (int64_t p = 0, begin = 0, end; p < a.pages(); ++p, begin = end) {
          for (end = begin; end < a.K && a.page(end) == p;) ++end;
          int64_t far = -1, near = -1;  // distances of the visible keys
          for (int64_t j = begin; j < end; ++j)
            if (a.visible(b, i, j)) near = i + a.M - j, far = far < 0 ? near : far;
          if (far < 0) continue;
          double content = 0, segment[2] = {}, position = -INFINITY;
          for (int64_t x = 0; x < a.dh; ++x) {
            double q = a.q(i, b, h, x);
            content += best(a.k, begin, end, a.B * a.H * a.dh, (b * a.H + h) * a.dh + x, q + a.u(h, x));
            for (int64_t e = 0; e < 2 && !a.bias.empty(); ++e) segment[e] += (q + a.bias(h, x)) * a.embedding(e, h, x);
          }
          for (int64_t group = near / 64; group <= far / 64; ++group) {  // of 64 distances, before they are clamped
            double sum = 0;
            for (int64_t x = 0; x < a.dh; ++x)
              sum += best(a.r, std::min(group * 64, a.distances - 1), std::min(group * 64 + 64, a.distances),
                          a.H * a.dh, h * a.dh + x, a.q(i, b, h, x) + a.v(h, x));
            position = std::max(position, sum);
          }
          double& bound = bounds(b, h, i / 64, p);
          bound = std::max(bound, (content + position + std::max(segment[0], segment[1])) * a.sigma);
        }
  return bounds;
}

Array attention_select(const AttentionCase& a, const Array& scores) {
  Array mask, bounds = a.block ? page_bounds(a) : Array{};
  mask.shape = a.mask_shape(), mask.type = Dtype::u64;
  mask.words.assign(mask.elements(), 0);
  int64_t rows = a.block ? mask.size(2) : a.T, columns = a.block ? a.pages() : a.K;
  const Array& values = a.block ? bounds : scores;
  for (int64_t b = 0; b < a.B; ++b)
    for (int64_t h = 0; h < a.H; ++h)
      for (int64_t row = 0; row < rows; ++row) {
        std::vector<int64_t> order;
        for (int64_t j = columns; j-- > 0;)  // nearer first; the sort is stable
          if (values(b, h, row, j) > -INFINITY) order.push_back(j);
        int64_t own = a.block ? a.page(std::min(row * 64 + 63, a.T - 1) + a.M) : -2;
        auto rank = [&](int64_t j) { return j == own || j == own - 1 ? INFINITY : values(b, h, row, j); };
        std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) { return rank(x) > rank(y); });
        size_t count = static_cast<size_t>(a.block ? std::max<int64_t>((a.topk + 63) / 64, 2) : a.topk);
        for (size_t n = 0; n < std::min(count, order.size()); ++n) mask.set_bit(order[n], b, h, row);
      }
  return mask;
}

void attention_reference(const AttentionCase& a, const Array& scores, const Array& kept, const Fp64& f, Array& out,
                         Array& lse) {
  std::vector<double> sum(a.dh);
  for (int64_t b = 0; b < a.B; ++b)
    for (int64_t h = 0; h < a.H; ++h)
      for (int64_t i = 0; i < a.T; ++i) {
        double largest = -INFINITY, total = 0;
        for (int64_t j = 0; j < a.K; ++j)
          if (kept(b, h, i, j) != 0) largest = std::max(largest, scores(b, h, i, j));
        for (int64_t j = 0; j < a.K; ++j)
          if (kept(b, h, i, j) != 0) total += std::exp(scores(b, h, i, j) - largest);
        lse(b, h, i) = largest + std::log(total);
        sum.assign(a.dh, 0);
        for (int64_t j = 0; j < a.K; ++j) {
          if (kept(b, h, i, j) == 0) continue;
          double p = f.store(f.store(std::exp(scores(b, h, i, j) - largest) / total) * a.dropped(b, h, i, j));
          for (int64_t x = 0; x < a.dh; ++x) sum[x] += p * a.value(j, b, h, x);
        }
        for (int64_t x = 0; x < a.dh; ++x) out(i, b, h, x) = sum[x];
      }
}

double attention_pairs(const Sizes& s) {
  double pairs = 0;
  for (int64_t i = 0; i < s["T"]; ++i) {
    int64_t keys = i + s["M"] + 1;
    if (s["same"]) keys = std::min(keys, s["same"]);
    pairs += static_cast<double>(keys);
  }
  return pairs * static_cast<double>(s["B"] * s["H"]);
}

}  // namespace longhand::ops
