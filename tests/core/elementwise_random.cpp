// Random numbers in vectors, stochastic rounding, the optimizer.
#include "tests/core/elementwise.h"

#include "src/device/cpu/kernels/elementwise.h"
#include "src/device/cpu/launch.h"

using namespace longhand;

TEST_CASE("vectors of random words are those of the public header, from any element") {
  RandomStream stream{.seed = 0xfedcba9876543210ull, .step = 0x123456789abull, .use = RandomUse::shuffle, .layer = 513};
  cpu::RandomKey key = cpu::random_key(stream);
  for (uint64_t first : {0ull, 1ull, 6ull, 255ull, (1ull << 34) - 7, (1ull << 50) - 21}) {
    std::vector<uint32_t> words(1000);
    cpu::elementwise_kernels().random_words(key, first, 1000, words.data());
    bool equal = true;
    for (int i = 0; i < 1000; ++i) equal = equal && words[i] == stream.bits(first + i);
    CHECK(equal);
  }
}

static float round_by_chance(float x, uint32_t random) {
  uint32_t word;
  std::memcpy(&word, &x, 4);
  word = (word + (random >> 16)) & 0xffff0000u;
  std::memcpy(&x, &word, 4);
  return x;
}

TEST_CASE("stochastic rounding uses its documented bits and is unbiased") {
  auto device = make_device("cpu", {.threads = 3});
  int64_t n = 200003;
  Box x(Dtype::fp32, {n}), low(Dtype::bf16, {n});
  float value = 1.0f + 0.3f / 128;
  for (int64_t i = 0; i < n; ++i) x.set(i, i % 2 ? value : -value);
  RandomStream stream{.seed = 5, .use = RandomUse::stochastic_rounding, .layer = 9};
  device->cast({.out = low, .x = x, .stochastic = true, .stream = stream});
  double up = 0;
  bool equal = true;
  for (int64_t i = 0; i < n; ++i) {
    equal = equal && low[i] == round_by_chance(static_cast<float>(x[i]), stream.bits(i));
    up += std::abs(low[i]) > 1;
  }
  CHECK(equal);
  CHECK(std::abs(up / n - 0.3) < 4 * std::sqrt(0.21 / n) + 1e-4);
  for (float special : {INFINITY, -INFINITY, NAN}) {
    x.set(0, special);
    device->cast({.out = low, .x = x, .stochastic = true, .stream = stream});
    CHECK((std::isnan(special) ? std::isnan(low[0]) : low[0] == special));
  }
}

TEST_CASE("AdamW follows its equations in every mode of storage, the same bits with any number of threads") {
  auto one = make_device("cpu", {.threads = 1}), three = make_device("cpu", {.threads = 3});
  for (Dtype type : float_types)
    for (Dtype moment : float_types)
      for (bool with_master : {false, true}) {
        int64_t n = 40037;
        Box weight = random_box(type, {n}, 1), gradient = random_box(type, {n}, 2, -1, 1);
        Box m = random_box(moment, {n}, 3, -0.1, 0.1), v = random_box(moment, {n}, 4, 0.001, 0.1);
        Box master = random_box(Dtype::fp32, {n}, 1);
        Box small(Dtype::fp32, {3}), zeros(Dtype::fp32, {3}), small_v(Dtype::fp32, {3});
        Box weight2 = weight, m2 = m, v2 = v, master2 = master, small2 = small, zeros2 = zeros, small_v2 = small_v;
        RandomStream rounding{.seed = 11, .step = 3, .use = RandomUse::stochastic_rounding};
        auto run = [&](Device& device, Box& w, Box& ms, Box& vs, Box& full, Box& s, Box& sm, Box& sv) {
          AdamWParameter list[] = {{.weight = s, .m = sm, .v = sv, .gradient = zeros, .index = 6},
                                   {.weight = w,
                                    .master = with_master ? Tensor(full) : Tensor(),
                                    .m = ms,
                                    .v = vs,
                                    .gradient = gradient,
                                    .weight_decay = 0.1f,
                                    .index = 7,
                                    .learning_rate_scale = 0.5f}};
          device.adamw(
              {.parameters = list, .learning_rate = 0.02f, .gradient_scale = 0.7f, .step = 3, .rounding = rounding});
        };
        std::vector<double> updated(n), ms(n), vs(n);
        for (int64_t i = 0; i < n; ++i) {
          double g = 0.7f * gradient[i], w = with_master ? master[i] : weight[i];
          ms[i] = 0.9f * m[i] + (1 - 0.9f) * g, vs[i] = 0.95f * v[i] + (1 - 0.95f) * g * g;
          double step = ms[i] / (1 - std::pow(0.9f, 3)) / (std::sqrt(vs[i] / (1 - std::pow(0.95f, 3))) + 1e-8);
          updated[i] = w - 0.01 * (step + 0.1 * w);
        }
        run(*one, weight, m, v, master, small, zeros, small_v);
        run(*three, weight2, m2, v2, master2, small2, zeros2, small_v2);
        CHECK(weight == weight2);
        CHECK(m == m2);
        CHECK(v == v2);
        CHECK(relative_error(weight, updated) < allowed(type));
        CHECK(relative_error(m, ms) < allowed(moment));
        CHECK(relative_error(v, vs) < allowed(moment));
        if (with_master) CHECK(relative_error(master, updated) < 1e-6);
        auto bias_of = [&](const Box& a, const std::vector<double>& b) {
          double up = 0;
          for (int64_t i = 0; i < n; ++i) up += (a[i] - b[i]) / std::abs(b[i]);
          return up / static_cast<double>(n);
        };
        if (moment == Dtype::bf16) CHECK(std::abs(bias_of(v, vs)) < 8e-5);
        if (moment == Dtype::bf16) {
          RandomStream stream = rounding;
          stream.layer = 7;
          int64_t same = 0;
          for (int64_t i = 0; i < n; ++i)
            same += v[i] == round_by_chance(static_cast<float>(vs[i]), stream.bits(4 * i + 2));
          CHECK(same > n * 99 / 100);
        }
      }
}

TEST_CASE("the global norm is exact beyond the squares' fp32 range, and not finite when an entry is not") {
  auto one = make_device("cpu", {.threads = 1}), three = make_device("cpu", {.threads = 3});
  for (Dtype type : float_types)
    for (double size : {1.0, 1e-25, 1e30}) {
      Box a = random_box(type, {50007}, 1, -size, size), b = random_box(type, {13}, 2, -size, size);
      Box norm(Dtype::fp32, {1}), again(Dtype::fp32, {1});
      ConstTensor list[] = {a, b};
      one->global_norm({.norm = norm, .tensors = list});
      three->global_norm({.norm = again, .tensors = list});
      double expected = 0;
      for (int i = 0; i < 50007; ++i) expected += a[i] * a[i];
      for (int i = 0; i < 13; ++i) expected += b[i] * b[i];
      CHECK(norm[0] == doctest::Approx(std::sqrt(expected)).epsilon(1e-6));
      CHECK(norm == again);
      a.set(777, NAN);
      one->global_norm({.norm = norm, .tensors = list});
      CHECK(std::isnan(norm[0]));
      a.set(777, INFINITY);
      one->global_norm({.norm = norm, .tensors = list});
      CHECK(std::isinf(norm[0]));
    }
}
