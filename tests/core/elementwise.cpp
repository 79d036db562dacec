#include "tests/core/elementwise.h"

#include <numeric>

using namespace longhand;

TEST_CASE("the activation's gradient is that of erf gelu and relu, masked by dropout") {
  auto device = make_device("cpu", {.threads = 3});
  for (Dtype type : float_types)
    for (Activation activation : {Activation::none, Activation::relu, Activation::gelu})
      for (double rate : {0.0, 0.25})
        for (int64_t width : {1, 7, 67, 515}) {
          Box d_out = random_box(type, {5, width}, 1), x = random_box(type, {5, width}, 2, -6, 6),
              d_x(type, {5, width});
          Dropout dropout = test_dropout(rate);
          device->activation_backward(
              {.d_x = d_x, .d_out = d_out, .x = x, .activation = activation, .dropout = dropout});
          std::vector<double> expected(5 * width);
          for (int64_t i = 0; i < 5 * width; ++i) {
            double slope = activation == Activation::relu ? x[i] > 0 : 1;
            if (activation == Activation::gelu)
              slope =
                  0.5 * (1 + std::erf(x[i] / std::sqrt(2.0))) + x[i] * std::exp(-x[i] * x[i] / 2) / std::sqrt(2 * M_PI);
            expected[i] = d_out[i] * slope * (rate > 0 ? dropout.factor(i) : 1);
          }
          CHECK(relative_error(d_x, expected) < allowed(type));
          device->activation_backward(
              {.d_x = d_out, .d_out = d_out, .x = x, .activation = activation, .dropout = dropout});
          CHECK(d_out == d_x);
        }
}

TEST_CASE("a bias gets the column sums, the same bits with any number of threads") {
  auto one = make_device("cpu", {.threads = 1}), three = make_device("cpu", {.threads = 3});
  for (Dtype type : float_types)
    for (int64_t rows : {1, 17, 1000})
      for (int64_t width : {1, 33, 200, 517}) {
        Box d_out = random_box(type, {rows, width}, 3), d_bias = random_box(type, {width}, 4), again = d_bias;
        std::vector<double> expected(width);
        for (int64_t c = 0; c < width; ++c) {
          expected[c] = d_bias[c];
          for (int64_t r = 0; r < rows; ++r) expected[c] += d_out[r * width + c];
        }
        one->bias_backward({.d_bias = d_bias, .d_out = d_out});
        three->bias_backward({.d_bias = again, .d_out = d_out});
        CHECK(relative_error(d_bias, expected) < allowed(type));
        CHECK(d_bias == again);
      }
}

TEST_CASE("the embedding and its transpose agree with their sums; one token's rows add in order") {
  auto one = make_device("cpu", {.threads = 1}), three = make_device("cpu", {.threads = 3});
  for (Dtype type : float_types)
    for (double rate : {0.0, 0.3}) {
      int64_t rows = 300, width = 77, vocabulary = 19;
      Box tokens = random_box(Dtype::i32, {rows}, 5, 0, 19), weight = random_box(type, {vocabulary, width}, 6);
      Box out(type, {rows, width}), d_out = random_box(type, {rows, width}, 7);
      Box d_weight = random_box(type, {vocabulary, width}, 8), again = d_weight;
      Dropout dropout = test_dropout(rate);
      three->embedding_forward({.out = out, .tokens = tokens, .weight = weight, .scale = 8.7f, .dropout = dropout});
      std::vector<double> expected(rows * width), gradient(vocabulary * width);
      for (int64_t i = 0; i < vocabulary * width; ++i) gradient[i] = d_weight[i];
      for (int64_t i = 0; i < rows * width; ++i) {
        double factor = 8.7f * (rate > 0 ? dropout.factor(i) : 1);
        int64_t at = static_cast<int64_t>(tokens[i / width]) * width + i % width;
        expected[i] = weight[at] * factor, gradient[at] += d_out[i] * factor;
      }
      CHECK(relative_error(out, expected) < allowed(type));
      one->embedding_backward(
          {.d_weight = d_weight, .d_out = d_out, .tokens = tokens, .scale = 8.7f, .dropout = dropout});
      three->embedding_backward(
          {.d_weight = again, .d_out = d_out, .tokens = tokens, .scale = 8.7f, .dropout = dropout});
      CHECK(relative_error(d_weight, gradient) < allowed(type));
      CHECK(d_weight == again);
      tokens.set(3, 19);
      CHECK_THROWS_AS(one->embedding_forward({.out = out, .tokens = tokens, .weight = weight}), Error);
    }
}

TEST_CASE("layer normalisation follows its equation with dropout and residual; its gradient the finite differences") {
  auto one = make_device("cpu", {.threads = 1}), three = make_device("cpu", {.threads = 3});
  for (Dtype type : float_types)
    for (int64_t width : {3, 64, 301, 1031})
      for (double rate : {0.0, 0.2}) {
        int64_t rows = 37, n = rows * width;
        Box x = random_box(type, {rows, width}, 9, -1, 4), residual = random_box(type, {rows, width}, 10);
        Box gain = random_box(type, {width}, 11), bias = random_box(type, {width}, 12);
        Box out(type, {rows, width}), sum(type, {rows, width}), mean(Dtype::fp32, {rows}), rstd(Dtype::fp32, {rows});
        Dropout dropout = test_dropout(rate);
        three->layernorm_forward({.out = out,
                                  .sum = sum,
                                  .mean = mean,
                                  .rstd = rstd,
                                  .x = x,
                                  .residual = residual,
                                  .gain = gain,
                                  .bias = bias,
                                  .dropout = dropout});
        std::vector<double> sums(n), expected(n);
        for (int64_t i = 0; i < n; ++i) sums[i] = x[i] * (rate > 0 ? dropout.factor(i) : 1) + residual[i];
        CHECK(relative_error(sum, sums) < allowed(type));
        auto normalise = [&](const std::vector<double>& s, int64_t r, int64_t c) {
          double m = 0, v = 0;
          for (int64_t i = 0; i < width; ++i) m += s[r * width + i] / width;
          for (int64_t i = 0; i < width; ++i) v += (s[r * width + i] - m) * (s[r * width + i] - m) / width;
          return (s[r * width + c] - m) / std::sqrt(v + 1e-5);
        };
        for (int64_t i = 0; i < n; ++i) sums[i] = sum[i];
        for (int64_t r = 0; r < rows; r += 4)
          for (int64_t c = 0; c < width; c += 5)
            CHECK(
                out[r * width + c] ==
                doctest::Approx(normalise(sums, r, c) * gain[c] + bias[c]).epsilon(type == Dtype::bf16 ? 5e-3 : 2e-5));

        Box d_out = random_box(type, {rows, width}, 13), d_sum = random_box(type, {rows, width}, 14), before = d_sum;
        Box d_x(type, {rows, width}), d_gain(type, {width}), d_bias(type, {width});
        Box d_sum2 = d_sum, d_x2 = d_x, d_gain2 = d_gain, d_bias2 = d_bias;
        auto backward = [&](Device& device, Box& ds, Box& dx, Box& dg, Box& db) {
          device.layernorm_backward({.d_sum = ds,
                                     .d_x = dx,
                                     .d_gain = dg,
                                     .d_bias = db,
                                     .d_out = d_out,
                                     .sum = sum,
                                     .mean = mean,
                                     .rstd = rstd,
                                     .gain = gain,
                                     .dropout = dropout});
        };
        backward(*one, d_sum, d_x, d_gain, d_bias);
        backward(*three, d_sum2, d_x2, d_gain2, d_bias2);
        CHECK(d_sum == d_sum2);
        CHECK(d_x == d_x2);
        CHECK(d_gain == d_gain2);
        CHECK(d_bias == d_bias2);
        double tolerance = type == Dtype::bf16 ? 0.02 : 2e-4;
        for (int64_t r = 0; r < rows; r += 9)
          for (int64_t c = 0; c < width; c += width / 3) {
            auto objective = [&] {
              double total = 0;
              for (int64_t i = 0; i < width; ++i) total += d_out[r * width + i] * gain[i] * normalise(sums, r, i);
              return total;
            };
            int64_t i = r * width + c;
            double step = 1e-4, at = sums[i];
            sums[i] = at + step;
            double up = objective();
            sums[i] = at - step;
            double slope = (up - objective()) / (2 * step);
            sums[i] = at;
            CHECK(std::abs(d_sum[i] - before[i] - slope) < tolerance * (1 + std::abs(slope)));
            CHECK(d_x[i] == doctest::Approx(d_sum[i] * (rate > 0 ? dropout.factor(i) : 1)).epsilon(5e-3));
          }
        std::vector<double> gains(width), biases(width);
        for (int64_t i = 0; i < n; ++i) {
          gains[i % width] += d_out[i] * (sum[i] - mean[i / width]) * rstd[i / width];
          biases[i % width] += d_out[i];
        }
        CHECK(relative_error(d_gain, gains) < allowed(type));
        CHECK(relative_error(d_bias, biases) < allowed(type));
      }
}

TEST_CASE("layer normalisation does each of its parts alone") {
  auto device = make_device("cpu", {.threads = 2});
  int64_t rows = 9, width = 45, n = rows * width;
  Box x = random_box(Dtype::fp32, {rows, width}, 15), residual = random_box(Dtype::fp32, {rows, width}, 16);
  Box kept = residual, gain = random_box(Dtype::fp32, {width}, 17), bias = random_box(Dtype::fp32, {width}, 18);
  Box mean(Dtype::fp32, {rows}), rstd(Dtype::fp32, {rows}), out(Dtype::fp32, {rows, width}), d(Dtype::fp32, {width});
  Dropout dropout = test_dropout(0.5);
  device->layernorm_forward({.sum = residual, .x = x, .residual = residual, .dropout = dropout});
  for (int64_t i = 0; i < n; ++i)
    CHECK(residual[i] == doctest::Approx(x[i] * dropout.factor(i) + kept[i]).epsilon(1e-6));
  device->layernorm_forward({.out = out, .mean = mean, .rstd = rstd, .x = x, .gain = gain, .bias = bias});
  Box d_gain(Dtype::fp32, {width});
  device->layernorm_backward({.d_gain = d_gain, .d_out = out, .sum = x, .mean = mean, .rstd = rstd, .gain = gain});
  std::vector<double> gains(width);
  for (int64_t i = 0; i < n; ++i) gains[i % width] += out[i] * (x[i] - mean[i / width]) * rstd[i / width];
  CHECK(relative_error(d_gain, gains) < 2e-6);
  Box d_x(Dtype::fp32, {rows, width}), d_sum = x;
  device->layernorm_backward({.d_sum = d_sum, .d_x = d_x, .dropout = dropout});
  CHECK(d_sum == x);
  for (int64_t i = 0; i < n; ++i) CHECK(d_x[i] == doctest::Approx(x[i] * dropout.factor(i)));
}

TEST_CASE("position encodings are sines, then cosines, of distances") {
  auto device = make_device("cpu", {.threads = 2});
  Box out(Dtype::fp32, {5000, 6});
  device->position_encoding({.out = out});
  for (int64_t d : {0, 1, 4095, 4999})
    for (int64_t m = 0; m < 3; ++m) {
      double angle = static_cast<double>(d) * std::pow(10000.0, -2.0 * static_cast<double>(m) / 6);
      CHECK(std::abs(out[d * 6 + m] - std::sin(angle)) < 1e-7);
      CHECK(std::abs(out[d * 6 + 3 + m] - std::cos(angle)) < 1e-7);
    }
}

TEST_CASE("every fp16 value survives a way through fp32, and fp32 rounds to the nearest fp16") {
  auto device = make_device("cpu", {.threads = 2});
  Box all(Dtype::fp16, {65536}), back(Dtype::fp16, {65536}), wide(Dtype::fp32, {65536});
  std::vector<uint16_t> bits(65536);
  std::iota(bits.begin(), bits.end(), 0);
  std::memcpy(all.bytes.data(), bits.data(), 131072);
  device->cast({.out = wide, .x = all});
  device->cast({.out = back, .x = wide});
  std::vector<uint16_t> round(65536);
  std::memcpy(round.data(), back.bytes.data(), 131072);
  for (int i = 0; i < 65536; ++i) {
    bool nan = (i & 0x7c00) == 0x7c00 && (i & 0x3ff);
    CHECK((nan ? std::isnan(wide[i]) && (round[i] & 0x7e00) == 0x7e00 : round[i] == i));
  }
  CHECK(wide[0x3c01] == 1 + 1.0 / 1024);
  CHECK(wide[1] == std::ldexp(1.0, -24));
  Box middle(Dtype::fp32, {0x7c00}), nearest(Dtype::fp16, {0x7c00});
  for (int i = 0; i < 0x7bff; ++i) middle.set(i, (wide[i] + wide[i + 1]) / 2);
  middle.set(0x7bff, 65520);
  device->cast({.out = nearest, .x = middle});
  std::memcpy(round.data(), nearest.bytes.data(), 2 * 0x7c00);
  for (int i = 0; i < 0x7c00; ++i) CHECK(round[i] == (i + 1) / 2 * 2);
}

TEST_CASE("conversion to bf16 rounds to nearest, addition adds, the memory takes the last rows") {
  auto device = make_device("cpu", {.threads = 3});
  int64_t n = 70001;
  Box x = random_box(Dtype::fp32, {n}, 19), y = random_box(Dtype::fp32, {n}, 20), low(Dtype::bf16, {n});
  device->cast({.out = low, .x = x});
  bool right = true;
  for (int64_t i = 0; i < n; ++i) right = right && low[i] == bf16(static_cast<float>(x[i]));
  CHECK(right);
  Box sum(Dtype::fp32, {n});
  device->add({.out = sum, .a = x, .b = y});
  for (int64_t i = 0; i < n; ++i) right = right && sum[i] == static_cast<float>(x[i]) + static_cast<float>(y[i]);
  CHECK(right);
  device->add({.out = x, .a = x, .b = y});
  CHECK(x == sum);

  Box context = random_box(Dtype::fp32, {7, 3, 5}, 21), memory(Dtype::fp32, {4, 3, 5}), kept = context;
  device->memory_roll({.memory = memory, .context = context});
  for (int64_t i = 0; i < 60; ++i) CHECK(memory[i] == context[45 + i]);
  device->memory_roll({.memory = context.tensor.rows(0, 5), .context = context});
  for (int64_t i = 0; i < 75; ++i) CHECK(context[i] == kept[30 + i]);
  CHECK_THROWS_AS(device->memory_roll({.memory = context, .context = memory}), Error);
}
