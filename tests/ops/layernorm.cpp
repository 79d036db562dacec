// sum = dropout(x) + residual;  out = (sum - mean) * rstd * gain + bias.
#include <array>
#include <cmath>

#include "tests/ops/operation.h"

namespace longhand::ops {
namespace {

constexpr float eps = 1e-5f;

struct Statistics {
  double mean, rstd;
};

Statistics statistics(const std::vector<double>& row) {
  double mean = 0, variance = 0, n = static_cast<double>(row.size());
  for (double x : row) mean += x / n;
  for (double x : row) variance += (x - mean) * (x - mean) / n;
  return {mean, 1 / std::sqrt(variance + eps)};
}

/// dropout(x) + residual of row r.
std::vector<double> summed(const Case& c, int64_t r) {
  const Array &x = c["x"], &residual = c["residual"];
  Dropout dropout = c.dropout(RandomUse::residual_dropout);
  std::vector<double> sum(c("D"));
  for (int64_t i = 0; i < c("D"); ++i) {
    sum[i] = dropout ? x(r, i) * dropout.factor(r * c("D") + i) : x(r, i);
    if (!residual.empty()) sum[i] += residual(r, i);
  }
  return sum;
}

/// Rows around 0, rows far from it and rows without variance.
void draw_stream(Case& c, const char* name, Random& random) {
  Array& x = c.input(name, {c("rows"), c("D")}, [&] { return random.normal(); });
  for (int64_t r = 0; r < c("rows"); ++r)
    for (int64_t i = 0; i < c("D"); ++i) {
      if (r % 4 == 1) x(r, i) = 3 + x(r, i) / 2;
      if (r % 8 == 3 && c.type != Dtype::fp64) x(r, i) = 0.5;  // too curved for finite differences
    }
  x.round();
}

/// sum: 0 none, 1 an array of its own, 2 the residual's memory, 3 that of x. only: no normalisation.
struct LayerNormForwardRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (auto [rows, width] : std::vector<std::array<int64_t, 2>>{
             {1, 1}, {1, 7}, {3, 33}, {17, 128}, {70, 320}, {9, 1023}, {5, 2056}, {3, 4100}, {2, 8201}})
      list.push_back({{"rows", rows}, {"D", width}, {"residual", 1}, {"sum", 1}});
    for (int64_t residual : {0, 1})
      for (int64_t sum : {0, 1, 2, 3})
        for (int64_t dropout : {0, 1})
          if (residual || (sum != 2 && (sum || !dropout)))
            list.push_back({{"rows", 13}, {"D", 77}, {"residual", residual}, {"sum", sum}, {"dropout", dropout}});
    for (int64_t sum : {1, 2, 3})
      list.push_back({{"rows", 21}, {"D", 50}, {"residual", 1}, {"sum", sum}, {"dropout", 1}, {"only", 1}});
    return list;
  }

  void inputs(Case& c, Random& random) const override {
    int64_t rows = c("rows"), width = c("D");
    draw_stream(c, "x", random);
    if (c("residual")) draw_stream(c, "residual", random);
    if (c("sum")) c.output("sum", {rows, width}).alias = c("sum") == 2 ? "residual" : c("sum") == 3 ? "x" : "";
    if (c("only")) return;
    c.input("gain", {width}, [&] { return 1 + random.normal() / 2; });
    c.input("bias", {width}, [&] { return random.normal() / 2; });
    c.output("out", {rows, width});
    c.output("mean", {rows}, Dtype::fp32);
    c.output("rstd", {rows}, Dtype::fp32);
  }

  void reference(const Case& c, Fp64& f) const override {
    for (int64_t r = 0; r < c("rows"); ++r) {
      std::vector<double> sum = summed(c, r);
      for (double& x : sum) x = f.store(x);
      for (int64_t i = 0; i < c("D") && c("sum"); ++i) f.at("sum")(r, i) = sum[i];
      if (c("only")) continue;
      auto [mean, rstd] = statistics(sum);
      f.at("mean")(r) = mean;
      f.at("rstd")(r) = rstd;
      for (int64_t i = 0; i < c("D"); ++i) f.at("out")(r, i) = (sum[i] - mean) * rstd * c["gain"](i) + c["bias"](i);
    }
  }

  void run(Device& device, const Case& c, Bound& d) const override {
    device.layernorm_forward({.out = d["out"],
                              .sum = d["sum"],
                              .mean = d["mean"],
                              .rstd = d["rstd"],
                              .x = d["x"],
                              .residual = d["residual"],
                              .gain = d["gain"],
                              .bias = d["bias"],
                              .eps = eps,
                              .dropout = c.dropout(RandomUse::residual_dropout)});
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["D"];
    return {elements * (2 + s["residual"] + (s["sum"] != 0)) * dtype_bytes(type), 8 * elements};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"rows", 4096}, {"D", 768}, {"residual", 1}, {"sum", 1}}, {{"rows", 4096}, {"D", 768}}};
  }
};

/// parts: bit 0 d_sum, bit 1 d_x, bit 2 the normalisation.
struct LayerNormBackwardRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (auto [rows, width] : std::vector<std::array<int64_t, 2>>{{1, 1},
                                                                  {1, 7},
                                                                  {3, 33},
                                                                  {17, 128},
                                                                  {70, 320},
                                                                  {9, 1023},
                                                                  {300, 5},
                                                                  {11, 1032},
                                                                  {9, 2056},
                                                                  {3, 4104},
                                                                  {10, 8201}})
      list.push_back({{"rows", rows}, {"D", width}, {"residual", 1}, {"parts", 7}, {"dropout", 1}});
    for (int64_t parts : {4, 5, 7})
      for (int64_t dropout : {0, 1})
        list.push_back({{"rows", 29}, {"D", 77}, {"residual", 1}, {"parts", parts}, {"dropout", dropout}});
    list.push_back({{"rows", 29}, {"D", 77}, {"parts", 3}, {"dropout", 1}});
    list.push_back({{"rows", 29}, {"D", 77}, {"parts", 3}});
    list.push_back({{"rows", 2}, {"D", 8201}, {"residual", 1}, {"parts", 7}, {"dropout", 1}});
    return list;
  }
  double limit() const override { return 1e-4; }

  void inputs(Case& c, Random& random) const override {
    int64_t rows = c("rows"), width = c("D");
    auto normal = [&] { return random.normal(); };
    draw_stream(c, "x", random);
    if (c("residual")) draw_stream(c, "residual", random);
    if (c("parts") & 1) c.update("d_sum", {rows, width}, normal);
    if (c("parts") & 2) c.output("d_x", {rows, width});
    if (!(c("parts") & 4)) return;
    c.input("gain", {width}, [&] { return 1 + random.normal() / 2; });
    c.input("bias", {width}, normal);
    c.input("d_out", {rows, width}, normal);
    c.update("d_gain", {width}, normal);
    c.update("d_bias", {width}, normal);
    Array& sum = c.input("sum", {rows, width}, normal);
    for (int64_t r = 0; r < rows; ++r) {
      std::vector<double> row = summed(c, r);
      for (int64_t i = 0; i < width; ++i) sum(r, i) = row[i];
    }
    sum.round();
    Array& mean = c.input("mean", {rows}, normal, Dtype::fp32);
    Array& rstd = c.input("rstd", {rows}, normal, Dtype::fp32);
    for (int64_t r = 0; r < rows; ++r) {
      auto first = sum.value.begin() + r * width;
      auto [m, s] = statistics({first, first + width});
      mean(r) = m, rstd(r) = s;
    }
    mean.round(), rstd.round();
  }

  void reference(const Case& c, Fp64& f) const override {
    const Array &sum = c["sum"], &mean = c["mean"], &rstd = c["rstd"], &gain = c["gain"], &d_out = c["d_out"];
    Dropout dropout = c.dropout(RandomUse::residual_dropout);
    int64_t width = c("D");
    double terms = 0;  // the size of what cancels in a row without variance
    for (int64_t r = 0; r < c("rows"); ++r) {
      double average = 0, along = 0;  // of d_out gain, and of its product with the normalised row
      auto normalised = [&](int64_t i) { return f.store((sum(r, i) - mean(r)) * rstd(r)); };
      for (int64_t i = 0; i < width && !d_out.empty(); ++i) {
        average += d_out(r, i) * gain(i) / width;
        along += d_out(r, i) * gain(i) * normalised(i) / width;
        f.at("d_gain")(i) += d_out(r, i) * normalised(i);
        f.at("d_bias")(i) += d_out(r, i);
        terms = std::hypot(terms, rstd(r) * d_out(r, i) * gain(i));
      }
      for (int64_t i = 0; i < width && c("parts") & 1; ++i) {
        double& d_sum = f.at("d_sum")(r, i);
        if (!d_out.empty()) d_sum += f.store(rstd(r) * (d_out(r, i) * gain(i) - average - normalised(i) * along));
        if (c("parts") & 2) f.at("d_x")(r, i) = d_sum * (dropout ? dropout.factor(r * width + i) : 1);
      }
    }
    f.scale("d_sum", terms), f.scale("d_x", terms);
  }

  std::vector<Gradient> gradients(const Case& c) const override {
    if (c["d_out"].empty()) return {};
    std::vector<Gradient> list = {{"gain", "d_gain"}, {"bias", "d_bias"}};
    if (c("parts") & 1) list.push_back({"residual", "d_sum"});
    if (c("parts") & 2) list.push_back({"x", "d_x"});
    return list;
  }
  double objective(const Case& c) const override {
    double total = 0;
    for (int64_t r = 0; r < c("rows"); ++r) {
      std::vector<double> sum = summed(c, r);
      auto [mean, rstd] = statistics(sum);
      for (int64_t i = 0; i < c("D"); ++i)
        total += c["d_out"](r, i) * ((sum[i] - mean) * rstd * c["gain"](i) + c["bias"](i));
    }
    return total;
  }

  void run(Device& device, const Case& c, Bound& d) const override {
    device.layernorm_backward({.d_sum = d["d_sum"],
                               .d_x = d["d_x"],
                               .d_gain = d["d_gain"],
                               .d_bias = d["d_bias"],
                               .d_out = d["d_out"],
                               .sum = d["sum"],
                               .mean = d["mean"],
                               .rstd = d["rstd"],
                               .gain = d["gain"],
                               .dropout = c.dropout(RandomUse::residual_dropout)});
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["D"];
    return {elements * (4 + (s["parts"] >> 1 & 1)) * dtype_bytes(type), 14 * elements};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"rows", 4096}, {"D", 768}, {"residual", 1}, {"parts", 5}}};
  }
};

}  // namespace

std::unique_ptr<Operation> layernorm_forward_row() { return std::make_unique<LayerNormForwardRow>(); }
std::unique_ptr<Operation> layernorm_backward_row() { return std::make_unique<LayerNormBackwardRow>(); }

}  // namespace longhand::ops
