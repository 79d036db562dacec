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
  bool block = false;        // pages of 64 keys; slots are then a multiple of 64
  Dtype ring = Dtype::fp32;  // with half: bf16 unless i8
};

// Two sequences of the same length, fed through rings in pieces.
struct Rings {
  Setting c;
  std::mt19937 random{5};
  std::vector<float> q, k, value, r, u, v;
  std::vector<char> keys, values;
  std::vector<float> key_scales, value_scales, key_bounds;

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
    Dtype held = c.ring == Dtype::i8 ? Dtype::i8 : type();
    bool integers = held == Dtype::i8;
    keys.assign(2 * c.slots * bytes, 0), values.assign(2 * c.slots * bytes, 0);
    Tensor key_ring(keys.data(), held, {2, c.slots, c.H, c.dh}), value_ring(values.data(), held, key_ring.shape());
    std::vector<char> out(2 * c.length * bytes), R = stored(r.data(), r.size()), U = stored(u.data(), row),
                                                 V = stored(v.data(), row);
    auto numbers = [](std::vector<float>& x, Shape shape) {
      x.assign(shape.elements(), 0);
      return Tensor(x.data(), Dtype::fp32, shape);
    };
    Tensor table(R.data(), type(), {c.distances, c.H, c.dh}), key_scale, value_scale, table_scale, key_bound,
        table_bound;
    std::vector<float> r_scales, r_bounds;
    std::vector<char> R8(r.size());
    if (integers) {
      key_scale = numbers(key_scales, {2, c.slots, c.H}), value_scale = numbers(value_scales, {2, c.slots, c.H});
      table_scale = numbers(r_scales, {c.distances, c.H});
      Tensor whole(R8.data(), Dtype::i8, {c.distances * c.H, c.dh});
      device.quantize({.out = whole,
                       .scales = table_scale.reshape({c.distances * c.H}),
                       .x = table.reshape({c.distances * c.H, c.dh})});
      table = whole.reshape(table.shape());
    }
    if (c.block) {
      int64_t groups = (c.window + 63) / 64;
      key_bound = numbers(key_bounds, {2, c.slots / 32, c.H, c.dh});
      table_bound = numbers(r_bounds, {2 * groups, c.H, c.dh});
      device.page_bounds({.bounds = table_bound.reshape({1, 2 * groups, c.H, c.dh}),
                          .rows = table.reshape({1, c.distances, c.H, c.dh}),
                          .scales = integers ? table_scale.reshape({1, c.distances, c.H}) : Tensor()});
    }
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
                         .key_scales = key_scale,
                         .value_scales = value_scale,
                         .k = ConstTensor(K.data(), type(), rows),
                         .value = ConstTensor(W.data(), type(), rows),
                         .position = positions,
                         .sequence = sequences});
      if (c.block)
        device.page_bounds(
            {.bounds = key_bound, .rows = key_ring, .scales = key_scale, .position = positions, .sequence = sequences});
      device.attention_decode({.out = Tensor(part.data(), type(), rows),
                               .q = ConstTensor(Q.data(), type(), rows),
                               .keys = key_ring,
                               .values = value_ring,
                               .r = table,
                               .u = ConstTensor(U.data(), type(), {c.H, c.dh}),
                               .v = ConstTensor(V.data(), type(), {c.H, c.dh}),
                               .position = positions,
                               .sequence = sequences,
                               .key_scales = key_scale,
                               .value_scales = value_scale,
                               .r_scales = table_scale,
                               .key_bounds = key_bound,
                               .r_bounds = table_bound,
                               .window = c.window,
                               .topk = c.topk,
                               .topk_mode = c.block ? TopkMode::block : TopkMode::exact});
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

const Setting narrow[] = {
    {.length = 150, .slots = 150, .window = 130, .H = 2, .dh = 32, .distances = 130, .ring = Dtype::i8},
    {.length = 150, .slots = 150, .window = 130, .H = 2, .dh = 20, .distances = 50, .topk = 9, .ring = Dtype::i8},
    {.length = 150, .slots = 150, .window = 130, .dh = 64, .distances = 130, .half = true, .ring = Dtype::i8},
};

const Setting by_pages[] = {
    {.length = 900, .slots = 640, .window = 500, .H = 2, .dh = 32, .distances = 500, .topk = 1, .block = true},
    {.length = 900, .slots = 640, .window = 500, .H = 2, .dh = 20, .distances = 100, .topk = 250, .block = true},
    {.length = 900,
     .slots = 640,
     .window = 449,
     .H = 1,
     .dh = 64,
     .distances = 449,
     .topk = 200,
     .half = true,
     .block = true},
    {.length = 900,
     .slots = 640,
     .window = 500,
     .H = 2,
     .dh = 32,
     .distances = 500,
     .topk = 300,
     .block = true,
     .ring = Dtype::i8},
};

double relative_error(const Setting& c, const std::vector<char>& out, const std::vector<double>& want) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    double have = c.half ? static_cast<float>(reinterpret_cast<const bf16*>(out.data())[i])
                         : reinterpret_cast<const float*>(out.data())[i];
    difference += (have - want[i]) * (have - want[i]), size += want[i] * want[i];
  }
  return std::sqrt(difference / size);
}

}  // namespace

TEST_CASE("decoding agrees with the equations over windows, rings, clamp and top-k") {
  auto device = make_device("cpu", {2});
  for (const Setting& c : settings) {
    CAPTURE(&c - settings);
    Rings rings(c);
    CHECK(relative_error(c, rings.run(*device, 1), rings.reference()) < (c.half ? 4e-3 : 1e-5));
  }
}

TEST_CASE("decoding over rings of 8 bits stays near the equations") {
  auto device = make_device("cpu", {2});
  for (const Setting& c : narrow) {
    CAPTURE(&c - narrow);
    Rings rings(c);
    CHECK(relative_error(c, rings.run(*device, 1), rings.reference()) < (c.topk ? 0.2 : 0.03));
  }
}

// What a Pass of segments of one token keeps: the query is its tile.
TEST_CASE("decoding by pages is block top-k of one query at a time") {
  auto device = make_device("cpu", {2});
  for (const Setting& c : by_pages) {
    if (c.half || c.ring == Dtype::i8) continue;
    CAPTURE(&c - by_pages);
    Rings rings(c);
    std::vector<char> out = rings.run(*device, 7);
    double difference = 0, size = 0;
    for (int64_t i = c.window - 1; i < c.length; ++i) {
      int64_t first = (i - c.window + 1) / 64 * 64, K = i - first + 1, at = first * c.H * c.dh;
      std::vector<float> want(c.H * c.dh), lse(c.H);
      std::vector<uint64_t> selected(c.H);
      auto tensor = [](const std::vector<float>& x, int64_t offset, Shape shape) {
        return ConstTensor(x.data() + offset, Dtype::fp32, shape);
      };
      device->attention_forward({.out = Tensor(want.data(), Dtype::fp32, {1, 1, c.H, c.dh}),
                                 .lse = Tensor(lse.data(), Dtype::fp32, {1, c.H, 1}),
                                 .selected = Tensor(selected.data(), Dtype::u64, {1, c.H, 1, 1}),
                                 .q = tensor(rings.q, i * c.H * c.dh, {1, 1, c.H, c.dh}),
                                 .k = tensor(rings.k, at, {K, 1, c.H, c.dh}),
                                 .value = tensor(rings.value, at, {K, 1, c.H, c.dh}),
                                 .r = tensor(rings.r, 0, {c.distances, c.H, c.dh}),
                                 .u = tensor(rings.u, 0, {c.H, c.dh}),
                                 .v = tensor(rings.v, 0, {c.H, c.dh}),
                                 .mask = {.max_distance = c.window - 1},
                                 .topk = c.topk,
                                 .topk_mode = TopkMode::block,
                                 .first_position = first});
      for (int64_t x = 0; x < c.H * c.dh; ++x) {
        double have = reinterpret_cast<const float*>(out.data())[i * c.H * c.dh + x];
        difference += (have - want[x]) * (have - want[x]), size += want[x] * want[x];
      }
    }
    CHECK(std::sqrt(difference / size) < 1e-5);
  }
}

TEST_CASE("decoding: the bits do not depend on how a text is cut, nor on the number of threads") {
  auto one = make_device("cpu", {1}), two = make_device("cpu", {2});
  std::vector<Setting> all(std::begin(settings), std::end(settings));
  all.insert(all.end(), std::begin(narrow), std::end(narrow));
  all.insert(all.end(), std::begin(by_pages), std::end(by_pages));
  for (const Setting& c : all) {
    CAPTURE(&c - all.data());
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
