// Integers of 8 or 4 bits with their scales, and products with them.
#include <array>
#include <cmath>

#include "tests/ops/interleaved.h"
#include "tests/ops/operation.h"
#include "tests/ops/pointwise.h"

namespace longhand::ops {
namespace {

// Switches: bits 8 or 4 (0: weights of the case's type, 16: fp16), grouped, half (scales of fp16), w8a8, interleaved
// (where the device reads such weights).

/// The integer at (row, p) of an array as Quantize stores it.
double integer_at(const Array& integers, bool four_bits, int64_t row, int64_t p) {
  if (!four_bits) return integers(row, p);
  int byte = static_cast<int>(integers(row, p / 2));
  return (p % 2 ? byte >> 4 : byte & 15) - 8;
}

/// Integers and scale of `n` elements, in the fp32 that the operation is defined in.
double quantize_group(const double* x, int64_t n, double levels, Dtype scale_type, double* integers) {
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::abs(static_cast<float>(x[i])));
  auto scale = static_cast<float>(round_to(scale_type, most / static_cast<float>(levels)));
  for (int64_t i = 0; i < n; ++i) {
    double q = scale > 0 ? std::nearbyint(static_cast<float>(x[i]) / scale) : 0;
    integers[i] = std::clamp(q, -levels, levels);
  }
  return scale;
}

Shape scale_shape(const Case& c, int64_t rows) { return c("grouped") ? Shape{rows, c("k") / 64} : Shape{rows}; }
Dtype scale_type(const Case& c) { return c("half") ? Dtype::fp16 : Dtype::fp32; }

struct QuantizeRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t bits : {8, 4})
      for (int64_t half : {0, 1}) {
        list.push_back({{"rows", 5}, {"k", 192}, {"bits", bits}, {"grouped", 1}, {"half", half}});
        list.push_back({{"rows", 4}, {"k", 64}, {"bits", bits}, {"grouped", 1}, {"half", half}, {"padded", 1}});
        list.push_back({{"rows", 7}, {"k", 78}, {"bits", bits}, {"half", half}, {"padded", 1}});
        list.push_back({{"rows", 1}, {"k", 2}, {"bits", bits}, {"half", half}});
      }
    list.push_back({{"rows", 3}, {"k", 77}, {"bits", 8}});
    list.push_back({{"rows", 2}, {"k", 1}, {"bits", 8}});
    list.push_back({{"rows", 33}, {"k", 1000}, {"bits", 8}});
    list.push_back({{"rows", 3}, {"k", 5000}, {"bits", 8}});
    return list;
  }
  bool exact() const override { return true; }

  /// Rows differ in size by powers of ten; the last is zero when there are several.
  void inputs(Case& c, Random& random) const override {
    int64_t rows = c("rows"), k = c("k");
    Array& x = c.input("x", {rows, k}, [&] { return random.normal(); });
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t p = 0; p < k; ++p) x(r, p) *= r > 0 && r + 1 == rows ? 0 : std::pow(10.0, r % 5 - 3);
    x.round().padding = c("padded") ? 3 : 0;
    if (c("bits") == 8)
      c.output("out", {rows, k}, Dtype::i8);
    else
      c.output("out", {rows, k / 2}, Dtype::u8);
    c.output("scales", scale_shape(c, rows), scale_type(c));
  }

  void reference(const Case& c, Fp64& f) const override {
    int64_t k = c("k"), group = c("grouped") ? 64 : k;
    bool four_bits = c("bits") == 4;
    std::vector<double> q(k);
    for (int64_t r = 0; r < c("rows"); ++r) {
      for (int64_t p = 0; p < k; p += group)
        f.at("scales").value[(r * k + p) / group] =
            quantize_group(&c["x"].value[r * k + p], group, four_bits ? 7 : 127, scale_type(c), &q[p]);
      for (int64_t p = 0; p < k; ++p) {
        if (!four_bits)
          f.at("out")(r, p) = q[p];
        else
          f.at("out")(r, p / 2) += (q[p] + 8) * (p % 2 ? 16 : 1);
      }
    }
  }

  void run(Device& device, const Case&, Bound& d) const override {
    device.quantize({.out = d["out"], .scales = d["scales"], .x = d["x"]});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double n = static_cast<double>(s["rows"]) * s["k"];
    return {n * (dtype_bytes(type) + s["bits"] / 8.0), 3 * n};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"rows", 4096}, {"k", 4096}, {"bits", 8}}, {{"rows", 4096}, {"k", 4096}, {"bits", 4}, {"grouped", 1}}};
  }
};

struct DequantizeRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t bits : {8, 4})
      for (int64_t half : {0, 1}) {
        for (int64_t k : {64, 192})
          list.push_back({{"rows", 5}, {"k", k}, {"bits", bits}, {"grouped", 1}, {"half", half}});
        for (int64_t k : {2, 16, 78, 112}) list.push_back({{"rows", 7}, {"k", k}, {"bits", bits}, {"half", half}});
      }
    for (int64_t k : {1, 77, 5000}) list.push_back({{"rows", 3}, {"k", k}, {"bits", 8}});
    return list;
  }
  bool exact() const override { return true; }

  void inputs(Case& c, Random& random) const override {
    int64_t rows = c("rows"), k = c("k");
    if (c("bits") == 8)
      c.input(
          "integers", {rows, k}, [&] { return static_cast<double>(random.below(255) - 127); }, Dtype::i8);
    else
      c.input(
          "integers", {rows, k / 2}, [&] { return static_cast<double>(random.below(256)); }, Dtype::u8);
    c.input(
         "scales", scale_shape(c, rows), [&] { return random.uniform(); }, scale_type(c))
        .round();
    c.output("out", {rows, k});
  }
  void reference(const Case& c, Fp64& f) const override {
    int64_t k = c("k");
    for (int64_t r = 0; r < c("rows"); ++r)
      for (int64_t p = 0; p < k; ++p)
        f.at("out")(r, p) = static_cast<float>(integer_at(c["integers"], c("bits") == 4, r, p) *
                                               c["scales"].value[c("grouped") ? r * (k / 64) + p / 64 : r]);
  }
  void run(Device& device, const Case&, Bound& d) const override {
    device.dequantize({.out = d["out"], .integers = d["integers"], .scales = d["scales"]});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double n = static_cast<double>(s["rows"]) * s["k"];
    return {n * (dtype_bytes(type) + s["bits"] / 8.0), n};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"rows", 4096}, {"k", 4096}, {"bits", 8}}, {{"rows", 4096}, {"k", 4096}, {"bits", 4}, {"grouped", 1}}};
  }
};

struct QuantizedMatmulRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t bits : {8, 4})
      for (int64_t grouped : {0, 1})
        for (int64_t m : {1, 2, 3, 7, 13, 16, 29, 70})
          list.push_back({{"m", m}, {"n", 75}, {"k", 320}, {"bits", bits}, {"grouped", grouped}, {"half", m % 2}});
    for (int64_t activation : {0, 1, 2})
      for (int64_t m : {1, 35})
        list.push_back({{"m", m},
                        {"n", 50},
                        {"k", 128},
                        {"bits", activation == 1 ? 4 : 8},
                        {"grouped", activation != 0},
                        {"bias", 1},
                        {"activation", activation},
                        {"padded", 1}});
    for (int64_t k : {1, 7, 33, 77, 255, 700})
      for (int64_t m : {1, 31}) list.push_back({{"m", m}, {"n", 19}, {"k", k}, {"bits", 8}, {"mixed", m % 4}});
    for (int64_t k : {2, 66, 270}) list.push_back({{"m", 5}, {"n", 17}, {"k", k}, {"bits", 4}, {"mixed", 1}});
    list.push_back({{"m", 1}, {"n", 1}, {"k", 64}, {"bits", 4}, {"grouped", 1}});
    list.push_back({{"m", 3}, {"n", 130}, {"k", 4160}, {"bits", 8}});
    list.push_back({{"m", 40}, {"n", 70}, {"k", 2624}, {"bits", 4}, {"grouped", 1}});
    for (int64_t bits : {8, 4}) {
      list.push_back({{"m", 3}, {"n", 37}, {"k", 512}, {"bits", bits}});
      for (int64_t grouped : {0, 1})
        list.push_back({{"m", 3}, {"n", 21}, {"k", 32768 / bits}, {"bits", bits}, {"grouped", grouped}});
    }
    for (int64_t bits : {8, 4})
      for (int64_t grouped : {0, 1})
        for (int64_t m : {1, 2, 3, 7, 13, 29, 70})
          list.push_back({{"m", m},
                          {"n", 80},
                          {"k", m % 2 ? 640 : 4224},
                          {"bits", bits},
                          {"grouped", grouped},
                          {"half", grouped || m % 2},
                          {"interleaved", 1}});
    for (int64_t m : {1, 20, 31, 70, 100})
      list.push_back({{"m", m}, {"n", 80}, {"k", m % 2 ? 192 : 4416}, {"bits", 8}, {"w8a8", 1}, {"interleaved", 1}});
    for (int64_t bits : {0, 16})
      for (int64_t m : {1, 2, 3, 7, 13, 29, 70})
        list.push_back(
            {{"m", m}, {"n", 80}, {"k", m % 2 ? 640 : 2080}, {"bits", bits}, {"mixed", m % 4}, {"interleaved", 1}});
    for (int64_t m : {1, 9, 100})
      for (int64_t k : {96, 500}) list.push_back({{"m", m}, {"n", 70}, {"k", k}, {"bits", 8}, {"w8a8", 1}});
    list.push_back({{"m", 20}, {"n", 24}, {"k", 64}, {"bits", 8}, {"w8a8", 1}, {"bias", 1}, {"activation", 2}});
    list.push_back({{"m", 20}, {"n", 24}, {"k", 64}, {"bits", 4}});
    for (int64_t bits : {0, 16})
      for (int64_t m : {1, 5, 40}) list.push_back({{"m", m}, {"n", 37}, {"k", 100}, {"bits", bits}, {"bias", 1}});
    return list;
  }
  /// Activations count with 15 bits at least below the largest of 256: 2.5e-5 of the size of a product of independent
  /// rows, and a single sum may be off by several times that.
  double limit() const override { return 1e-4; }

  void inputs(Case& c, Random& random) const override {
    int64_t m = c("m"), n = c("n"), k = c("k"), levels = c("bits") == 4 ? 7 : 127;
    auto normal = [&] { return random.normal(); };
    auto integer = [&] { return static_cast<double>(random.below(2 * levels + 1) - levels); };
    auto byte = [&] { return static_cast<double>(random.below(15) + 1 + 16 * (random.below(15) + 1)); };
    c.input("a", {m, k}, normal, c("mixed") & 1 ? Dtype::fp32 : c.type).padding = c("padded") ? 5 : 0;
    if (c("bits") == 8)
      c.input("weight", {n, k}, integer, Dtype::i8);
    else if (c("bits") == 4)
      c.input("weight", {n, k / 2}, byte, Dtype::u8);
    else
      c.input(
          "weight", {n, k}, [&] { return random.normal() / std::sqrt(k); }, c("bits") ? Dtype::fp16 : c.type);
    if (c("bits") == 8 || c("bits") == 4)
      c.input(
          "scales", scale_shape(c, n), [&] { return (0.5 + random.uniform()) / (levels * std::sqrt(k)); },
          scale_type(c));
    if (c("bias")) c.input("bias", {n}, normal);
    c.output("out", {m, n}, c("mixed") & 2 ? Dtype::fp32 : c.type).padding = c("padded") ? 7 : 0;
  }

  void reference(const Case& c, Fp64& f) const override {
    int64_t m = c("m"), n = c("n"), k = c("k");
    bool integers = !c["scales"].empty();
    std::vector<double> a = c["a"].value, row(k);
    if (c("w8a8"))
      for (int64_t i = 0; i < m; ++i) {
        double scale = quantize_group(&c["a"].value[i * k], k, 127, Dtype::fp32, &a[i * k]);
        for (int64_t p = 0; p < k; ++p) a[i * k + p] *= scale;
      }
    double sizes = 0;
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t p = 0; p < k; ++p)
        row[p] = integers ? f.store(integer_at(c["weight"], c("bits") == 4, j, p) *
                                    c["scales"].value[c("grouped") ? j * (k / 64) + p / 64 : j])
                          : c["weight"](j, p);
      for (int64_t i = 0; i < m; ++i) {
        double sum = 0;
        for (int64_t p = 0; p < k; ++p)
          sum += a[i * k + p] * row[p], sizes += a[i * k + p] * a[i * k + p] * row[p] * row[p];
        if (!c["bias"].empty()) sum += c["bias"](j);
        if (c("activation")) sum = activate(static_cast<Activation>(c("activation")), f.store(sum));
        f.at("out")(i, j) = sum;
      }
    }
    f.scale("out", std::sqrt(sizes));
  }

  void run(Device& device, const Case& c, Bound& d) const override { run_rows(device, c, d, 0, c("m")); }

  static void run_rows(Device& device, const Case& c, Bound& d, int64_t first, int64_t rows) {
    InterleavedWeights weights(device, d["weight"], d["scales"], d["a"].type(), c("interleaved") != 0);
    device.quantized_matmul({.out = d["out"].rows(first, rows),
                             .a = d["a"].rows(first, rows),
                             .weight = weights.weight,
                             .scales = weights.scales,
                             .bias = d["bias"],
                             .activation = static_cast<Activation>(c("activation")),
                             .quantize_activations = c("w8a8") != 0});
  }

  /// A row's bits do not depend on how many rows stand beside it.
  void check_runs(Device& device, const Case& c, Bound& d, const Complaint& complain) const override {
    if (c("m") < 2) return;
    run(device, c, d);
    std::vector<double> all = d.results()["out"].value;
    for (int64_t rows : {int64_t{1}, (c("m") + 1) / 2}) {
      d.reset();
      for (int64_t first = 0; first < c("m"); first += rows)
        run_rows(device, c, d, first, std::min(rows, c("m") - first));
      std::vector<double> parts = d.results()["out"].value;
      int64_t different = 0;
      for (size_t e = 0; e < all.size(); ++e) different += parts[e] != all[e];
      if (different)
        complain(fmt::format("products of {} rows have other elements", rows), static_cast<double>(different), 0);
    }
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double m = s["m"], n = s["n"], k = s["k"], width = static_cast<double>(dtype_bytes(type));
    double weight = s["bits"] ? s["bits"] / 8.0 : width, scales = s["half"] ? 2 : 4;
    return {(m * k + m * n) * width + n * k * weight + n * scales * (s["grouped"] ? k / 64 : 1), 2 * m * n * k};
  }
  std::vector<Sizes> timed_shapes() const override {
    std::vector<Sizes> list;
    for (int64_t m : {1, 4, 16, 512}) {
      list.push_back({{"m", m}, {"n", 8192}, {"k", 4096}, {"bits", 8}});
      list.push_back({{"m", m}, {"n", 8192}, {"k", 4096}, {"bits", 4}, {"grouped", 1}, {"half", 1}});
      list.push_back({{"m", m}, {"n", 8192}, {"k", 4096}, {"bits", 16}});
    }
    list.push_back({{"m", 512}, {"n", 8192}, {"k", 4096}, {"bits", 8}, {"w8a8", 1}});
    return list;
  }
};

}  // namespace

std::unique_ptr<Operation> quantize_row() { return std::make_unique<QuantizeRow>(); }
std::unique_ptr<Operation> dequantize_row() { return std::make_unique<DequantizeRow>(); }
std::unique_ptr<Operation> quantized_matmul_row() { return std::make_unique<QuantizedMatmulRow>(); }

}  // namespace longhand::ops
