// The gradients of relative attention; the selection, the dropout mask, out and lse are given.
#include <algorithm>
#include <cmath>

#include "tests/ops/attention_reference.h"

namespace longhand::ops {
namespace {

/// dA [B, H, T, K] = sigma P (dP - delta), and P Z, the probabilities after dropout.
struct ScoreGradients {
  Array d_score, dropped;
  double noise = 0;  // the norm of sigma P (|dP| + |delta|), whose rounding stays where dA cancels
};

ScoreGradients score_gradients(const AttentionCase& a, const Fp64& f) {
  const Array &d_out = a.c["d_out"], &out = a.c["out"], &lse = a.c["lse"];
  Array scores = attention_scores(a, f), kept = attention_kept(a, a.c["selected"]);
  ScoreGradients g{kept, kept};
  for (int64_t b = 0; b < a.B; ++b)
    for (int64_t h = 0; h < a.H; ++h)
      for (int64_t i = 0; i < a.T; ++i) {
        double delta = 0;
        for (int64_t x = 0; x < a.dh; ++x) delta += d_out(i, b, h, x) * out(i, b, h, x);
        for (int64_t j = 0; j < a.K; ++j) {
          if (kept(b, h, i, j) == 0) continue;
          double p = f.store(std::exp(scores(b, h, i, j) - lse(b, h, i))), z = a.dropped(b, h, i, j), d_p = 0;
          for (int64_t x = 0; x < a.dh; ++x) d_p += d_out(i, b, h, x) * a.value(j, b, h, x);
          d_p = f.store(d_p) * z;
          g.dropped(b, h, i, j) = f.store(p * z);
          g.d_score(b, h, i, j) = f.store(a.sigma * p * (d_p - delta));
          g.noise = std::hypot(g.noise, a.sigma * p * (std::abs(d_p) + std::abs(delta)));
        }
      }
  return g;
}

struct AttentionBackwardRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t dh : {1, 7, 33, 64, 128}) list.push_back({{"T", 13}, {"M", 21}, {"B", 2}, {"H", 3}, {"dh", dh}});
    for (int64_t topk : {0, 5}) {
      list.push_back({{"T", 1}, {"M", 0}, {"B", 1}, {"H", 1}, {"dh", 16}, {"topk", topk}});
      list.push_back({{"T", 1}, {"M", 37}, {"B", 3}, {"H", 2}, {"dh", 32}, {"topk", topk}});
      list.push_back({{"T", 29}, {"M", 0}, {"B", 2}, {"H", 2}, {"dh", 20}, {"topk", topk}});
      list.push_back({{"T", 70}, {"M", 67}, {"B", 1}, {"H", 2}, {"dh", 64}, {"topk", 9 * topk}, {"packed", 1}});
      for (const char* extra : {"docs", "segments", "dropout", "packed", "r32"})
        list.push_back({{"T", 17}, {"M", 14}, {"B", 2}, {"H", 2}, {"dh", 24}, {"topk", topk}, {extra, 1}});
      list.push_back({{"T", 17}, {"M", 14}, {"B", 2}, {"H", 2}, {"dh", 24}, {"topk", topk}, {"same", 9}});
      list.push_back({{"T", 17}, {"M", 14}, {"B", 1}, {"H", 2}, {"dh", 24}, {"topk", topk}, {"same", 1}});
      list.push_back({{"T", 17}, {"M", 14}, {"B", 2}, {"H", 2}, {"dh", 24}, {"topk", topk}, {"distances", 10}});
      list.push_back({{"T", 17}, {"M", 14}, {"B", 2}, {"H", 1}, {"dh", 64}, {"topk", topk}, {"distances", 1}});
      list.push_back({{"T", 40},
                      {"M", 100},
                      {"B", 2},
                      {"H", 2},
                      {"dh", 33},
                      {"topk", 6 * topk},
                      {"distances", 90},
                      {"same", 120},
                      {"docs", 1},
                      {"segments", 1},
                      {"dropout", 1},
                      {"packed", 1},
                      {"r32", 1}});
    }
    list.push_back({{"T", 20}, {"M", 45}, {"B", 1}, {"H", 2}, {"dh", 16}, {"topk", 1}});
    list.push_back({{"T", 20}, {"M", 45}, {"B", 1}, {"H", 2}, {"dh", 16}, {"topk", 1000}});
    list.push_back({{"T", 90}, {"M", 210}, {"B", 1}, {"H", 2}, {"dh", 16}, {"topk", 40}});
    list.push_back({{"T", 150}, {"M", 170}, {"B", 2}, {"H", 2}, {"dh", 16}, {"topk", 128}, {"block", 1}});
    for (int64_t first : {0, 17, 1000})
      list.push_back({{"T", 70},
                      {"M", 350},
                      {"B", 1},
                      {"H", 2},
                      {"dh", 33},
                      {"topk", 192},
                      {"block", 1},
                      {"first", first},
                      {"distances", first == 0 ? 100 : 0},
                      {"dropout", first == 17}});
    list.push_back({{"T", 100},
                    {"M", 300},
                    {"B", 2},
                    {"H", 1},
                    {"dh", 24},
                    {"topk", 192},
                    {"block", 1},
                    {"first", 5},
                    {"same", 301},
                    {"docs", 1},
                    {"segments", 1}});
    tiled_shapes(list);
    for (int64_t topk : {0, 5})
      list.push_back({{"T", 9}, {"M", 70}, {"B", 1}, {"H", 2}, {"dh", 200}, {"topk", topk}, {"segments", 1}});
    wide_shapes(list);
    return list;
  }
  double limit() const override { return 1e-4; }

  void inputs(Case& c, Random& random) const override {
    attention_inputs(c, random);
    AttentionCase a(c);
    auto normal = [&] { return random.normal(); };
    auto zero = [] { return 0; };
    auto pack = [&](Array& x) {
      x.row_axes = 2, x.padding = c("packed") ? 2 * a.H * a.dh + (c("packed") == 1 ? 1 : 0) : 0;
    };
    pack(c.input("d_out", a.q.shape, normal));
    pack(c.output("d_q", a.q.shape));
    pack(c.output("d_k", a.k.shape));
    pack(c.output("d_value", a.k.shape));
    c.output("d_r", a.r.shape, c("r32") ? Dtype::fp32 : c.type);
    c.update("d_u", a.u.shape, normal);
    c.update("d_v", a.u.shape, normal);
    if (c("segments")) {
      c.update("d_segment_bias", a.u.shape, normal);
      c.update("d_segment_embedding", a.embedding.shape, normal);
    }
    Array& out = c.input("out", a.q.shape, zero);
    Array& lse = c.input("lse", {a.B, a.H, a.T}, zero, Dtype::fp32);
    if (a.topk) c.input("selected", a.mask_shape(), zero, Dtype::u64);
    if (c.timing) return;
    Fp64 exact(c, false, nullptr);
    Array scores = attention_scores(a, exact);
    if (a.topk) c.at("selected").words = attention_select(a, scores).words;
    attention_reference(a, scores, attention_kept(a, c["selected"]), exact, out, lse);
    out.round(), lse.round();
  }

  void derive(Device& device, const Case& c, Bound& d) const override {
    AttentionForward forward;
    forward.out = d["out"], forward.lse = d["lse"], forward.selected = d["selected"];
    fill_attention(forward, AttentionCase(c), d);
    device.attention_forward(forward);
  }

  void reference(const Case& c, Fp64& f) const override {
    AttentionCase a(c);
    ScoreGradients g = score_gradients(a, f);
    Array &d_k = f.at("d_k"), &d_value = f.at("d_value"), &d_r = f.at("d_r");
    for (int64_t b = 0; b < a.B; ++b)
      for (int64_t h = 0; h < a.H; ++h)
        for (int64_t i = 0; i < a.T; ++i) {
          query_gradients(a, g, f, b, h, i);
          for (int64_t j = 0; j < a.K; ++j) {
            double d_a = g.d_score(b, h, i, j), p = g.dropped(b, h, i, j);
            if (d_a == 0 && p == 0) continue;
            for (int64_t x = 0; x < a.dh; ++x) {
              double q = a.q(i, b, h, x);
              d_value(j, b, h, x) += p * c["d_out"](i, b, h, x);
              d_k(j, b, h, x) += d_a * f.store(q + a.u(h, x));
              d_r(a.distance(i, j), h, x) += d_a * f.store(q + a.v(h, x));
            }
          }
        }
    for (auto& [name, array] : f.all)
      if (name != "d_value") f.scale(name, g.noise * std::sqrt(static_cast<double>(a.dh)));
  }

  /// The parts of one query's gradient and what they add to the biases.
  static void query_gradients(const AttentionCase& a, const ScoreGradients& g, Fp64& f, int64_t b, int64_t h,
                              int64_t i) {
    for (int64_t x = 0; x < a.dh; ++x) {
      double by_content = 0, by_position = 0, by_segment = 0;
      for (int64_t j = 0; j < a.K; ++j) {
        double d_a = g.d_score(b, h, i, j);
        if (d_a == 0) continue;
        by_content += d_a * a.k(j, b, h, x);
        by_position += d_a * a.r(a.distance(i, j), h, x);
        if (a.bias.empty()) continue;
        int64_t e = a.segment(b, i, j);
        by_segment += d_a * a.embedding(e, h, x);
        f.at("d_segment_embedding")(e, h, x) += d_a * f.store(a.q(i, b, h, x) + a.bias(h, x));
      }
      by_content = f.store(by_content), by_position = f.store(by_position), by_segment = f.store(by_segment);
      f.at("d_q")(i, b, h, x) = by_content + by_position + by_segment;
      f.at("d_u")(h, x) += by_content;
      f.at("d_v")(h, x) += by_position;
      if (!a.bias.empty()) f.at("d_segment_bias")(h, x) += by_segment;
    }
  }

  std::vector<Gradient> gradients(const Case& c) const override {
    std::vector<Gradient> list = {{"q", "d_q"}, {"k", "d_k"}, {"value", "d_value"},
                                  {"r", "d_r"}, {"u", "d_u"}, {"v", "d_v"}};
    if (c("segments")) {
      list.push_back({"segment_bias", "d_segment_bias"});
      list.push_back({"segment_embedding", "d_segment_embedding"});
    }
    return list;
  }
  double objective(const Case& c) const override {
    AttentionCase a(c);
    Array out = c["out"], lse = c["lse"];
    Fp64 exact(c, false, nullptr);
    attention_reference(a, attention_scores(a, exact), attention_kept(a, c["selected"]), exact, out, lse);
    double total = 0;
    for (int64_t e = 0; e < out.elements(); ++e) total += out.value[e] * c["d_out"].value[e];
    return total;
  }

  void run(Device& device, const Case& c, Bound& d) const override {
    AttentionBackward backward;
    backward.d_q = d["d_q"], backward.d_k = d["d_k"], backward.d_value = d["d_value"], backward.d_r = d["d_r"];
    backward.d_u = d["d_u"], backward.d_v = d["d_v"];
    backward.d_segment_bias = d["d_segment_bias"], backward.d_segment_embedding = d["d_segment_embedding"];
    backward.d_out = d["d_out"], backward.out = d["out"], backward.lse = d["lse"], backward.selected = d["selected"];
    fill_attention(backward, AttentionCase(c), d);
    device.attention_backward(backward);
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double rows = s["T"] * s["B"] * s["H"], keys = (s["T"] + s["M"]) * s["B"] * s["H"], pairs = attention_pairs(s);
    double kept = s["topk"] ? std::min<double>(pairs, rows * s["topk"]) : pairs;
    return {(4 * rows + 4 * keys) * s["dh"] * dtype_bytes(type), 16 * kept * s["dh"]};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"T", 256}, {"M", 0}, {"B", 4}, {"H", 12}, {"dh", 64}},
            {{"T", 512}, {"M", 512}, {"B", 1}, {"H", 12}, {"dh", 64}},
            {{"T", 2048}, {"M", 2048}, {"B", 1}, {"H", 2}, {"dh", 64}},
            {{"T", 2048}, {"M", 2048}, {"B", 1}, {"H", 2}, {"dh", 64}, {"topk", 256}},
            {{"T", 2048}, {"M", 2048}, {"B", 1}, {"H", 2}, {"dh", 64}, {"topk", 256}, {"block", 1}}};
  }
};

}  // namespace

std::unique_ptr<Operation> attention_backward_row() { return std::make_unique<AttentionBackwardRow>(); }

}  // namespace longhand::ops
