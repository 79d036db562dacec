// out = dropout(softmax(a)) value over the visible and selected keys, a the relative scores.
#include <algorithm>
#include <cmath>

#include "tests/ops/attention_reference.h"

namespace longhand::ops {
namespace {

struct AttentionForwardRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t dh : {1, 7, 33, 64, 128}) list.push_back({{"T", 13}, {"M", 21}, {"B", 2}, {"H", 3}, {"dh", dh}});
    for (int64_t topk : {0, 5}) {
      list.push_back({{"T", 1}, {"M", 0}, {"B", 1}, {"H", 1}, {"dh", 16}, {"topk", topk}});
      list.push_back({{"T", 1}, {"M", 37}, {"B", 3}, {"H", 2}, {"dh", 32}, {"topk", topk}});
      list.push_back({{"T", 29}, {"M", 0}, {"B", 2}, {"H", 2}, {"dh", 20}, {"topk", topk}});
      list.push_back({{"T", 70}, {"M", 67}, {"B", 1}, {"H", 2}, {"dh", 64}, {"topk", 9 * topk}, {"packed", 1}});
      for (const char* extra : {"docs", "segments", "dropout", "packed"})
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
                      {"packed", 1}});
      list.push_back({{"T", 20}, {"M", 45}, {"B", 1}, {"H", 2}, {"dh", 64}, {"topk", topk}, {"sharp", 1}});
    }
    list.push_back({{"T", 20}, {"M", 45}, {"B", 1}, {"H", 2}, {"dh", 16}, {"topk", 1}});
    list.push_back({{"T", 20}, {"M", 45}, {"B", 1}, {"H", 2}, {"dh", 16}, {"topk", 64}});
    list.push_back({{"T", 20}, {"M", 45}, {"B", 1}, {"H", 2}, {"dh", 16}, {"topk", 1000}});
    for (int64_t ties : {1, 2})
      list.push_back({{"T", 30}, {"M", 101}, {"B", 1}, {"H", 2}, {"dh", 19}, {"topk", 12}, {"ties", ties}});
    list.push_back({{"T", 90}, {"M", 210}, {"B", 1}, {"H", 2}, {"dh", 16}, {"topk", 40}});
    for (int64_t topk : {64, 128, 200, 10000})
      list.push_back({{"T", 150}, {"M", 170}, {"B", 2}, {"H", 2}, {"dh", 16}, {"topk", topk}, {"block", 1}});
    for (int64_t first : {0, 17, 64, 1000})
      list.push_back({{"T", 70},
                      {"M", 350},
                      {"B", 1},
                      {"H", 2},
                      {"dh", 33},
                      {"topk", 192},
                      {"block", 1},
                      {"first", first},
                      {"distances", first == 64 ? 100 : 0},
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
    for (int64_t topk : {0, 5})
      list.push_back({{"T", 9}, {"M", 70}, {"B", 1}, {"H", 2}, {"dh", 200}, {"topk", topk}, {"segments", 1}});
    list.push_back({{"T", 1}, {"M", 0}, {"B", 3}, {"H", 4}, {"dh", 8}, {"topk", 64}, {"block", 1}});
    tiled_shapes(list);
    wide_shapes(list);
    return list;
  }

  void inputs(Case& c, Random& random) const override {
    attention_inputs(c, random);
    AttentionCase a(c);
    c.output("out", a.q.shape).row_axes = 2;
    c.at("out").padding = c("packed") == 1 ? 5 : 0;
    c.output("lse", {a.B, a.H, a.T}, Dtype::fp32);
    if (a.topk) c.output("selected", a.mask_shape(), Dtype::u64);
  }

  void reference(const Case& c, Fp64& f) const override {
    AttentionCase a(c);
    Array scores = attention_scores(a, f);
    const Array& given = f.device("selected");
    Array kept = attention_kept(a, given.empty() && a.topk ? attention_select(a, scores) : given);
    attention_reference(a, scores, kept, f, f.at("out"), f.at("lse"));
    if (!c("sharp")) return;
    double norm = 0;  // scores of 100 carry 25 times the rounding of scores of 4
    for (double x : f["out"].value) norm += x * x;
    f.scale("out", 25 * std::sqrt(norm));
  }

  void run(Device& device, const Case& c, Bound& d) const override {
    AttentionForward forward;
    forward.out = d["out"], forward.lse = d["lse"], forward.selected = d["selected"];
    fill_attention(forward, AttentionCase(c), d);
    device.attention_forward(forward);
  }

  bool comparable(const Case& c) const override { return !c("topk"); }

  void check(const Case& c, const Arrays& result, const Fp64&, const Complaint& complain) const override {
    AttentionCase a(c);
    if (!a.topk) return;
    const Array& mask = result["selected"];
    Array values = a.block ? page_bounds(a) : attention_scores(a, Fp64(c, false, nullptr));
    Array kept = values;
    for (int64_t b = 0; b < a.B; ++b)
      for (int64_t h = 0; h < a.H; ++h)
        for (int64_t row = 0; row < values.size(2); ++row)
          for (int64_t j = 0; j < values.size(3); ++j) kept(b, h, row, j) = mask.bit(j, b, h, row);
    check_count(a, mask, values, kept, complain);
    check_order(a, values, kept, complain);
    if (c("ties")) check_ties(a, kept, complain);
  }

  /// Exactly as many bits as there are keys to keep, none of them at a key or page that nobody sees.
  static void check_count(const AttentionCase& a, const Array& mask, const Array& values, const Array& kept,
                          const Complaint& complain) {
    int64_t budget = a.block ? std::max<int64_t>((a.topk + 63) / 64, 2) : a.topk;
    int64_t wrong = 0, invisible = 0, columns = values.size(3), words = mask.size(3);
    for (int64_t row = 0; row < mask.elements() / words; ++row) {
      int64_t bits = 0, candidates = 0;
      for (int64_t w = 0; w < words; ++w) bits += __builtin_popcountll(mask.words[row * words + w]);
      for (int64_t j = 0; j < columns; ++j) {
        bool seen = values.value[row * columns + j] > -INFINITY;
        candidates += seen;
        invisible += !seen && kept.value[row * columns + j] != 0;
      }
      wrong += bits != std::min(budget, candidates);
    }
    if (wrong) complain("rows of selected with another number of bits", static_cast<double>(wrong), 0);
    if (invisible) complain("bits of selected that nobody sees", static_cast<double>(invisible), 0);
  }

  /// Nothing dropped is larger than anything kept, up to the rounding of scores in the case's type.
  static void check_order(const AttentionCase& a, const Array& values, const Array& kept, const Complaint& complain) {
    double slack = (a.c.type == Dtype::bf16 ? 0x1p-7 : 1e-6) * (a.c("sharp") ? 25 : 1) * (a.block ? a.dh : 4);
    double worst = 0;
    int64_t columns = values.size(3);
    for (int64_t row = 0; row < values.elements() / columns; ++row) {
      double least = INFINITY, largest = -INFINITY;
      int64_t tile = row % values.size(2), own = a.page(std::min(tile * 64 + 63, a.T - 1) + a.M);
      for (int64_t j = 0; j < columns; ++j) {
        double value = values.value[row * columns + j];
        bool always = a.block && (j == own || j == own - 1), in = kept.value[row * columns + j] != 0;
        if (always && !in && value > -INFINITY) complain("a nearest page is not kept", static_cast<double>(j), 0);
        if (always) continue;
        if (in)
          least = std::min(least, value);
        else
          largest = std::max(largest, value);
      }
      worst = std::max(worst, largest - least);
    }
    if (!(worst <= slack)) complain("a dropped value is larger than a kept one", worst, slack);
  }

  /// Among equals the nearest are kept.
  static void check_ties(const AttentionCase& a, const Array& kept, const Complaint& complain) {
    int64_t wrong = 0;
    for (int64_t b = 0; b < a.B; ++b)
      for (int64_t h = 0; h < a.H; ++h)
        for (int64_t i = 0; i < a.T; ++i)
          for (int64_t j = 0; j < a.K; ++j)
            wrong += (kept(b, h, i, j) != 0) != (i + a.M - j >= 0 && i + a.M - j < a.topk);
    if (wrong) complain("keys kept though a nearer one is equal", static_cast<double>(wrong), 0);
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double rows = s["T"] * s["B"] * s["H"], keys = (s["T"] + s["M"]) * s["B"] * s["H"], pairs = attention_pairs(s);
    double kept = s["topk"] ? std::min<double>(pairs, rows * s["topk"]) : pairs;
    double operations = s["block"] ? 6 * kept : 4 * pairs + 2 * kept;
    return {(2 * rows + 2 * keys) * s["dh"] * dtype_bytes(type), operations * s["dh"]};
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

std::unique_ptr<Operation> attention_forward_row() { return std::make_unique<AttentionForwardRow>(); }

}  // namespace longhand::ops
