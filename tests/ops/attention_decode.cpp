// The same attention over rings of keys and values.
#include <algorithm>
#include <cmath>

#include "tests/ops/ring.h"

namespace longhand::ops {
namespace {

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
    for (int64_t ring : {1, 2, 3}) {
      for (int64_t dh : {7, 32, 64, 128})
        list.push_back({{"N", 5}, {"S", 6}, {"slots", 40}, {"window", 40}, {"H", 3}, {"dh", dh}, {"ring", ring}});
      list.push_back({{"N", 6},
                      {"S", 2},
                      {"chunk", 3},
                      {"slots", 150},
                      {"window", 130},
                      {"H", 2},
                      {"dh", 33},
                      {"topk", 9},
                      {"ring", ring},
                      {"distances", 50}});
      list.push_back({{"N", 2}, {"S", 2}, {"slots", 700}, {"window", 700}, {"H", 1}, {"dh", 512}, {"ring", ring}});
    }
    for (int64_t ring : {0, 1, 2})
      for (int64_t topk : {1, 200, 300, 2000}) {
        list.push_back({{"N", 4},
                        {"S", 2},
                        {"chunk", 2},
                        {"slots", 704},
                        {"window", 640},
                        {"H", 2},
                        {"dh", 64},
                        {"topk", topk},
                        {"block", 1},
                        {"ring", ring}});
        list.push_back({{"N", 3},
                        {"S", 3},
                        {"slots", 384},
                        {"window", 300},
                        {"H", 2},
                        {"dh", 20},
                        {"topk", topk},
                        {"block", 1},
                        {"ring", ring},
                        {"distances", 70}});
      }
    list.push_back({{"N", 2},
                    {"S", 1},
                    {"chunk", 2},
                    {"slots", 128},
                    {"window", 3},
                    {"H", 1},
                    {"dh", 7},
                    {"topk", 1},
                    {"block", 1}});
    return list;
  }

  void inputs(Case& c, Random& random) const override {
    int64_t heads = c("H"), dh = c("dh");
    auto normal = [&] { return random.normal(); };
    draw_positions(c, random);
    c.input("q", {c("N"), heads, dh}, normal).row_axes = 2;
    c.at("q").padding = c("topk") ? 2 * heads * dh : 0;
    int64_t distances = c("distances") ? c("distances") : c("window"), groups = (c("window") + 63) / 64;
    draw_ring(c, random, "keys", "key_scales", {c("S"), c("slots"), heads, dh}, false);
    draw_ring(c, random, "values", "value_scales", {c("S"), c("slots"), heads, dh}, false);
    draw_ring(c, random, "r", "r_scales", {distances, heads, dh}, false);
    c.input("u", {heads, dh}, normal);
    c.input("v", {heads, dh}, normal);
    if (c("block")) {
      auto nothing = [] { return 0.0; };
      Array& keys = c.input("key_bounds", {c("S"), c("slots") / 32, heads, dh}, nothing, Dtype::fp32);
      keys.value = extremes(c, "keys", "key_scales", c("S"), c("slots"), c("slots") / 64);
      Array& r = c.input("r_bounds", {2 * groups, heads, dh}, nothing, Dtype::fp32);
      r.value = extremes(c, "r", "r_scales", 1, distances, groups);
      keys.round(), r.round();
    }
    c.output("out", {c("N"), heads, dh});
  }

  /// The pages that a query keeps, by their numbers, among those it sees.
  static std::vector<bool> kept_pages(const Case& c, int64_t n, int64_t h, int64_t position) {
    int64_t dh = c("dh"), low = std::max<int64_t>(0, position - c("window") + 1), own = position / 64;
    auto bound = [&](const char* name, int64_t s, int64_t row, const char* bias) {
      double sum = 0;
      for (int64_t x = 0; x < dh; ++x) {
        double q = c["q"](n, h, x) + c[bias](h, x);
        auto at = [&](int64_t r) { return c[name].value[((s + r) * c("H") + h) * dh + x]; };
        sum += std::max(q * at(row), q * at(row + 1));
      }
      return sum;
    };
    auto sequence = static_cast<int64_t>(c["sequence"](n));
    std::vector<std::pair<double, int64_t>> best;
    for (int64_t page = own - 2; page >= low / 64; --page) {
      int64_t near = (position - page * 64 - 63) / 64, far = (position - std::max(page * 64, low)) / 64;
      double place = std::max(bound("r_bounds", 0, 2 * near, "v"), bound("r_bounds", 0, 2 * far, "v"));
      int64_t slot = page % (c("slots") / 64);
      best.emplace_back(bound("key_bounds", sequence * c("slots") / 32, 2 * slot, "u") + place, page);
    }
    std::stable_sort(best.begin(), best.end(), [](auto& x, auto& y) { return x.first > y.first; });
    std::vector<bool> kept(own + 1);
    kept[own] = true;
    if (own > 0) kept[own - 1] = true;
    int64_t budget = (c("topk") + 63) / 64 - 2;
    for (int64_t i = 0; i < budget && i < static_cast<int64_t>(best.size()); ++i) kept[best[i].second] = true;
    return kept;
  }

  void reference(const Case& c, Fp64& f) const override {
    const Array &q = c["q"], &r = c["r"], &u = c["u"], &v = c["v"];
    int64_t dh = c("dh"), slots = c("slots"), H = c("H");
    for (int64_t n = 0; n < c("N"); ++n)
      for (int64_t h = 0; h < c("H"); ++h) {
        auto s = static_cast<int64_t>(c["sequence"](n)), position = static_cast<int64_t>(c["position"](n));
        std::vector<std::pair<double, int64_t>> seen;  // score, slot; nearest first
        std::vector<bool> kept = c("block") ? kept_pages(c, n, h, position) : std::vector<bool>();
        for (int64_t d = 0; d < std::min(c("window"), position + 1); ++d) {
          if (c("block") && !kept[(position - d) / 64]) continue;
          int64_t slot = (position - d) % slots, row = std::min(d, r.size(0) - 1);
          double content = 0, place = 0;
          for (int64_t x = 0; x < dh; ++x) {
            content += f.store(q(n, h, x) + u(h, x)) * entry_of(c, "keys", "key_scales", (s * slots + slot) * H + h, x);
            place += f.store(q(n, h, x) + v(h, x)) * entry_of(c, "r", "r_scales", row * H + h, x);
          }
          seen.push_back({f.store((f.store(content) + f.store(place)) / std::sqrt(static_cast<double>(dh))), slot});
        }
        std::stable_sort(seen.begin(), seen.end(), [](auto& x, auto& y) { return x.first > y.first; });
        if (!c("block") && c("topk") && c("topk") < static_cast<int64_t>(seen.size())) seen.resize(c("topk"));
        double total = 0;
        for (auto& [score, slot] : seen) total += std::exp(score - seen[0].first);
        for (auto& [score, slot] : seen)
          for (int64_t x = 0; x < dh; ++x)
            f.at("out")(n, h, x) += f.store(std::exp(score - seen[0].first) / total) *
                                    entry_of(c, "values", "value_scales", (s * slots + slot) * H + h, x);
      }
  }

  void run(Device& device, const Case& c, Bound& d) const override { run_rows(device, c, d, 0, c("N")); }

  static void run_rows(Device& device, const Case& c, Bound& d, int64_t first, int64_t count) {
    auto rows = [&](const char* name) { return d[name].rows(first, count); };
    auto given = [&](const char* name) { return c.has(name) ? d[name] : Tensor(); };
    device.attention_decode({.out = rows("out"),
                             .q = rows("q"),
                             .keys = d["keys"],
                             .values = d["values"],
                             .r = d["r"],
                             .u = d["u"],
                             .v = d["v"],
                             .position = rows("position"),
                             .sequence = rows("sequence"),
                             .key_scales = given("key_scales"),
                             .value_scales = given("value_scales"),
                             .r_scales = given("r_scales"),
                             .key_bounds = given("key_bounds"),
                             .r_bounds = given("r_bounds"),
                             .window = c("window"),
                             .topk = c("topk"),
                             .topk_mode = c("block") ? TopkMode::block : TopkMode::exact});
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
    bool block = s["block"], integers = s["ring"] == 2;
    double pairs = s["N"] * s["H"], window = s["window"], keys = window, kept = s["topk"] ? s["topk"] : window;
    kept = std::min(kept, window);
    if (block) keys = kept;
    double table = s["H"] * std::min<double>(s["distances"] ? s["distances"] : window, block ? s["N"] * kept : window);
    double row = s["dh"] * static_cast<double>(dtype_bytes(s["ring"] == 1 ? Dtype::bf16 : type));
    if (s["ring"] == 3) row = 4.0 * s["dh"];
    if (integers) row = s["dh"] + 4;
    double bounds = block ? (pairs + s["H"]) * window / 32 * s["dh"] : 0;
    return {(pairs * (keys + kept) + table) * row + 4 * bounds, (pairs * (4 * keys + 2 * kept)) * s["dh"] + 4 * bounds};
  }
  std::vector<Sizes> timed_shapes() const override {
    Sizes one{{"N", 1}, {"S", 1}, {"slots", 4160}, {"window", 4096}, {"H", 12}, {"dh", 64}, {"ring", 2}};
    Sizes pages{{"N", 1},  {"S", 1},   {"slots", 4160}, {"window", 4096},
                {"H", 12}, {"dh", 64}, {"topk", 1024},  {"block", 1}};
    Sizes both{{"N", 1},   {"S", 1},       {"slots", 4160}, {"window", 4096}, {"H", 12},
               {"dh", 64}, {"topk", 1024}, {"block", 1},    {"ring", 2}};
    return {{{"N", 1}, {"S", 1}, {"slots", 4096}, {"window", 4096}, {"H", 12}, {"dh", 64}},
            {{"N", 8}, {"S", 8}, {"slots", 4096}, {"window", 4096}, {"H", 12}, {"dh", 64}},
            {{"N", 8}, {"S", 8}, {"slots", 4096}, {"window", 4096}, {"H", 12}, {"dh", 64}, {"topk", 256}},
            one,
            pages,
            both};
  }
};

}  // namespace

std::unique_ptr<Operation> attention_decode_row() { return std::make_unique<AttentionDecodeRow>(); }

}  // namespace longhand::ops
