#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "longhand/device.h"

using namespace longhand;

namespace {

float normal(uint64_t seed, uint64_t i) {
  RandomStream stream{.seed = seed};
  return std::sqrt(-2 * std::log(uniform_positive(stream.bits(2 * i)))) *
         std::cos(6.2831853f * uniform(stream.bits(2 * i + 1)));
}

/// A matrix whose rows lie `gap` elements further apart than they need; the gaps hold NaN.
struct Filled {
  std::vector<char> memory;
  Tensor view;
  int64_t stride;

  Filled() = default;
  Filled(Dtype type, int64_t rows, int64_t columns, int64_t gap, uint64_t seed) : stride(columns + gap) {
    memory.resize(rows * stride * dtype_bytes(type) + 64);
    Tensor whole(memory.data(), type, {rows, stride});
    view = whole.slice(1, 0, columns);
    for (int64_t i = 0; i < rows * stride; ++i)
      set(i, i % stride < columns ? seed ? normal(seed, i) : 0.5f : std::nanf(""));
  }
  void set(int64_t i, float x) {
    if (view.type() == Dtype::fp32)
      reinterpret_cast<float*>(memory.data())[i] = x;
    else
      reinterpret_cast<bf16*>(memory.data())[i] = bf16(x);
  }
  double at(int64_t r, int64_t c) const {
    int64_t i = r * stride + c;
    return view.type() == Dtype::fp32 ? reinterpret_cast<const float*>(memory.data())[i]
                                      : static_cast<float>(reinterpret_cast<const bf16*>(memory.data())[i]);
  }
};

struct Case {
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = true;
  Dtype a = Dtype::fp32, b = Dtype::fp32, out = Dtype::fp32;
  int64_t gap = 0;
  Activation activation = Activation::none;
  bool bias = false, pre = false, accumulate = false;
  float dropout = 0;
};

struct Run {
  Filled a, b, bias, out, pre;
  Matmul op;

  explicit Run(const Case& c)
      : a(c.a, c.transpose_a ? c.k : c.m, c.transpose_a ? c.m : c.k, c.gap, 1),
        b(c.b, c.transpose_b ? c.n : c.k, c.transpose_b ? c.k : c.n, 2 * c.gap, 2),
        bias(c.b, 1, c.n, 0, 3),
        out(c.out, c.m, c.n, 3 * c.gap, 0),
        pre(c.out, c.m, c.n, c.gap, 0) {
    op = {.out = out.view,
          .a = a.view,
          .b = b.view,
          .transpose_a = c.transpose_a,
          .transpose_b = c.transpose_b,
          .activation = c.activation,
          .accumulate = c.accumulate};
    if (c.bias) op.bias = bias.view.reshape({c.n});
    if (c.pre) op.pre_activation = pre.view;
    if (c.dropout > 0)
      op.dropout = {c.dropout, {.seed = 77, .step = 5, .use = RandomUse::activation_dropout, .layer = 3}};
  }
};

void check(Device& device, const Case& c) {
  Run run(c);
  device.matmul(run.op);
  double error = 0, size = 0, pre_error = 0, pre_size = 0;
  bool dropped_alike = true, gaps_alone = true;
  for (int64_t i = 0; i < c.m; ++i) {
    for (int64_t j = 0; j < c.n; ++j) {
      double x = c.bias ? run.bias.at(0, j) : 0;
      double terms = std::abs(x);
      for (int64_t p = 0; p < c.k; ++p) {
        double term =
            (c.transpose_a ? run.a.at(p, i) : run.a.at(i, p)) * (c.transpose_b ? run.b.at(j, p) : run.b.at(p, j));
        x += term, terms += std::abs(term);
      }
      if (c.pre) pre_error += std::pow(run.pre.at(i, j) - x, 2), pre_size += terms * terms;
      if (c.activation == Activation::relu) x = std::max(x, 0.0);
      if (c.activation == Activation::gelu) x = x / 2 * std::erfc(-x / std::sqrt(2.0));
      if (c.dropout > 0) {
        double factor = run.op.dropout.factor(i * c.n + j);
        if (factor == 0) dropped_alike = dropped_alike && run.out.at(i, j) == 0;
        x *= factor;
      }
      if (c.accumulate) x += 0.5, terms += 0.5;
      error += std::pow(run.out.at(i, j) - x, 2), size += terms * terms;
    }
    for (int64_t j = c.n; j < run.out.stride; ++j) gaps_alone = gaps_alone && std::isnan(run.out.at(i, j));
  }
  // Storing bf16 costs 2^-8 at most; the processor's bf16 product flushes subnormals, no more.
  double limit = c.out == Dtype::bf16 ? 4e-3 : 1e-6;
  INFO("m ", c.m, " n ", c.n, " k ", c.k, " transposes ", c.transpose_a, c.transpose_b, " types ",
       std::string(dtype_name(c.a)), " ", std::string(dtype_name(c.b)), " ", std::string(dtype_name(c.out)), " gap ",
       c.gap, " accumulate ", c.accumulate, " activation ", static_cast<int>(c.activation), " dropout ", c.dropout,
       " threads ", device.threads());
  CHECK(std::sqrt(error) <= limit * std::sqrt(size) + 1e-30);
  CHECK(std::sqrt(pre_error) <= limit * std::sqrt(pre_size));
  CHECK(dropped_alike);
  CHECK(gaps_alone);
}

std::vector<std::unique_ptr<Device>> devices() {
  std::vector<std::unique_ptr<Device>> all;
  for (int threads : {1, 2, 3}) all.push_back(make_device("cpu", {.threads = threads}));
  return all;
}

constexpr Dtype types[] = {Dtype::fp32, Dtype::bf16};

}  // namespace

TEST_CASE("a matrix product agrees with double for every transpose and awkward sizes") {
  auto all = devices();
  const int64_t sizes[] = {1, 3, 8, 17, 63, 65, 129};
  int turn = 0;
  for (int64_t m : sizes)
    for (int64_t n : sizes)
      for (int64_t k : sizes)
        for (int t = 0; t < 4; ++t) {
          ++turn;
          Case c{.m = m, .n = n, .k = k, .transpose_a = (t & 1) != 0, .transpose_b = !(t & 2), .gap = turn % 4};
          c.accumulate = turn % 5 == 0;
          check(*all[turn % 3], c);
        }
}

TEST_CASE("a matrix product takes any mixture of fp32 and bf16") {
  auto all = devices();
  int turn = 0;
  for (Dtype a : types)
    for (Dtype b : types)
      for (Dtype out : types)
        for (int t = 0; t < 4; ++t)
          for (auto [m, n, k] : {std::array<int64_t, 3>{5, 7, 9}, {70, 65, 129}, {33, 100, 64}, {2, 40, 1}})
            for (bool accumulate : {false, true}) {
              Case c{.m = m,
                     .n = n,
                     .k = k,
                     .transpose_a = (t & 1) != 0,
                     .transpose_b = !(t & 2),
                     .a = a,
                     .b = b,
                     .out = out};
              c.gap = ++turn % 3;
              c.accumulate = accumulate;
              check(*all[turn % 3], c);
            }
}

TEST_CASE("bias, activation, the kept value and dropout follow a matrix product") {
  auto all = devices();
  int turn = 0;
  for (Activation activation : {Activation::none, Activation::relu, Activation::gelu})
    for (bool bias : {false, true})
      for (bool pre : {false, true})
        for (float dropout : {0.0f, 0.1f, 0.6f})
          for (Dtype type : types)
            for (auto [m, n, k] : {std::array<int64_t, 3>{1, 65, 33}, {6, 64, 20}, {30, 71, 17}, {40, 128, 64}}) {
              Case c{.m = m, .n = n, .k = k, .a = type, .b = type, .out = type, .gap = ++turn % 2};
              c.activation = activation, c.bias = bias, c.pre = pre, c.dropout = dropout;
              check(*all[turn % 3], c);
            }
}

TEST_CASE("a matrix product over a long inner axis adds its blocks") {
  auto all = devices();
  int turn = 0;
  for (int64_t k : {1025, 2048, 4099})
    for (Dtype type : types)
      for (Dtype out : types)
        for (bool accumulate : {false, true})
          for (int t = 0; t < 4; ++t)
            for (int64_t m : {3, 19}) {
              Case c{
                  .m = m, .n = 37, .k = k, .transpose_a = (t & 1) != 0, .transpose_b = !(t & 2), .a = type, .b = type};
              c.out = out, c.gap = 1;
              c.accumulate = accumulate, c.bias = !accumulate, c.pre = !accumulate;
              check(*all[++turn % 3], c);
            }
}

TEST_CASE("a product over nothing is the bias") {
  auto device = make_device("cpu", {.threads = 1});
  Case c{.m = 3, .n = 5, .k = 0, .bias = true};
  check(*device, c);
  c.transpose_a = true, c.transpose_b = false;
  check(*device, c);
  c.m = 0;
  check(*device, c);
}

TEST_CASE("gelu is accurate to 1e-6 relative down its tail") {
  auto device = make_device("cpu", {.threads = 1});
  const int64_t n = 4001;
  std::vector<float> one = {1}, x(n), y(n);
  for (int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(i) * 0.0045f - 9.0f;
  device->matmul({.out = Tensor(y.data(), Dtype::fp32, {n, 1}),
                  .a = Tensor(x.data(), Dtype::fp32, {n, 1}),
                  .b = Tensor(one.data(), Dtype::fp32, {1, 1}),
                  .activation = Activation::gelu});
  double worst = 0;
  for (int64_t i = 0; i < n; ++i) {
    double exact = double(x[i]) / 2 * std::erfc(-double(x[i]) / std::sqrt(2.0));
    worst = std::max(worst, std::abs(y[i] - exact) / (std::abs(exact) + 1e-37));
  }
  CHECK(worst < 1e-6);
}

TEST_CASE("a matrix product has the same bits in every run and for every number of threads") {
  auto all = devices();
  for (Dtype type : types)
    for (int t = 0; t < 4; ++t)
      for (auto [m, n, k] : {std::array<int64_t, 3>{4, 300, 200}, {61, 300, 1100}, {300, 40, 1500}, {200, 333, 77}}) {
        Case c{.m = m, .n = n, .k = k, .transpose_a = (t & 1) != 0, .transpose_b = !(t & 2), .a = type, .b = type};
        Run first(c);
        all[0]->matmul(first.op);
        for (int repeat = 0; repeat < 6; ++repeat) {
          Run again(c);
          all[repeat % 3]->matmul(again.op);
          CHECK(std::memcmp(first.out.memory.data(), again.out.memory.data(), m * n * 4) == 0);
        }
      }
}

TEST_CASE("a matrix product refuses shapes that do not fit") {
  auto device = make_device("cpu", {.threads = 1});
  std::vector<float> x(100);
  Tensor square(x.data(), Dtype::fp32, {4, 4}), wide(x.data(), Dtype::fp32, {4, 5});
  CHECK_THROWS_AS(device->matmul({.out = square, .a = square, .b = wide}), Error);
  CHECK_THROWS_AS(device->matmul({.out = wide, .a = square, .b = square}), Error);
  CHECK_THROWS_AS(device->matmul({.out = square, .a = Tensor(x.data(), Dtype::i32, {4, 4}), .b = square}), Error);
  CHECK_THROWS_AS(
      device->matmul({.out = square, .a = square, .b = square, .activation = Activation::relu, .accumulate = true}),
      Error);
}
