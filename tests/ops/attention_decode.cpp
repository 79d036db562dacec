// The same attention over rings of keys and values, and what fills the rings.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "tests/ops/operation.h"

namespace longhand::ops {
namespace {

/// N queries over S sequences of positions that differ in length; `chunk` queries of one sequence stand together.
void draw_positions(Case& c, Random& random) {
  int64_t chunk = std::max<int64_t>(c("chunk"), 1), slots = c("slots");
  Array& sequence = c.input(
      "sequence", {c("N")}, [] { return 0; }, Dtype::i32);
  Array& position = c.input(
      "position", {c("N")}, [] { return 0; }, Dtype::i64);
  std::vector<int64_t> order(c("S"));
  std::iota(order.begin(), order.end(), 0);
  for (size_t n = order.size(); n-- > 1;) std::swap(order[n], order[random.below(static_cast<int64_t>(n) + 1)]);
  for (int64_t n = 0, start = 0; n < c("N"); ++n) {
    if (n % chunk == 0) start = n == 0 ? 0 : random.below(3 * slots);
    sequence(n) = static_cast<double>(order[n / chunk]);
    position(n) = static_cast<double>(start + n % chunk);
  }
}

struct AttentionDecodeRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t dh : {1, 7, 33, 64, 128})
      list.push_back({{"N", 5}, {"S", 6}, {"slots", 40}, {"window", 40}, {"H", 3}, {"dh", dh}});
    for (int64_t topk : {0, 1, 7, 100}) {
      list.push_back({{"N", 1}, {"S", 1}, {"slots", 16}, {"window", 16}, {"H", 2}, {"dh", 16}, {"topk", topk}});
      list.push_back(
          {{"N", 12}, {"S", 3}, {"chunk", 4}, {"slots", 67}, {"window", 60}, {"H", 2}, {"dh", 32}, {"topk", topk}});
      list.push_back({{"N", 3},
                      {"S", 3},
                      {"slots", 150},
                      {"window", 130},
                      {"H", 2},
                      {"dh", 64},
                      {"topk", topk},
                      {"distances", 50}});
    }
    list.push_back({{"N", 4}, {"S", 4}, {"slots", 9}, {"window", 1}, {"H", 2}, {"dh", 8}});
    list.push_back({{"N", 2}, {"S", 2}, {"slots", 700}, {"window", 700}, {"H", 1}, {"dh", 64}});
    list.push_back({{"N", 2}, {"S", 2}, {"slots", 40}, {"window", 40}, {"H", 2}, {"dh", 7}, {"topk", 7}});
    return list;
  }

  void inputs(Case& c, Random& random) const override {
    int64_t heads = c("H"), dh = c("dh");
    auto normal = [&] { return random.normal(); };
    draw_positions(c, random);
    c.input("q", {c("N"), heads, dh}, normal).row_axes = 2;
    c.at("q").padding = c("topk") ? 2 * heads * dh : 0;
    c.input("keys", {c("S"), c("slots"), heads, dh}, normal);
    c.input("values", {c("S"), c("slots"), heads, dh}, normal);
    c.input("r", {c("distances") ? c("distances") : c("window"), heads, dh}, normal);
    c.input("u", {heads, dh}, normal);
    c.input("v", {heads, dh}, normal);
    c.output("out", {c("N"), heads, dh});
  }

  void reference(const Case& c, Fp64& f) const override {
    const Array &q = c["q"], &keys = c["keys"], &values = c["values"], &r = c["r"], &u = c["u"], &v = c["v"];
    int64_t dh = c("dh"), slots = c("slots");
    for (int64_t n = 0; n < c("N"); ++n)
      for (int64_t h = 0; h < c("H"); ++h) {
        auto s = static_cast<int64_t>(c["sequence"](n)), position = static_cast<int64_t>(c["position"](n));
        std::vector<std::pair<double, int64_t>> seen;  // score, slot; nearest first
        for (int64_t d = 0; d < std::min(c("window"), position + 1); ++d) {
          int64_t slot = (position - d) % slots, row = std::min(d, r.size(0) - 1);
          double content = 0, place = 0;
          for (int64_t x = 0; x < dh; ++x) {
            content += f.store(q(n, h, x) + u(h, x)) * keys(s, slot, h, x);
            place += f.store(q(n, h, x) + v(h, x)) * r(row, h, x);
          }
          seen.push_back({f.store((f.store(content) + f.store(place)) / std::sqrt(static_cast<double>(dh))), slot});
        }
        std::stable_sort(seen.begin(), seen.end(), [](auto& x, auto& y) { return x.first > y.first; });
        if (c("topk") && c("topk") < static_cast<int64_t>(seen.size())) seen.resize(c("topk"));
        double total = 0;
        for (auto& [score, slot] : seen) total += std::exp(score - seen[0].first);
        for (auto& [score, slot] : seen)
          for (int64_t x = 0; x < dh; ++x)
            f.at("out")(n, h, x) += f.store(std::exp(score - seen[0].first) / total) * values(s, slot, h, x);
      }
  }

  void run(Device& device, const Case& c, Bound& d) const override { run_rows(device, c, d, 0, c("N")); }

  static void run_rows(Device& device, const Case& c, Bound& d, int64_t first, int64_t count) {
    auto rows = [&](const char* name) { return d[name].rows(first, count); };
    device.attention_decode({.out = rows("out"),
                             .q = rows("q"),
                             .keys = d["keys"],
                             .values = d["values"],
                             .r = d["r"],
                             .u = d["u"],
                             .v = d["v"],
                             .position = rows("position"),
                             .sequence = rows("sequence"),
                             .window = c("window"),
                             .topk = c("topk")});
  }

  /// A query alone gives the bits that it gives in company.
  void check_runs(Device& device, const Case& c, Bound& d, const Complaint& complain) const override {
    run(device, c, d);
    std::vector<double> together = d.results()["out"].value;
    d.reset();
    for (int64_t n = 0; n < c("N"); ++n) run_rows(device, c, d, n, 1);
    if (together != d.results()["out"].value) complain("queries one by one give other bits than together", 1, 0);
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double keys = s["N"] * s["H"] * s["window"];
    double kept = s["topk"] ? std::min<double>(keys, s["N"] * s["H"] * s["topk"]) : keys;
    double table = s["H"] * (s["distances"] ? s["distances"] : s["window"]);
    return {(keys + kept + table) * s["dh"] * dtype_bytes(type), (4 * keys + 2 * kept) * s["dh"]};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"N", 1}, {"S", 1}, {"slots", 4096}, {"window", 4096}, {"H", 12}, {"dh", 64}},
            {{"N", 8}, {"S", 8}, {"slots", 4096}, {"window", 4096}, {"H", 12}, {"dh", 64}},
            {{"N", 8}, {"S", 8}, {"slots", 4096}, {"window", 4096}, {"H", 12}, {"dh", 64}, {"topk", 256}}};
  }
};

struct RingStoreRow : Operation {
  std::vector<Sizes> shapes() const override {
    return {{{"N", 1}, {"S", 1}, {"slots", 1}, {"H", 1}, {"dh", 1}},
            {{"N", 5}, {"S", 7}, {"slots", 13}, {"H", 3}, {"dh", 7}},
            {{"N", 30}, {"S", 3}, {"slots", 17}, {"chunk", 10}, {"H", 2}, {"dh", 33}},
            {{"N", 12}, {"S", 4}, {"slots", 3}, {"chunk", 3}, {"H", 2}, {"dh", 64}}};
  }
  bool exact() const override { return true; }

  void inputs(Case& c, Random& random) const override {
    auto normal = [&] { return random.normal(); };
    draw_positions(c, random);
    for (const char* name : {"k", "value"}) {
      Array& rows = c.input(name, {c("N"), c("H"), c("dh")}, normal);
      rows.row_axes = 2, rows.padding = c("chunk") == 10 ? 2 * c("H") * c("dh") : 0;
    }
    for (const char* name : {"keys", "values"}) c.update(name, {c("S"), c("slots"), c("H"), c("dh")}, normal);
  }
  void reference(const Case& c, Fp64& f) const override {
    for (int64_t n = 0; n < c("N"); ++n)
      for (int64_t h = 0; h < c("H"); ++h)
        for (int64_t x = 0; x < c("dh"); ++x) {
          auto s = static_cast<int64_t>(c["sequence"](n)), slot = static_cast<int64_t>(c["position"](n)) % c("slots");
          f.at("keys")(s, slot, h, x) = c["k"](n, h, x);
          f.at("values")(s, slot, h, x) = c["value"](n, h, x);
        }
  }
  void run(Device& device, const Case&, Bound& d) const override {
    device.ring_store({.keys = d["keys"],
                       .values = d["values"],
                       .k = d["k"],
                       .value = d["value"],
                       .position = d["position"],
                       .sequence = d["sequence"]});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    return {4.0 * s["N"] * s["H"] * s["dh"] * dtype_bytes(type), 0};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"N", 4096}, {"S", 4}, {"slots", 2048}, {"chunk", 1024}, {"H", 12}, {"dh", 64}}};
  }
};

}  // namespace

std::unique_ptr<Operation> attention_decode_row() { return std::make_unique<AttentionDecodeRow>(); }
std::unique_ptr<Operation> ring_store_row() { return std::make_unique<RingStoreRow>(); }

}  // namespace longhand::ops
