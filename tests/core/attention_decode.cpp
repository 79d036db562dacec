// Attention over rings against the equations in double precision, and its independence of how a text is cut.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "longhand/device.h"
#include "longhand/error.h"

using namespace longhand;

namespace {

struct Setting {
  int64_t length = 50, slots = 64, window = 16, H = 2, dh = 8, distances = 64, topk = 0;
  bool half = false;
};

// Two sequences of the same length, fed through rings in pieces.
struct Rings {
  Setting c;
  std::mt19937 random{5};
  std::vector<float> q, k, value, r, u, v;
  std::vector<char> keys, values;

  explicit Rings(const Setting& setting) : c(setting) {
    std::normal_distribution<float> normal;
    int64_t row = c.H * c.dh;
    for (auto [x, n] :
         {std::pair{&q, 2 * c.length * row}, std::pair{&k, 2 * c.length * row}, std::pair{&value, 2 * c.length * row},
          std::pair{&r, c.distances * row}, std::pair{&u, row}, std::pair{&v, row}}) {
      x->resize(n);
      for (float& y : *x) y = c.half ? static_cast<float>(bf16(normal(random))) : normal(random);
    }
  }

  Dtype type() const { return c.half ? Dtype::bf16 : Dtype::fp32; }
  std::vector<char> stored(const float* x, int64_t n) const {
    std::vector<char> bytes(n * dtype_bytes(type()));
    for (int64_t i = 0; i < n; ++i)
      if (c.half)
        reinterpret_cast<bf16*>(bytes.data())[i] = bf16(x[i]);
      else
        reinterpret_cast<float*>(bytes.data())[i] = x[i];
    return bytes;
  }

  // Feeds both sequences `step` positions a call, interleaved by sequence, and returns all outputs.
  std::vector<char> run(Device& device, int64_t step) {
    int64_t row = c.H * c.dh, bytes = row * dtype_bytes(type());
    keys.assign(2 * c.slots * bytes, 0), values.assign(2 * c.slots * bytes, 0);
    Tensor key_ring(keys.data(), type(), {2, c.slots, c.H, c.dh}), value_ring(values.data(), type(), key_ring.shape());
    std::vector<char> out(2 * c.length * bytes), R = stored(r.data(), r.size()), U = stored(u.data(), row),
                                                 V = stored(v.data(), row);
    for (int64_t first = 0; first < c.length; first += step) {
      int64_t n = std::min(step, c.length - first);
      std::vector<int64_t> position;
      std::vector<int32_t> sequence;
      std::vector<char> Q, K, W, part(2 * n * bytes);
      for (int32_t s = 0; s < 2; ++s)
        for (int64_t i = first; i < first + n; ++i) {
          position.push_back(i), sequence.push_back(s);
          int64_t at = (s * c.length + i) * row;
          for (auto [to, from] : {std::pair{&Q, &q}, std::pair{&K, &k}, std::pair{&W, &value}}) {
            std::vector<char> x = stored(from->data() + at, row);
            to->insert(to->end(), x.begin(), x.end());
          }
        }
      Shape rows{2 * n, c.H, c.dh};
      ConstTensor positions(position.data(), Dtype::i64, {2 * n}), sequences(sequence.data(), Dtype::i32, {2 * n});
      device.ring_store({.keys = key_ring,
                         .values = value_ring,
                         .k = ConstTensor(K.data(), type(), rows),
                         .value = ConstTensor(W.data(), type(), rows),
                         .position = positions,
                         .sequence = sequences});
      device.attention_decode({.out = Tensor(part.data(), type(), rows),
                               .q = ConstTensor(Q.data(), type(), rows),
                               .keys = key_ring,
                               .values = value_ring,
                               .r = ConstTensor(R.data(), type(), {c.distances, c.H, c.dh}),
                               .u = ConstTensor(U.data(), type(), {c.H, c.dh}),
                               .v = ConstTensor(V.data(), type(), {c.H, c.dh}),
                               .position = positions,
                               .sequence = sequences,
                               .window = c.window,
                               .topk = c.topk});
      for (int64_t s = 0; s < 2; ++s)
        std::copy_n(part.begin() + s * n * bytes, n * bytes, out.begin() + (s * c.length + first) * bytes);
    }
    return out;
  }

  std::vector<double> reference() const {
    std::vector<double> out(2 * c.length * c.H * c.dh);
    for (int64_t s = 0; s < 2; ++s)
      for (int64_t i = 0; i < c.length; ++i)
        for (int64_t h = 0; h < c.H; ++h) {
          auto at = [&](int64_t j) { return ((s * c.length + j) * c.H + h) * c.dh; };
          std::vector<std::pair<double, int64_t>> scores;
          for (int64_t j = std::max<int64_t>(0, i - c.window + 1); j <= i; ++j) {
            double a = 0;
            for (int64_t x = 0; x < c.dh; ++x) {
              double position = r[(std::min(i - j, c.distances - 1) * c.H + h) * c.dh + x];
              a += (static_cast<double>(q[at(i) + x]) + u[h * c.dh + x]) * k[at(j) + x] +
                   (static_cast<double>(q[at(i) + x]) + v[h * c.dh + x]) * position;
            }
            scores.emplace_back(-a / std::sqrt(static_cast<double>(c.dh)), -j);
          }
          std::sort(scores.begin(), scores.end());
          if (c.topk > 0 && static_cast<int64_t>(scores.size()) > c.topk) scores.resize(c.topk);
          double total = 0;
          for (auto [a, j] : scores) total += std::exp(scores[0].first - a);
          for (auto [a, j] : scores)
            for (int64_t x = 0; x < c.dh; ++x)
              out[at(i) + x] += std::exp(scores[0].first - a) / total * value[at(-j) + x];
        }
    return out;
  }
};

const Setting settings[] = {
    {},
    {.length = 300, .slots = 128, .window = 100, .H = 1, .dh = 64, .distances = 100},
    {.length = 200, .slots = 150, .window = 130, .H = 2, .dh = 32, .distances = 20},
    {.length = 90, .slots = 60, .window = 30, .H = 3, .dh = 7, .distances = 200},
    {.length = 150, .slots = 150, .window = 130, .H = 1, .dh = 32, .distances = 130, .topk = 9},
    {.length = 150, .slots = 150, .window = 130, .H = 2, .dh = 20, .distances = 130, .half = true},
    {.length = 150, .slots = 150, .window = 130, .H = 2, .dh = 64, .distances = 130, .topk = 20, .half = true},
};

}  // namespace

TEST_CASE("decoding agrees with the equations over windows, rings, clamp and top-k") {
  auto device = make_device("cpu", {2});
  for (const Setting& c : settings) {
    CAPTURE(&c - settings);
    Rings rings(c);
    std::vector<char> out = rings.run(*device, 1);
    std::vector<double> want = rings.reference();
    double difference = 0, size = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      double have =
          c.half ? static_cast<float>(reinterpret_cast<bf16*>(out.data())[i]) : reinterpret_cast<float*>(out.data())[i];
      difference += (have - want[i]) * (have - want[i]), size += want[i] * want[i];
    }
    CHECK(std::sqrt(difference / size) < (c.half ? 4e-3 : 1e-5));
  }
}

TEST_CASE("decoding: the bits do not depend on how a text is cut, nor on the number of threads") {
  auto one = make_device("cpu", {1}), two = make_device("cpu", {2});
  for (const Setting& c : settings) {
    CAPTURE(&c - settings);
    Rings rings(c);
    std::vector<char> out = rings.run(*one, 1);
    for (int64_t step : {2, 3, 4, 7, 20}) {
      bool equal = rings.run(step % 2 ? *one : *two, step) == out;
      CHECK(equal);
    }
  }
}

TEST_CASE("decoding: a query that stands outside the rings is named") {
  std::vector<float> x(2 * 8, 0.5f), ring(3 * 16 * 8, 0.5f), out(2 * 8);
  for (const char* name : {"cpu", "simt"})
    for (int64_t topk : {0, 4})
      for (auto [position, sequence] :
           {std::pair{int64_t{-1}, 0}, std::pair{int64_t{5}, 3}, std::pair{int64_t{5}, -1}}) {
        CAPTURE(name);
        auto device = make_device(name, {1});
        std::vector<int64_t> positions{4, position};
        std::vector<int32_t> sequences{0, sequence};
        ConstTensor rows(x.data(), Dtype::fp32, {2, 1, 8}), one(x.data(), Dtype::fp32, {1, 8});
        ConstTensor rings(ring.data(), Dtype::fp32, {3, 16, 1, 8}), r(ring.data(), Dtype::fp32, {16, 1, 8});
        auto decode = [&] {
          device->attention_decode({.out = Tensor(out.data(), Dtype::fp32, {2, 1, 8}),
                                    .q = rows,
                                    .keys = rings,
                                    .values = rings,
                                    .r = r,
                                    .u = one,
                                    .v = one,
                                    .position = ConstTensor(positions.data(), Dtype::i64, {2}),
                                    .sequence = ConstTensor(sequences.data(), Dtype::i32, {2}),
                                    .window = 16,
                                    .topk = topk});
          device->synchronize();
        };
        std::string message;
        try {
          decode();
        } catch (const Error& error) {
          message = error.what();
        }
        CHECK(message.find("attention_decode: row 1 stands") == 0);
      }
}
