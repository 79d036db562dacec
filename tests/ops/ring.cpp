// What fills the rings of keys and values, and the extremes of their pages.
#include "tests/ops/ring.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace longhand::ops {

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

Dtype ring_type(const Case& c) {
  const Dtype types[] = {c.type, Dtype::bf16, Dtype::i8, Dtype::fp32};
  return types[c("ring")];
}

void draw_ring(Case& c, Random& random, const std::string& name, const std::string& scales, Shape shape, bool update) {
  bool integers = ring_type(c) == Dtype::i8;
  auto entry = [&] { return integers ? static_cast<double>(random.below(255) - 127) : random.normal(); };
  auto scale = [&] { return 0.005 + 0.02 * random.uniform(); };
  if (update)
    c.update(name, shape, entry, ring_type(c));
  else
    c.input(name, shape, entry, ring_type(c));
  if (!integers) return;
  --shape.rank, shape.size[shape.rank] = 0;
  if (update)
    c.update(scales, shape, scale, Dtype::fp32);
  else
    c.input(scales, shape, scale, Dtype::fp32);
}

double entry_of(const Case& c, const char* name, const char* scales, int64_t row, int64_t x) {
  int64_t width = c("dh");
  return c[name].value[row * width + x] * (c[scales].empty() ? 1 : c[scales].value[row]);
}

std::vector<double> extremes(const Case& c, const char* name, const char* scales, int64_t S, int64_t count,
                             int64_t groups) {
  int64_t H = c("H"), dh = c("dh");
  std::vector<double> bounds(S * 2 * groups * H * dh);
  for (int64_t s = 0; s < S; ++s)
    for (int64_t g = 0; g < groups; ++g)
      for (int64_t h = 0; h < H; ++h)
        for (int64_t x = 0; x < dh; ++x) {
          double low = INFINITY, high = -INFINITY;
          int64_t first = std::min(64 * g, count - 1);
          for (int64_t j = first; j < std::min(64 * g + 64, count) || j == first; ++j) {
            double y = entry_of(c, name, scales, (s * count + j) * H + h, x);
            low = std::min(low, y), high = std::max(high, y);
          }
          bounds[((s * 2 * groups + 2 * g) * H + h) * dh + x] = low;
          bounds[((s * 2 * groups + 2 * g + 1) * H + h) * dh + x] = high;
        }
  return bounds;
}

namespace {

struct RingStoreRow : Operation {
  std::vector<Sizes> shapes() const override {
    return {{{"N", 1}, {"S", 1}, {"slots", 1}, {"H", 1}, {"dh", 1}},
            {{"N", 5}, {"S", 7}, {"slots", 13}, {"H", 3}, {"dh", 7}},
            {{"N", 30}, {"S", 3}, {"slots", 17}, {"chunk", 10}, {"H", 2}, {"dh", 33}},
            {{"N", 12}, {"S", 4}, {"slots", 3}, {"chunk", 3}, {"H", 2}, {"dh", 64}},
            {{"N", 5}, {"S", 7}, {"slots", 13}, {"H", 3}, {"dh", 7}, {"ring", 1}},
            {{"N", 30}, {"S", 3}, {"slots", 17}, {"chunk", 10}, {"H", 2}, {"dh", 33}, {"ring", 2}},
            {{"N", 12}, {"S", 4}, {"slots", 3}, {"chunk", 3}, {"H", 2}, {"dh", 64}, {"ring", 2}},
            {{"N", 12}, {"S", 4}, {"slots", 3}, {"chunk", 3}, {"H", 2}, {"dh", 64}, {"ring", 3}}};
  }
  bool exact() const override { return true; }

  void inputs(Case& c, Random& random) const override {
    auto normal = [&] { return random.normal(); };
    draw_positions(c, random);
    for (const char* name : {"k", "value"}) {
      Array& rows = c.input(name, {c("N"), c("H"), c("dh")}, normal);
      rows.row_axes = 2, rows.padding = c("chunk") == 10 ? 2 * c("H") * c("dh") : 0;
    }
    if (c("ring")) c.at("k")(0, 0, 0) = 0.0;
    for (auto [name, scales] : {std::pair{"keys", "key_scales"}, std::pair{"values", "value_scales"}})
      draw_ring(c, random, name, scales, {c("S"), c("slots"), c("H"), c("dh")}, true);
  }
  void reference(const Case& c, Fp64& f) const override {
    for (int64_t n = 0; n < c("N"); ++n)
      for (int64_t h = 0; h < c("H"); ++h) {
        auto s = static_cast<int64_t>(c["sequence"](n)), slot = static_cast<int64_t>(c["position"](n)) % c("slots");
        put(c, f, "k", "keys", "key_scales", n, s, slot, h),
            put(c, f, "value", "values", "value_scales", n, s, slot, h);
      }
  }
  static void put(const Case& c, Fp64& f, const char* rows, const char* ring, const char* scales, int64_t n, int64_t s,
                  int64_t slot, int64_t h) {
    if (ring_type(c) != Dtype::i8) {
      for (int64_t x = 0; x < c("dh"); ++x) f.at(ring)(s, slot, h, x) = c[rows](n, h, x);
      return;
    }
    float most = 0;
    for (int64_t x = 0; x < c("dh"); ++x) most = std::max(most, std::abs(static_cast<float>(c[rows](n, h, x))));
    float scale = most / 127;
    f.at(scales)(s, slot, h) = scale;
    for (int64_t x = 0; x < c("dh"); ++x) {
      float integer = scale > 0 ? std::nearbyint(static_cast<float>(c[rows](n, h, x)) / scale) : 0;
      f.at(ring)(s, slot, h, x) = std::clamp(integer, -127.0f, 127.0f);
    }
  }
  void run(Device& device, const Case& c, Bound& d) const override {
    bool integers = ring_type(c) == Dtype::i8;
    device.ring_store({.keys = d["keys"],
                       .values = d["values"],
                       .key_scales = integers ? d["key_scales"] : Tensor(),
                       .value_scales = integers ? d["value_scales"] : Tensor(),
                       .k = d["k"],
                       .value = d["value"],
                       .position = d["position"],
                       .sequence = d["sequence"]});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    int64_t to = s["ring"] == 2 ? 1 : s["ring"] == 1 ? 2 : s["ring"] == 3 ? 4 : dtype_bytes(type);
    return {2.0 * s["N"] * s["H"] * s["dh"] * static_cast<double>(dtype_bytes(type) + to), 0};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"N", 4096}, {"S", 4}, {"slots", 2048}, {"chunk", 1024}, {"H", 12}, {"dh", 64}},
            {{"N", 4096}, {"S", 4}, {"slots", 2048}, {"chunk", 1024}, {"H", 12}, {"dh", 64}, {"ring", 2}}};
  }
};

struct PageBoundsRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t ring : {0, 2}) {
      list.push_back({{"N", 40}, {"S", 3}, {"slots", 192}, {"chunk", 20}, {"H", 2}, {"dh", 33}, {"ring", ring}});
      list.push_back({{"N", 300}, {"S", 2}, {"slots", 320}, {"chunk", 150}, {"H", 2}, {"dh", 64}, {"ring", ring}});
      list.push_back({{"S", 1}, {"slots", 130}, {"pages", 4}, {"H", 3}, {"dh", 7}, {"ring", ring}});
      list.push_back({{"S", 2}, {"slots", 128}, {"pages", 2}, {"H", 1}, {"dh", 64}, {"ring", ring}});
      list.push_back({{"S", 1}, {"slots", 3}, {"pages", 1}, {"H", 1}, {"dh", 1}, {"ring", ring}});
    }
    return list;
  }
  bool exact() const override { return true; }
  static int64_t pages(const Case& c) { return c("pages") ? c("pages") : c("slots") / 64; }

  void inputs(Case& c, Random& random) const override {
    draw_ring(c, random, "rows", "scales", {c("S"), c("slots"), c("H"), c("dh")}, false);
    if (c("N")) draw_positions(c, random);
    c.update(
        "bounds", {c("S"), 2 * pages(c), c("H"), c("dh")}, [&] { return random.normal(); }, Dtype::fp32);
  }
  void reference(const Case& c, Fp64& f) const override {
    std::vector<double> all = extremes(c, "rows", "scales", c("S"), c("slots"), pages(c));
    std::vector<double>& bounds = f.at("bounds").value;
    if (c("N") == 0) bounds = all;
    int64_t page_size = 2 * c("H") * c("dh");
    for (int64_t n = 0; n < c("N"); ++n) {
      auto position = static_cast<int64_t>(c["position"](n)), s = static_cast<int64_t>(c["sequence"](n));
      if (position % 64 != 63) continue;
      int64_t at = (s * pages(c) + position % c("slots") / 64) * page_size;
      std::copy_n(all.begin() + at, page_size, bounds.begin() + at);
    }
  }
  void run(Device& device, const Case& c, Bound& d) const override {
    auto given = [&](const char* name) { return c.has(name) ? d[name] : Tensor(); };
    device.page_bounds({.bounds = d["bounds"],
                        .rows = d["rows"],
                        .scales = given("scales"),
                        .position = given("position"),
                        .sequence = given("sequence")});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double rows = s["N"] ? s["N"] : s["S"] * s["slots"];
    return {rows * s["H"] * s["dh"] * static_cast<double>(dtype_bytes(type)), 2 * rows * s["H"] * s["dh"]};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"S", 1}, {"slots", 4096}, {"pages", 64}, {"H", 12}, {"dh", 64}}};
  }
};

}  // namespace

std::unique_ptr<Operation> ring_store_row() { return std::make_unique<RingStoreRow>(); }
std::unique_ptr<Operation> page_bounds_row() { return std::make_unique<PageBoundsRow>(); }

}  // namespace longhand::ops
