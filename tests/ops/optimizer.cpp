// AdamW over many tensors in every precision mode, the global norm of gradients, FGM's step.
#include <cmath>

#include "tests/ops/pointwise.h"

namespace longhand::ops {
namespace {

std::string numbered(const char* name, int64_t n) { return fmt::format("{}{}", name, n); }

/// The sizes of tensor n of a case: not multiples of anything, and one of a single entry.
Shape tensor_shape(const Case& c, int64_t n) {
  if (n == 1) return {1};
  if (n == 2) return {3, 5, 7};
  return {c("rows") + n, c("D")};
}

/// master: weights are bf16 with an fp32 master. low: the moments are bf16, rounded stochastically. In bf16 without a
/// master the weights are rounded stochastically.
struct AdamWRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t step : {1, 3, 1000})
      for (int64_t master : {0, 1})
        for (int64_t low : {0, 1})
          list.push_back({{"tensors", step == 3 ? 4 : 1},
                          {"rows", step == 3 ? 6 : 70},
                          {"D", 33},
                          {"step", step},
                          {"master", master},
                          {"low", low},
                          {"decay", step != 1}});
    return list;
  }
  std::vector<Dtype> types(const Sizes& s) const override {
    return s["master"] ? std::vector{Dtype::bf16} : std::vector{Dtype::fp32, Dtype::bf16};
  }

  static bool stochastic_weight(const Case& c) { return c.type == Dtype::bf16 && !c("master"); }
  static AdamW settings(const Case& c) {
    AdamW a;
    a.learning_rate = 0.01f, a.gradient_scale = 0.5f, a.step = c("step");
    a.rounding = {.seed = 11, .step = static_cast<uint64_t>(c("step")), .use = RandomUse::stochastic_rounding};
    return a;
  }
  static AdamWParameter parameter(const Case& c, int64_t n) {
    AdamWParameter p;
    p.weight_decay = c("decay") && n != 1 ? 0.1f : 0.0f;
    p.index = static_cast<uint32_t>(n);
    p.learning_rate_scale = n == 2 ? 0.5f : 1.0f;
    return p;
  }

  void inputs(Case& c, Random& random) const override {
    auto normal = [&] { return random.normal(); };
    Dtype moments = c("low") ? Dtype::bf16 : Dtype::fp32;
    for (int64_t n = 0; n < c("tensors"); ++n) {
      Shape shape = tensor_shape(c, n);
      c.input(numbered("gradient", n), shape, normal);
      Array& weight = c.update(numbered("weight", n), shape, normal);
      if (c("master")) {
        c.update(numbered("master", n), shape, normal, Dtype::fp32);
        weight.value = c[numbered("master", n)].value;
        weight.round();
      }
      auto first = [&](double x) { return c("step") == 1 ? 0 : x; };
      c.update(
          numbered("m", n), shape, [&] { return first(random.normal() / 3); }, moments);
      c.update(
          numbered("v", n), shape, [&] { return first(std::exp(random.normal()) / 10); }, moments);
    }
  }

  void reference(const Case& c, Fp64& f) const override {
    AdamW a = settings(c);
    for (int64_t n = 0; n < c("tensors"); ++n) {
      AdamWParameter p = parameter(c, n);
      const Array& gradient = c[numbered("gradient", n)];
      Array &weight = f.at(numbered("weight", n)), &m = f.at(numbered("m", n)), &v = f.at(numbered("v", n));
      const Array& start = c[numbered(c("master") ? "master" : "weight", n)];
      if (c("low")) f.judged_by_row(numbered("m", n)), f.judged_by_row(numbered("v", n));
      if (stochastic_weight(c)) f.judged_by_row(numbered("weight", n));
      double lr = static_cast<double>(a.learning_rate) * p.learning_rate_scale;
      for (int64_t e = 0; e < gradient.elements(); ++e) {
        double g = a.gradient_scale * gradient.value[e], w = start.value[e];
        m.value[e] = a.beta1 * m.value[e] + (1 - static_cast<double>(a.beta1)) * g;
        v.value[e] = a.beta2 * v.value[e] + (1 - static_cast<double>(a.beta2)) * g * g;
        double m_hat = m.value[e] / (1 - std::pow(static_cast<double>(a.beta1), a.step));
        double v_hat = v.value[e] / (1 - std::pow(static_cast<double>(a.beta2), a.step));
        w -= lr * (m_hat / (std::sqrt(v_hat) + a.eps) + p.weight_decay * w);
        weight.value[e] = w;
        if (c("master")) f.at(numbered("master", n)).value[e] = w;
      }
    }
  }

  /// What is rounded stochastically is one of two neighbours and unbiased; the weight beside a master is its rounding.
  void check(const Case& c, const Arrays& result, const Fp64& exact, const Complaint& complain) const override {
    for (int64_t n = 0; n < c("tensors"); ++n) {
      for (const char* name : {"m", "v"})
        if (c("low"))
          check_stochastic(numbered(name, n), exact[numbered(name, n)], result[numbered(name, n)], complain);
      std::string weight = numbered("weight", n), master = numbered("master", n);
      if (stochastic_weight(c)) check_stochastic(weight, exact[weight], result[weight], complain);
      if (!c("master")) continue;
      int64_t wrong = 0;
      for (int64_t e = 0; e < result[master].elements(); ++e)
        wrong += result[weight].value[e] != round_to(c.type, result[master].value[e]);
      if (wrong) complain("weights that are not their master's rounding", static_cast<double>(wrong), 0);
    }
  }

  void run(Device& device, const Case& c, Bound& d) const override {
    std::vector<AdamWParameter> parameters;
    for (int64_t n = 0; n < c("tensors"); ++n) {
      AdamWParameter p = parameter(c, n);
      p.weight = d[numbered("weight", n)], p.master = d[numbered("master", n)];
      p.m = d[numbered("m", n)], p.v = d[numbered("v", n)], p.gradient = d[numbered("gradient", n)];
      parameters.push_back(p);
    }
    AdamW a = settings(c);
    a.parameters = parameters;
    device.adamw(a);
  }

  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["D"];
    return {elements * (3 * dtype_bytes(type) + (s["master"] ? 8 - dtype_bytes(type) : 0) + (s["low"] ? 8 : 16)),
            16 * elements};
  }
  std::vector<Sizes> timed_shapes() const override {
    return {{{"tensors", 1}, {"rows", 3072}, {"D", 768}, {"step", 5}},
            {{"tensors", 1}, {"rows", 3072}, {"D", 768}, {"step", 5}, {"low", 1}}};
  }
};

/// kind: 1 = one entry is NaN, 2 = one is infinite, 3 = large entries, whose squares need a wide sum.
struct GlobalNormRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t kind : {0, 1, 2, 3}) list.push_back({{"tensors", 4}, {"rows", 9}, {"D", 77}, {"kind", kind}});
    list.push_back({{"tensors", 1}, {"rows", 1}, {"D", 1}});
    list.push_back({{"tensors", 1}, {"rows", 300}, {"D", 1001}});
    return list;
  }
  void inputs(Case& c, Random& random) const override {
    double size = c("kind") == 3 ? 1e9 : 1;
    for (int64_t n = 0; n < c("tensors"); ++n)
      c.input(numbered("tensor", n), tensor_shape(c, n), [&] { return size * random.normal(); });
    if (c("kind") == 1) c.at("tensor1")(0) = NAN;
    if (c("kind") == 2) c.at("tensor2").value[50] = -INFINITY;
    c.output("norm", {1}, Dtype::fp32);
  }
  void reference(const Case& c, Fp64& f) const override {
    double sum = 0;
    for (int64_t n = 0; n < c("tensors"); ++n)
      for (double x : c[numbered("tensor", n)].value) sum += x * x;
    f.at("norm")(0) = std::sqrt(sum);
  }
  void run(Device& device, const Case& c, Bound& d) const override {
    std::vector<ConstTensor> tensors;
    for (int64_t n = 0; n < c("tensors"); ++n) tensors.push_back(d[numbered("tensor", n)]);
    device.global_norm({.norm = d["norm"], .tensors = tensors});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["D"];
    return {elements * dtype_bytes(type), 2 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"tensors", 1}, {"rows", 3072}, {"D", 768}}}; }
};

/// Norm and step together. kind: 1 = an entry is NaN, 2 = one is infinite, 3 = all are 0 (each: no step), 4 = entries
/// whose squares are too small for fp32. other: the gradient has the other float type.
struct FgmStepRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list;
    for (int64_t kind : {0, 1, 2, 3, 4}) list.push_back({{"rows", 9}, {"D", 77}, {"kind", kind}});
    for (int64_t other : {0, 1}) {
      list.push_back({{"rows", 1}, {"D", 1}, {"other", other}});
      list.push_back({{"rows", 301}, {"D", 1001}, {"other", other}});
      list.push_back({{"rows", 64}, {"D", 128}, {"other", other}});
    }
    return list;
  }
  void inputs(Case& c, Random& random) const override {
    Shape shape{c("rows"), c("D")};
    Dtype other = c.type == Dtype::fp32 ? Dtype::bf16 : Dtype::fp32;
    double size = c("kind") == 3 ? 0 : c("kind") == 4 ? 1e-30 : 1;
    c.update("x", shape, [&] { return random.normal(); });
    Array& gradient = c.input(
        "gradient", shape, [&] { return size * random.normal(); }, c("other") ? other : c.type);
    if (c("kind") == 1) gradient.value[100] = NAN;
    if (c("kind") == 2) gradient.value[50] = -INFINITY;
    c.output("norm", {1}, Dtype::fp32);
  }
  static constexpr float epsilon = 1.5f;
  void reference(const Case& c, Fp64& f) const override {
    const Array& gradient = c["gradient"];
    double sum = 0;
    for (double g : gradient.value) sum += g * g;
    double norm = std::sqrt(sum);
    f.at("norm")(0) = norm;
    if (norm == 0 || !std::isfinite(norm)) return;
    Array& x = f.at("x");
    for (int64_t e = 0; e < x.elements(); ++e) x.value[e] += epsilon * gradient.value[e] / norm;
  }
  /// Without a step not a bit changes.
  void check(const Case& c, const Arrays& result, const Fp64& exact, const Complaint& complain) const override {
    double norm = exact["norm"](0);
    if (norm > 0 && std::isfinite(norm)) return;
    int64_t changed = 0;
    for (int64_t e = 0; e < c["x"].elements(); ++e) changed += result["x"].value[e] != c["x"].value[e];
    if (changed) complain("entries changed without a step", static_cast<double>(changed), 0);
  }
  void run(Device& device, const Case&, Bound& d) const override {
    std::vector<ConstTensor> gradient{d["gradient"]};
    device.global_norm({.norm = d["norm"], .tensors = gradient});
    device.fgm_step({.x = d["x"], .gradient = gradient[0], .norm = d["norm"], .epsilon = epsilon});
  }
  Cost cost(const Sizes& s, Dtype type) const override {  // the gradient twice: for its norm and for the step
    double elements = s["rows"] * s["D"];
    return {4 * elements * dtype_bytes(type), 5 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 32768}, {"D", 768}}}; }
};

}  // namespace

std::unique_ptr<Operation> adamw_row() { return std::make_unique<AdamWRow>(); }
std::unique_ptr<Operation> global_norm_row() { return std::make_unique<GlobalNormRow>(); }
std::unique_ptr<Operation> fgm_step_row() { return std::make_unique<FgmStepRow>(); }

}  // namespace longhand::ops
