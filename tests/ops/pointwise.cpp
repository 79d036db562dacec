// Operations without arithmetic of their own to speak of: activation forward and backward, bias backward, cast, add,
// memory roll.
#include "tests/ops/pointwise.h"

#include <array>

#include "tests/ops/operation.h"

namespace longhand::ops {
namespace {

/// other: out is of the other type.
struct ActivationForwardRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (auto [rows, width] : std::vector<std::array<int64_t, 2>>{{1, 1}, {3, 7}, {11, 33}, {5, 512}})
      for (int64_t activation : {0, 1, 2})
        list.push_back({{"rows", rows},
                        {"F", width},
                        {"activation", activation},
                        {"other", rows % 2 && rows > 3},
                        {"in_place", rows == 3}});
    return list;
  }
  void inputs(Case& c, Random& random) const override {
    Shape shape{c("rows"), c("F")};
    c.input("x", shape, [&] { return 3 * random.normal(); });
    Dtype other = c.type == Dtype::fp32 ? Dtype::bf16 : Dtype::fp32;
    c.output("out", shape, c("other") ? other : c.type).alias = c("in_place") ? "x" : "";
  }
  void reference(const Case& c, Fp64& f) const override {
    for (int64_t e = 0; e < c["x"].elements(); ++e)
      f.at("out").value[e] = activate(static_cast<Activation>(c("activation")), c["x"].value[e]);
  }
  void run(Device& device, const Case& c, Bound& d) const override {
    device.activation_forward({.out = d["out"], .x = d["x"], .activation = static_cast<Activation>(c("activation"))});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["F"];
    return {2 * elements * dtype_bytes(type), 20 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 2048}, {"F", 3072}, {"activation", 2}}}; }
};

struct ActivationBackwardRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (auto [rows, width] : std::vector<std::array<int64_t, 2>>{{1, 1}, {3, 7}, {11, 33}, {5, 512}, {37, 129}})
      for (int64_t activation : {0, 1, 2})
        list.push_back({{"rows", rows},
                        {"F", width},
                        {"activation", activation},
                        {"dropout", rows % 3 == 2},
                        {"in_place", rows == 11}});
    list.push_back({{"rows", 37}, {"F", 70}, {"activation", 2}, {"dropout", 1}, {"in_place", 1}});
    return list;
  }
  double limit() const override { return 1e-4; }

  void inputs(Case& c, Random& random) const override {
    Shape shape{c("rows"), c("F")};
    c.input("x", shape, [&] {
      double x = 2 * random.normal();  // away from the corner of relu, where there is no derivative
      return std::abs(x) < 0.01 ? 0.01 : x;
    });
    c.input("d_out", shape, [&] { return random.normal(); });
    c.output("d_x", shape).alias = c("in_place") ? "d_out" : "";
  }
  void reference(const Case& c, Fp64& f) const override {
    Dropout dropout = c.dropout(RandomUse::activation_dropout);
    auto activation = static_cast<Activation>(c("activation"));
    for (int64_t e = 0; e < c["x"].elements(); ++e) {
      double kept = f.store(c["d_out"].value[e] * (dropout ? dropout.factor(e) : 1));
      f.at("d_x").value[e] = kept * activation_slope(activation, c["x"].value[e]);
    }
  }
  std::vector<Gradient> gradients(const Case& c) const override {
    return c("in_place") ? std::vector<Gradient>{} : std::vector<Gradient>{{"x", "d_x"}};
  }
  double objective(const Case& c) const override {
    Dropout dropout = c.dropout(RandomUse::activation_dropout);
    double total = 0;
    for (int64_t e = 0; e < c["x"].elements(); ++e)
      total += c["d_out"].value[e] * (dropout ? dropout.factor(e) : 1) *
               activate(static_cast<Activation>(c("activation")), c["x"].value[e]);
    return total;
  }
  void run(Device& device, const Case& c, Bound& d) const override {
    device.activation_backward({.d_x = d["d_x"],
                                .d_out = d["d_out"],
                                .x = d["x"],
                                .activation = static_cast<Activation>(c("activation")),
                                .dropout = c.dropout(RandomUse::activation_dropout)});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["F"];
    return {3 * elements * dtype_bytes(type), 20 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 2048}, {"F", 3072}, {"activation", 2}}}; }
};

struct BiasBackwardRow : Operation {
  std::vector<Sizes> shapes() const override {
    return {{{"rows", 1}, {"n", 1}},   {{"rows", 5}, {"n", 7}},    {{"rows", 33}, {"n", 128}},
            {{"rows", 70}, {"n", 45}}, {{"rows", 1000}, {"n", 3}}, {{"rows", 2}, {"n", 1025}}};
  }
  double limit() const override { return 1e-4; }
  void inputs(Case& c, Random& random) const override {
    auto normal = [&] { return random.normal(); };
    c.input("d_out", {c("rows"), c("n")}, normal);
    c.input("bias", {c("n")}, normal);
    c.update("d_bias", {c("n")}, normal);
  }
  void reference(const Case& c, Fp64& f) const override {
    for (int64_t r = 0; r < c("rows"); ++r)
      for (int64_t j = 0; j < c("n"); ++j) f.at("d_bias")(j) += c["d_out"](r, j);
  }
  std::vector<Gradient> gradients(const Case&) const override { return {{"bias", "d_bias"}}; }
  double objective(const Case& c) const override {
    double total = 0;
    for (int64_t r = 0; r < c("rows"); ++r)
      for (int64_t j = 0; j < c("n"); ++j) total += c["d_out"](r, j) * c["bias"](j);
    return total;
  }
  void run(Device& device, const Case&, Bound& d) const override {
    device.bias_backward({.d_bias = d["d_bias"], .d_out = d["d_out"]});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["n"];
    return {elements * dtype_bytes(type), elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 2048}, {"n", 3072}}}; }
};

/// fp32 to bf16 and back, each to itself (same), to and from fp16 (half, from_half), and stochastically to bf16.
struct CastRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (auto [rows, width] : std::vector<std::array<int64_t, 2>>{{1, 1}, {3, 7}, {5, 1000}, {1, 16}})
      for (const char* to : {"other", "same", "half"}) list.push_back({{"rows", rows}, {"n", width}, {to, 1}});
    list.push_back({{"rows", 5}, {"n", 33}, {"from_half", 1}});
    list.push_back({{"rows", 40}, {"n", 101}, {"stochastic", 1}});
    for (const char* from : {"same", "from_half"})
      list.push_back({{"rows", 5}, {"n", 33}, {"stochastic", 1}, {from, 1}});
    return list;
  }
  std::vector<Dtype> types(const Sizes& s) const override {
    if (s["stochastic"]) return {s["same"] || s["from_half"] ? Dtype::bf16 : Dtype::fp32};
    return {Dtype::fp32, Dtype::bf16};
  }
  bool exact() const override { return true; }
  void inputs(Case& c, Random& random) const override {
    Shape shape{c("rows"), c("n")};
    auto wide = [&] { return std::exp(4 * random.normal()) * (random.below(2) ? 1 : -1); };
    auto narrow = [&] { return std::exp(random.normal()) * (random.below(2) ? 1 : -1); };
    Array& x = c("half") || c("from_half") ? c.input("x", shape, narrow) : c.input("x", shape, wide);
    if (c("from_half")) x.type = Dtype::fp16;
    for (int64_t e = 0; e < x.elements(); e += 5) x.value[e] = 1 + std::exp2(-8);  // halfway between two bf16
    for (int64_t e = 0; e < x.elements(); e += 7) x.value[e] = 0;
    x.round();
    Dtype other = c.type == Dtype::fp32 ? Dtype::bf16 : Dtype::fp32;
    c.output("out", shape, c("same") || c("from_half") ? c.type : c("half") ? Dtype::fp16 : other);
  }
  void reference(const Case& c, Fp64& f) const override {
    f.at("out").value = c["x"].value;
    if (c("stochastic")) f.judged_by_row("out");
  }
  void check(const Case& c, const Arrays& result, const Fp64&, const Complaint& complain) const override {
    if (c("stochastic")) check_stochastic("out", c["x"], result["out"], complain);
  }
  void run(Device& device, const Case& c, Bound& d) const override {
    device.cast({.out = d["out"],
                 .x = d["x"],
                 .stochastic = c("stochastic") != 0,
                 .stream = {.seed = 5, .step = 2, .use = RandomUse::stochastic_rounding, .layer = 1}});
  }
  Cost cost(const Sizes& s, Dtype) const override {
    double elements = s["rows"] * s["n"];
    return {(s["same"] ? 8 : 6) * elements, elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 2048}, {"n", 3072}}}; }
};

/// in_place: 1 = out lies in a, 2 = in b. split: a and b have other shapes of equal size.
struct AddRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (auto [rows, width] : std::vector<std::array<int64_t, 2>>{{1, 1}, {3, 7}, {16, 33}, {5, 1000}})
      for (int64_t in_place : {0, 1, 2}) list.push_back({{"rows", rows}, {"n", width}, {"in_place", in_place}});
    return list;
  }
  void inputs(Case& c, Random& random) const override {
    auto normal = [&] { return random.normal(); };
    c.input("a", {c("rows"), c("n")}, normal);
    c.input("b", {c("rows") * c("n")}, normal);
    c.output("out", c("in_place") == 2 ? c["b"].shape : c["a"].shape).alias = c("in_place") == 0   ? ""
                                                                              : c("in_place") == 1 ? "a"
                                                                                                   : "b";
  }
  void reference(const Case& c, Fp64& f) const override {
    for (int64_t e = 0; e < c["a"].elements(); ++e) f.at("out").value[e] = c["a"].value[e] + c["b"].value[e];
  }
  void run(Device& device, const Case&, Bound& d) const override {
    device.add({.out = d["out"], .a = d["a"], .b = d["b"]});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["n"];
    return {3 * elements * dtype_bytes(type), elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 2048}, {"n", 3072}}}; }
};

struct MemoryRollRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (auto [keys, memory] : std::vector<std::array<int64_t, 2>>{{1, 1}, {9, 5}, {12, 12}, {40, 39}, {8, 0}})
      list.push_back({{"K", keys}, {"memory", memory}, {"B", 3}, {"D", 17}});
    return list;
  }
  bool exact() const override { return true; }
  void inputs(Case& c, Random& random) const override {
    c.input("context", {c("K"), c("B"), c("D")}, [&] { return random.normal(); });
    c.output("memory", {c("memory"), c("B"), c("D")});
  }
  void reference(const Case& c, Fp64& f) const override {
    const Array& context = c["context"];
    std::vector<double>& memory = f.at("memory").value;
    memory.assign(context.value.end() - static_cast<int64_t>(memory.size()), context.value.end());
  }
  void run(Device& device, const Case&, Bound& d) const override {
    device.memory_roll({.memory = d["memory"], .context = d["context"]});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    return {2.0 * s["memory"] * s["B"] * s["D"] * dtype_bytes(type), 0};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"K", 1024}, {"memory", 512}, {"B", 8}, {"D", 768}}}; }
};

}  // namespace

/// Every value is one of its two neighbours in bf16, the mean is unbiased, and the nearer is not always taken.
void check_stochastic(const std::string& name, const Array& exact, const Array& rounded, const Complaint& complain) {
  double bias = 0, variance = 0, noise = 0;  // noise: of the fp32 sum that was rounded
  for (double x : exact.value) noise = std::max(noise, 1e-7 * std::abs(x));
  int64_t count = 0, outside = 0, farther = 0;
  for (int64_t e = 0; e < exact.elements(); ++e) {
    double x = exact.value[e], got = rounded.value[e];
    int exponent;
    std::frexp(x, &exponent);
    double step = std::ldexp(1, exponent - 8), below = std::floor(x / step) * step, part = (x - below) / step;
    double slack = noise / step;
    outside += !(std::abs(got - x) <= step * (1 + slack));
    if (slack > 0.01 || part < slack || part > 1 - slack) continue;
    bias += (got - x) / step;
    variance += part * (1 - part);
    farther += std::abs(got - x) > step * (0.5 + slack);
    ++count;
  }
  if (outside) complain(name + " is not one of the two neighbours", static_cast<double>(outside), 0);
  if (count < 200) return;
  double spread = 5 * std::sqrt(variance);
  if (!(std::abs(bias) <= spread)) complain(name + " is rounded with a bias", std::abs(bias), spread);
  double least = 0.1 * static_cast<double>(count);
  if (static_cast<double>(farther) < least)
    complain(name + " is rounded to nearest", static_cast<double>(farther), least);
}

std::unique_ptr<Operation> activation_forward_row() { return std::make_unique<ActivationForwardRow>(); }
std::unique_ptr<Operation> activation_backward_row() { return std::make_unique<ActivationBackwardRow>(); }
std::unique_ptr<Operation> bias_backward_row() { return std::make_unique<BiasBackwardRow>(); }
std::unique_ptr<Operation> cast_row() { return std::make_unique<CastRow>(); }
std::unique_ptr<Operation> add_row() { return std::make_unique<AddRow>(); }
std::unique_ptr<Operation> memory_roll_row() { return std::make_unique<MemoryRollRow>(); }

}  // namespace longhand::ops
