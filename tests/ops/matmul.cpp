// out = dropout(activation(a' b' + bias)), or out += a' b'.
#include <array>
#include <cmath>

#include "tests/ops/operation.h"
#include "tests/ops/pointwise.h"

namespace longhand::ops {
namespace {

/// mixed: which of a (1), b (2), out (4) and pre_activation (8) are fp32 when the others are bf16.
struct MatmulRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t ta : {0, 1})
      for (int64_t tb : {0, 1})
        for (auto [m, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {5, 7, 3}, {33, 65, 129}, {96, 128, 64}})
          list.push_back({{"m", m}, {"n", n}, {"k", k}, {"ta", ta}, {"tb", tb}, {"padded", m == 33}});
    for (int64_t m : {1, 2, 7, 13, 31})
      list.push_back({{"m", m}, {"n", 200}, {"k", 77}, {"tb", 1}, {"bias", 1}, {"activation", 2}});
    for (int64_t activation : {0, 1, 2})
      for (int64_t extras : {0, 1, 2, 3})
        list.push_back({{"m", 37},
                        {"n", 45},
                        {"k", 50},
                        {"tb", 1},
                        {"bias", extras != 0},
                        {"activation", activation},
                        {"pre", extras >= 2},
                        {"dropout", extras == 3}});
    for (int64_t ta : {0, 1})
      for (int64_t tb : {0, 1})
        list.push_back({{"m", 41}, {"n", 30}, {"k", 300}, {"ta", ta}, {"tb", tb}, {"accumulate", 1}, {"padded", ta}});
    for (int64_t mixed : {1, 2, 3, 4, 5, 6})
      list.push_back({{"m", 19}, {"n", 70}, {"k", 83}, {"ta", mixed == 5}, {"tb", mixed != 6}, {"mixed", mixed}});
    list.push_back({{"m", 23}, {"n", 34}, {"k", 45}, {"ta", 1}, {"tb", 0}, {"mixed", 4}, {"accumulate", 1}});
    list.push_back({{"m", 150}, {"n", 530}, {"k", 700}, {"tb", 1}});
    list.push_back({{"m", 300}, {"n", 100}, {"k", 1100}, {"tb", 0}});
    list.push_back({{"m", 130}, {"n", 260}, {"k", 600}, {"ta", 1}, {"tb", 0}, {"accumulate", 1}});
    list.push_back({{"m", 9}, {"n", 13}, {"k", 21}, {"mixed", 8}, {"pre", 1}, {"activation", 1}});
    return list;
  }
  std::vector<Dtype> types(const Sizes& s) const override {
    return s["mixed"] ? std::vector{Dtype::bf16} : std::vector{Dtype::fp32, Dtype::bf16};
  }

  void inputs(Case& c, Random& random) const override {
    int64_t m = c("m"), n = c("n"), k = c("k"), pad = c("padded") ? 5 : 0;
    auto type = [&](int64_t bit) { return c("mixed") & bit ? Dtype::fp32 : c.type; };
    auto normal = [&] { return random.normal(); };
    c.input("a", c("ta") ? Shape{k, m} : Shape{m, k}, normal, type(1)).padding = pad;
    c.input(
         "b", c("tb") ? Shape{n, k} : Shape{k, n}, [&] { return random.normal() / std::sqrt(k); }, type(2))
        .padding = 2 * pad;
    if (c("bias")) c.input("bias", {n}, normal);
    if (c("pre")) c.output("pre_activation", {m, n}, type(8)).padding = pad;
    if (c("accumulate"))
      c.update("out", {m, n}, normal, type(4)).padding = 3 * pad;
    else
      c.output("out", {m, n}, type(4)).padding = 3 * pad;
  }

  void reference(const Case& c, Fp64& f) const override {
    const Array &a = c["a"], &b = c["b"], &bias = c["bias"];
    Array &out = f.at("out"), pre = f["pre_activation"];
    Dropout dropout = c.dropout(RandomUse::activation_dropout);
    auto activation = static_cast<Activation>(c("activation"));
    int64_t m = c("m"), n = c("n"), k = c("k");
    std::vector<double> column(k);
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t p = 0; p < k; ++p) column[p] = c("tb") ? b(j, p) : b(p, j);
      for (int64_t i = 0; i < m; ++i) {
        double sum = 0;
        for (int64_t p = 0; p < k; ++p) sum += (c("ta") ? a(p, i) : a(i, p)) * column[p];
        if (!bias.empty()) sum += bias(j);
        if (!pre.empty()) pre(i, j) = sum;
        if (activation != Activation::none) sum = f.store(activate(activation, f.store(sum)));
        if (dropout) sum *= dropout.factor(i * n + j);
        out(i, j) = c("accumulate") ? out(i, j) + sum : sum;
      }
    }
    if (!pre.empty()) f.at("pre_activation") = pre;
  }

  void run(Device& device, const Case& c, Bound& d) const override { run_rows(device, c, d, c("m")); }

  static void run_rows(Device& device, const Case& c, Bound& d, int64_t rows) {
    device.matmul({.out = d["out"].rows(0, rows),
                   .pre_activation = d["pre_activation"],
                   .a = c("ta") ? d["a"] : d["a"].rows(0, rows),
                   .b = d["b"],
                   .bias = d["bias"],
                   .transpose_a = c("ta") != 0,
                   .transpose_b = c("tb") != 0,
                   .activation = static_cast<Activation>(c("activation")),
                   .dropout = c.dropout(RandomUse::activation_dropout),
                   .accumulate = c("accumulate") != 0});
  }

  /// A row's bits do not depend on how many rows stand beside it.
  void check_runs(Device& device, const Case& c, Bound& d, const Complaint& complain) const override {
    if (c("ta") || c("accumulate") || c("pre") || c("dropout") || c("m") < 2) return;
    run(device, c, d);
    Array all = d.results()["out"];
    for (int64_t rows : {int64_t{1}, c("m") / 2}) {
      d.reset();
      run_rows(device, c, d, rows);
      Array part = d.results()["out"];
      int64_t different = 0;
      for (int64_t e = 0; e < rows * c("n"); ++e) different += part.value[e] != all.value[e];
      if (different)
        complain(fmt::format("a product of {} of the rows has other elements", rows), static_cast<double>(different),
                 0);
    }
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    auto width = [&](int64_t bit) { return s["mixed"] & bit ? 4.0 : static_cast<double>(dtype_bytes(type)); };
    double m = s["m"], n = s["n"], k = s["k"];
    return {m * k * width(1) + k * n * width(2) + m * n * width(4) * (s["accumulate"] ? 2 : 1), 2 * m * n * k};
  }

  std::vector<Sizes> timed_shapes() const override {
    return {{{"m", 1024}, {"n", 1024}, {"k", 1024}, {"tb", 1}},
            {{"m", 512}, {"n", 3072}, {"k", 768}, {"tb", 1}, {"bias", 1}, {"activation", 2}},
            {{"m", 512}, {"n", 768}, {"k", 3072}},
            {{"m", 3072}, {"n", 768}, {"k", 512}, {"ta", 1}, {"accumulate", 1}},
            {{"m", 8}, {"n", 3072}, {"k", 768}, {"tb", 1}},
            {{"m", 1}, {"n", 4096}, {"k", 4096}, {"tb", 1}}};
  }
};

}  // namespace

std::unique_ptr<Operation> matmul_row() { return std::make_unique<MatmulRow>(); }

}  // namespace longhand::ops
