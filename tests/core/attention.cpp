// Relative attention against the equations in double precision, written out key by key.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "longhand/device.h"

using namespace longhand;

namespace {

using Doubles = std::vector<double>;

struct Setting {
  int64_t B = 1, T = 1, M = 0, H = 1, dh = 8;
  int64_t distances = 0;  // 0: K
  int64_t max_distance = -1;
  bool documents = false, segments = false;
  float dropout = 0;
  int64_t topk = 0;
  TopkMode mode = TopkMode::exact;
  int64_t first_position = 0;
  Dtype type = Dtype::fp32;
  int64_t K() const { return M + T; }
  int64_t rows() const { return distances ? distances : K(); }
};

// A tensor that owns its values, both as doubles and in the device's type.
struct Values {
  Doubles x;
  std::vector<char> bytes;
  Shape shape;
  Dtype type = Dtype::fp32;

  Tensor tensor() { return x.empty() ? Tensor() : Tensor(bytes.data(), type, shape); }
  double& operator[](int64_t i) { return x[i]; }
  void to_device() {
    bytes.assign(x.size() * dtype_bytes(type), 0);
    for (size_t i = 0; i < x.size(); ++i)
      if (type == Dtype::bf16)
        x[i] = static_cast<float>(reinterpret_cast<bf16*>(bytes.data())[i] = bf16(static_cast<float>(x[i])));
      else
        x[i] = reinterpret_cast<float*>(bytes.data())[i] = static_cast<float>(x[i]);
  }
  Doubles from_device() const {
    Doubles y(x.size());
    for (size_t i = 0; i < x.size(); ++i)
      y[i] = type == Dtype::bf16 ? static_cast<float>(reinterpret_cast<const bf16*>(bytes.data())[i])
                                 : reinterpret_cast<const float*>(bytes.data())[i];
    return y;
  }
};

struct Problem {
  Setting c;
  Values q, k, value, r, u, v, w, S, d_out, out, lse;
  Values d_q, d_k, d_value, d_r, d_u, d_v, d_w, d_S;
  std::vector<uint8_t> query_ids, key_ids;
  std::vector<int32_t> starts;
  std::vector<uint64_t> selected;
  Shape selected_shape;

  explicit Problem(const Setting& setting, uint32_t seed = 7, double scale = 1) : c(setting) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, scale);
    auto make = [&](Values& a, Shape shape, bool fill, Dtype type) {
      a.shape = shape, a.type = type, a.x.resize(shape.elements());
      if (fill)
        for (double& x : a.x) x = normal(random);
      a.to_device();
    };
    int64_t B = c.B, T = c.T, K = c.K(), H = c.H, dh = c.dh;
    make(q, {T, B, H, dh}, true, c.type), make(k, {K, B, H, dh}, true, c.type);
    make(value, {K, B, H, dh}, true, c.type), make(r, {c.rows(), H, dh}, true, c.type);
    make(u, {H, dh}, true, c.type), make(v, {H, dh}, true, c.type), make(d_out, {T, B, H, dh}, true, c.type);
    make(out, {T, B, H, dh}, false, c.type), make(lse, {B, H, T}, false, Dtype::fp32);
    make(d_q, q.shape, false, c.type), make(d_k, k.shape, false, c.type), make(d_value, k.shape, false, c.type);
    make(d_r, r.shape, false, Dtype::fp32), make(d_u, u.shape, true, Dtype::fp32);
    make(d_v, v.shape, true, Dtype::fp32);
    if (c.segments) {
      make(w, {H, dh}, true, c.type), make(S, {2, H, dh}, true, c.type);
      make(d_w, {H, dh}, true, Dtype::fp32), make(d_S, {2, H, dh}, true, Dtype::fp32);
      key_ids.resize(K * B), query_ids.resize(T * B);
      for (auto& id : key_ids) id = random() % 3;
      for (int64_t i = 0; i < T * B; ++i) query_ids[i] = key_ids[c.M * B + i];
    }
    if (c.documents) {
      starts.resize(T * B);
      for (int64_t i = 0; i < T; ++i)
        for (int64_t b = 0; b < B; ++b) starts[i * B + b] = static_cast<int32_t>(random() % (i + c.M + 1));
    }
    if (c.topk > 0 && c.mode == TopkMode::exact)
      selected_shape = {B, H, T, (K + 63) / 64};
    else if (c.topk > 0)
      selected_shape = {B, H, (T + 63) / 64, (pages() + 63) / 64};
    selected.assign(selected_shape.elements(), ~uint64_t{0});
  }

  int64_t pages() const { return (c.first_position + c.K() - 1) / 64 - c.first_position / 64 + 1; }
  AttentionMask mask() {
    AttentionMask m{c.max_distance, {}};
    if (c.documents) m.document_start = Tensor(starts.data(), Dtype::i32, {c.T, c.B});
    return m;
  }
  AttentionSegments segment_term() {
    if (!c.segments) return {};
    return {w.tensor(), S.tensor(), Tensor(query_ids.data(), Dtype::u8, {c.T, c.B}),
            Tensor(key_ids.data(), Dtype::u8, {c.K(), c.B})};
  }
  Dropout dropout() const { return {c.dropout, {99, 3, RandomUse::attention_dropout, 2}}; }
  Tensor selection() { return c.topk ? Tensor(selected.data(), Dtype::u64, selected_shape) : Tensor(); }

  void forward(Device& device) {
    device.attention_forward({.out = out.tensor(),
                              .lse = lse.tensor(),
                              .selected = selection(),
                              .q = q.tensor(),
                              .k = k.tensor(),
                              .value = value.tensor(),
                              .r = r.tensor(),
                              .u = u.tensor(),
                              .v = v.tensor(),
                              .mask = mask(),
                              .segments = segment_term(),
                              .topk = c.topk,
                              .topk_mode = c.mode,
                              .first_position = c.first_position,
                              .dropout = dropout()});
  }
  void backward(Device& device) {
    device.attention_backward({.d_q = d_q.tensor(),
                               .d_k = d_k.tensor(),
                               .d_value = d_value.tensor(),
                               .d_r = d_r.tensor(),
                               .d_u = d_u.tensor(),
                               .d_v = d_v.tensor(),
                               .d_segment_bias = d_w.tensor(),
                               .d_segment_embedding = d_S.tensor(),
                               .d_out = d_out.tensor(),
                               .out = out.tensor(),
                               .lse = lse.tensor(),
                               .selected = selection(),
                               .q = q.tensor(),
                               .k = k.tensor(),
                               .value = value.tensor(),
                               .r = r.tensor(),
                               .u = u.tensor(),
                               .v = v.tensor(),
                               .mask = mask(),
                               .segments = segment_term(),
                               .topk = c.topk,
                               .topk_mode = c.mode,
                               .first_position = c.first_position,
                               .dropout = dropout()});
  }

  bool visible(int64_t b, int64_t i, int64_t j) {
    int64_t d = i + c.M - j;
    return d >= 0 && (c.max_distance < 0 || d <= c.max_distance) && (!c.documents || j >= starts[i * c.B + b]);
  }
  bool chosen(int64_t b, int64_t h, int64_t i, int64_t j) {
    if (!c.topk) return true;
    int64_t bit = j, row = i, rows = c.T;
    if (c.mode == TopkMode::block)
      bit = (c.first_position + j) / 64 - c.first_position / 64, row = i / 64, rows = (c.T + 63) / 64;
    int64_t words = selected_shape[3];
    return selected[((b * c.H + h) * rows + row) * words + bit / 64] >> (bit % 64) & 1;
  }
  double score(int64_t b, int64_t h, int64_t i, int64_t j) {
    int64_t d = std::min(i + c.M - j, c.rows() - 1), e = c.segments && query_ids[i * c.B + b] != key_ids[j * c.B + b];
    double a = 0;
    for (int64_t x = 0; x < c.dh; ++x) {
      double qx = q[((i * c.B + b) * c.H + h) * c.dh + x];
      int64_t hx = h * c.dh + x;
      a += (qx + u[hx]) * k[((j * c.B + b) * c.H + h) * c.dh + x] + (qx + v[hx]) * r[d * c.H * c.dh + hx];
      if (c.segments) a += (qx + w[hx]) * S[e * c.H * c.dh + hx];
    }
    return a / std::sqrt(static_cast<double>(c.dh));
  }
};

struct Reference {
  Doubles out, lse, d_q, d_k, d_value, d_r, d_u, d_v, d_w, d_S;
  double loss = 0;  // sum of d_out . out
};

// One query of one head, forward and backward, given the device's selection.
void reference_row(Problem& p, Reference& r, int64_t b, int64_t h, int64_t i) {
  const Setting& c = p.c;
  double sigma = 1 / std::sqrt(static_cast<double>(c.dh)), largest = -1e300, total = 0, delta = 0;
  std::vector<int64_t> keys;
  Doubles a, P, Z, dP;
  for (int64_t j = 0; j < c.K(); ++j)
    if (p.visible(b, i, j) && p.chosen(b, h, i, j)) keys.push_back(j), a.push_back(p.score(b, h, i, j));
  REQUIRE(!keys.empty());
  for (double x : a) largest = std::max(largest, x);
  for (double x : a) total += std::exp(x - largest);
  r.lse[(b * c.H + h) * c.T + i] = largest + std::log(total);
  int64_t row = ((i * c.B + b) * c.H + h) * c.dh, hx = h * c.dh;
  for (size_t t = 0; t < keys.size(); ++t) {
    P.push_back(std::exp(a[t] - largest) / total);
    uint64_t element = ((b * c.H + h) * c.T + i) * ((c.K() + 3) / 4 * 4) + keys[t];
    Z.push_back(c.dropout > 0 ? p.dropout().factor(element) : 1.0);
    int64_t key = ((keys[t] * c.B + b) * c.H + h) * c.dh;
    double dot = 0;
    for (int64_t x = 0; x < c.dh; ++x) {
      r.out[row + x] += P[t] * Z[t] * p.value[key + x];
      dot += p.d_out[row + x] * p.value[key + x];
      r.d_value[key + x] += P[t] * Z[t] * p.d_out[row + x];
    }
    dP.push_back(dot * Z[t]);
    delta += P[t] * dP[t];
  }
  for (int64_t x = 0; x < c.dh; ++x) r.loss += r.out[row + x] * p.d_out[row + x];
  double sum = 0;
  for (size_t t = 0; t < keys.size(); ++t) {
    double dA = sigma * P[t] * (dP[t] - delta);
    sum += dA;
    int64_t j = keys[t], key = ((j * c.B + b) * c.H + h) * c.dh, d = std::min(i + c.M - j, c.rows() - 1);
    int64_t e = c.segments && p.query_ids[i * c.B + b] != p.key_ids[j * c.B + b];
    for (int64_t x = 0; x < c.dh; ++x) {
      double q = p.q[row + x], K = p.k[key + x], R = p.r[d * c.H * c.dh + hx + x];
      r.d_q[row + x] += dA * (K + R);
      r.d_k[key + x] += dA * (q + p.u[hx + x]);
      r.d_r[d * c.H * c.dh + hx + x] += dA * (q + p.v[hx + x]);
      r.d_u[hx + x] += dA * K, r.d_v[hx + x] += dA * R;
      if (!c.segments) continue;
      double s = p.S[e * c.H * c.dh + hx + x];
      r.d_q[row + x] += dA * s, r.d_w[hx + x] += dA * s;
      r.d_S[e * c.H * c.dh + hx + x] += dA * (q + p.w[hx + x]);
    }
  }
  CHECK(std::abs(sum) < 1e-9);
}

Reference reference(Problem& p) {
  Reference r;
  r.out.resize(p.out.x.size()), r.lse.resize(p.lse.x.size()), r.d_q.resize(p.q.x.size());
  r.d_k.resize(p.k.x.size()), r.d_value.resize(p.k.x.size()), r.d_r.resize(p.r.x.size());
  r.d_u = p.d_u.x, r.d_v = p.d_v.x, r.d_w = p.d_w.x, r.d_S = p.d_S.x;  // these add
  for (int64_t b = 0; b < p.c.B; ++b)
    for (int64_t h = 0; h < p.c.H; ++h)
      for (int64_t i = 0; i < p.c.T; ++i) reference_row(p, r, b, h, i);
  return r;
}

// Values are of order 1; the floor stands for gradients that vanish.
double relative_error(const Doubles& have, const Doubles& want) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < want.size(); ++i)
    difference += (have[i] - want[i]) * (have[i] - want[i]), size += want[i] * want[i];
  return std::isfinite(difference) ? std::sqrt(difference / (size + 1e-3 * static_cast<double>(want.size())))
                                   : INFINITY;
}

std::string text(const Setting& c) {
  return fmt::format(
      "B {} T {} M {} H {} dh {} distances {} max {} documents {} segments {} dropout {} topk {} {} at {} {}", c.B, c.T,
      c.M, c.H, c.dh, c.distances, c.max_distance, c.documents, c.segments, c.dropout, c.topk,
      c.mode == TopkMode::block ? "block" : "exact", c.first_position, dtype_name(c.type));
}

void check_all(const Setting& c, int threads = 2) {
  CAPTURE(text(c));
  auto device = make_device("cpu", {threads});
  Problem p(c);
  p.forward(*device);
  p.backward(*device);
  Reference r = reference(p);
  double forward = c.type == Dtype::bf16 ? 4e-3 : 1e-5, backward = c.type == Dtype::bf16 ? 2e-2 : 1e-4;
  CHECK(relative_error(p.out.from_device(), r.out) < forward);
  CHECK(relative_error(p.lse.from_device(), r.lse) < 1e-5);
  CHECK(relative_error(p.d_q.from_device(), r.d_q) < backward);
  CHECK(relative_error(p.d_k.from_device(), r.d_k) < backward);
  CHECK(relative_error(p.d_value.from_device(), r.d_value) < backward);
  // With a single distance every row of dA adds up to zero and d_r is nothing but rounding.
  if (c.distances != 1) CHECK(relative_error(p.d_r.from_device(), r.d_r) < backward);
  CHECK(relative_error(p.d_u.from_device(), r.d_u) < backward);
  CHECK(relative_error(p.d_v.from_device(), r.d_v) < backward);
  if (!c.segments) return;
  CHECK(relative_error(p.d_w.from_device(), r.d_w) < backward);
  CHECK(relative_error(p.d_S.from_device(), r.d_S) < backward);
}

}  // namespace

TEST_CASE("attention: dense agrees with the equations, forward and backward") {
  check_all({.T = 1, .M = 0});
  check_all({.T = 1, .M = 5, .H = 2, .dh = 3});
  check_all({.B = 2, .T = 5, .M = 3, .H = 2, .dh = 7});
  check_all({.B = 2, .T = 64, .M = 64, .H = 2, .dh = 64});
  check_all({.B = 1, .T = 65, .M = 0, .H = 3, .dh = 16});
  check_all({.B = 2, .T = 130, .M = 37, .H = 1, .dh = 20});
  check_all({.B = 1, .T = 70, .M = 700, .H = 1, .dh = 32});
  check_all({.B = 1, .T = 300, .M = 300, .H = 1, .dh = 33});
  check_all({.B = 40, .T = 3, .M = 9, .H = 3, .dh = 8});
}

TEST_CASE("attention: masks, clamp, segments, dropout and bf16 agree with the equations") {
  check_all({.B = 2, .T = 100, .M = 50, .H = 2, .dh = 16, .distances = 20});
  check_all({.B = 1, .T = 90, .M = 10, .H = 1, .dh = 16, .distances = 1});
  check_all({.B = 2, .T = 150, .M = 70, .H = 1, .dh = 16, .max_distance = 66});
  check_all({.B = 1, .T = 150, .M = 70, .H = 1, .dh = 16, .max_distance = 0});
  check_all({.B = 2, .T = 150, .M = 90, .H = 1, .dh = 24, .documents = true});
  check_all({.B = 2, .T = 70, .M = 66, .H = 2, .dh = 16, .max_distance = 80, .documents = true, .segments = true});
  check_all({.B = 2, .T = 70, .M = 67, .H = 2, .dh = 16, .dropout = 0.3f});
  check_all({.B = 2,
             .T = 70,
             .M = 67,
             .H = 2,
             .dh = 20,
             .distances = 90,
             .documents = true,
             .segments = true,
             .dropout = 0.3f,
             .type = Dtype::bf16});
}

TEST_CASE("attention: exact top-k agrees with the equations, given the keys that it kept") {
  check_all({.B = 2, .T = 70, .M = 67, .H = 2, .dh = 16, .topk = 8});
  check_all({.T = 1, .M = 0, .topk = 8});
  check_all({.B = 1, .T = 40, .M = 600, .H = 1, .dh = 64, .topk = 100});
  check_all({.B = 2, .T = 70, .M = 67, .H = 2, .dh = 16, .topk = 1000});
  check_all({.B = 2,
             .T = 70,
             .M = 66,
             .H = 2,
             .dh = 24,
             .distances = 70,
             .max_distance = 80,
             .documents = true,
             .segments = true,
             .dropout = 0.3f,
             .topk = 16});
  check_all({.B = 1, .T = 100, .M = 300, .H = 2, .dh = 32, .topk = 32, .type = Dtype::bf16});
}

TEST_CASE("attention: block top-k agrees with the equations, given the pages that it kept") {
  auto block = [](Setting c) { return c.mode = TopkMode::block, c; };
  check_all(block({.B = 2, .T = 128, .M = 512, .H = 2, .dh = 16, .topk = 256}));
  check_all(block({.B = 1, .T = 100, .M = 500, .H = 1, .dh = 32, .topk = 200, .first_position = 1234567}));
  check_all(block({.B = 1, .T = 70, .M = 3, .H = 1, .dh = 32, .topk = 64, .first_position = 63}));
  check_all(block({.B = 2,
                   .T = 200,
                   .M = 400,
                   .H = 1,
                   .dh = 16,
                   .max_distance = 300,
                   .documents = true,
                   .segments = true,
                   .dropout = 0.2f,
                   .topk = 192,
                   .first_position = 10}));
}

TEST_CASE("attention: exact top-k keeps exactly min(k, visible) keys, each at least as large as every other") {
  auto device = make_device("cpu", {2});
  for (int64_t topk : {1, 3, 17, 64, 200}) {
    Problem p({.B = 2, .T = 50, .M = 130, .H = 2, .dh = 16, .documents = true, .topk = topk});
    p.forward(*device);
    for (int64_t b = 0; b < 2; ++b)
      for (int64_t h = 0; h < 2; ++h)
        for (int64_t i = 0; i < p.c.T; ++i) {
          int64_t kept = 0, seen = 0;
          double least = INFINITY, most = -INFINITY;
          for (int64_t j = 0; j < 192; ++j) {
            bool inside = j < p.c.K() && p.visible(b, i, j), is_kept = p.chosen(b, h, i, j);
            REQUIRE(inside >= is_kept);
            if (!inside) continue;
            ++seen, kept += is_kept;
            double a = p.score(b, h, i, j);
            is_kept ? least = std::min(least, a) : most = std::max(most, a);
          }
          REQUIRE(kept == std::min(topk, seen));
          REQUIRE(least >= most - 1e-4);
        }
  }
}

TEST_CASE("attention: among equal scores the nearer key is kept, and -0 counts as 0") {
  auto device = make_device("cpu", {1});
  Problem p({.T = 9, .M = 200, .H = 1, .dh = 4, .topk = 70});
  for (Values* x : {&p.q, &p.u, &p.v}) std::fill(x->x.begin(), x->x.end(), 0.0), x->to_device();
  for (int64_t j = 0; j < p.c.K(); ++j)  // 0 times a negative number is -0
    for (int64_t x = 0; x < 4; ++x) p.k[j * 4 + x] = j % 3 ? -1 : 1;
  p.k.to_device();
  p.forward(*device);
  for (int64_t i = 0; i < p.c.T; ++i)
    for (int64_t j = 0; j <= i + 200; ++j) {
      bool near = i + 200 - j < 70;
      REQUIRE(p.chosen(0, 0, i, j) == near);
    }
}

TEST_CASE("attention: top-k ends with NaN, infinite and huge scores") {
  auto device = make_device("cpu", {1});
  for (double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY), 1e30}) {
    Problem p({.T = 9, .M = 200, .H = 1, .dh = 4, .topk = 70});
    for (int64_t j = 0; j < 150; j += 2) p.k[j * 4] = j % 4 ? bad : -bad;
    p.k.to_device();
    p.forward(*device);
    for (int64_t i = 0; i < p.c.T; ++i) {
      int64_t kept = 0;
      for (int64_t j = 0; j <= i + 200; ++j) kept += p.chosen(0, 0, i, j);
      CHECK(kept == 70);
    }
  }
}

TEST_CASE("attention: block top-k keeps its budget of pages and the two nearest ones") {
  auto device = make_device("cpu", {2});
  for (int64_t topk : {1, 128, 320}) {
    Problem p(
        {.B = 1, .T = 200, .M = 600, .H = 2, .dh = 16, .topk = topk, .mode = TopkMode::block, .first_position = 77});
    p.forward(*device);
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t tile = 0; tile < 4; ++tile) {
        uint64_t kept = p.selected[h * 4 + tile];
        int64_t last = std::min<int64_t>(tile * 64 + 63, 199) + 600, own = (77 + last) / 64 - 1;
        CHECK(__builtin_popcountll(kept) == std::max<int64_t>(2, (topk + 63) / 64));
        CHECK_EQ(kept >> own & 1, 1);
        CHECK_EQ(kept >> (own - 1) & 1, 1);
        CHECK_EQ(kept >> own, 1);
      }
  }
}

TEST_CASE("attention: block top-k with room for every page is dense attention") {
  auto device = make_device("cpu", {2});
  Setting c{.B = 1, .T = 130, .M = 200, .H = 2, .dh = 16};
  Problem dense(c);
  c.topk = 1000, c.mode = TopkMode::block, c.first_position = 5;
  Problem block(c);
  dense.forward(*device), block.forward(*device);
  CHECK(relative_error(block.out.from_device(), dense.out.from_device()) < 1e-6);
}

TEST_CASE("attention: gradients are those of finite differences") {
  Setting c{.B = 2, .T = 6, .M = 5, .H = 2, .dh = 4, .distances = 8, .segments = true, .dropout = 0.25f};
  auto device = make_device("cpu", {1});
  Problem p(c);
  p.forward(*device), p.backward(*device);
  auto check = [&](Values& x, const Values& d, const Doubles& before) {
    Doubles have = d.from_device();
    for (size_t i = 0; i < x.x.size(); i += 3) {
      double kept = x.x[i], eps = 1e-5;
      x.x[i] = kept + eps;
      double up = reference(p).loss;
      x.x[i] = kept - eps;
      double down = reference(p).loss;
      x.x[i] = kept;
      CHECK(have[i] - before[i] == doctest::Approx((up - down) / (2 * eps)).epsilon(1e-3));
    }
  };
  Doubles zeros(1000);
  check(p.q, p.d_q, zeros), check(p.k, p.d_k, zeros), check(p.value, p.d_value, zeros), check(p.r, p.d_r, zeros);
  check(p.u, p.d_u, p.d_u.x), check(p.v, p.d_v, p.d_v.x), check(p.w, p.d_w, p.d_w.x), check(p.S, p.d_S, p.d_S.x);
}

TEST_CASE("attention: the bits depend neither on the run nor on the number of threads") {
  for (int64_t topk : {0, 40}) {
    Setting c{.B = 2, .T = 200, .M = 100, .H = 2, .dh = 16, .dropout = 0.1f, .topk = topk};
    Problem one(c), two(c), five(c);
    auto d1 = make_device("cpu", {1}), d2 = make_device("cpu", {2}), d5 = make_device("cpu", {5});
    one.forward(*d1), one.backward(*d1), two.forward(*d2), two.backward(*d2), five.forward(*d5), five.backward(*d5);
    for (Problem* other : {&two, &five}) {
      CHECK(one.out.bytes == other->out.bytes);
      CHECK(one.selected == other->selected);
      for (Values Problem::*x :
           {&Problem::d_q, &Problem::d_k, &Problem::d_value, &Problem::d_r, &Problem::d_u, &Problem::d_v}) {
        bool equal = (one.*x).bytes == (other->*x).bytes;
        CHECK(equal);
      }
    }
  }
}

TEST_CASE("attention: strided operands, as they lie in one block of q, k and v") {
  Setting c{.B = 2, .T = 70, .M = 30, .H = 2, .dh = 24};
  auto device = make_device("cpu", {2});
  Problem plain(c);
  plain.forward(*device), plain.backward(*device);
  std::vector<float> block(c.K() * c.B * 3 * c.H * c.dh);
  Tensor all(block.data(), Dtype::fp32, {c.K(), c.B, 3 * c.H * c.dh});
  auto part = [&](int64_t which, int64_t first, int64_t rows) {
    return all.slice(2, which * c.H * c.dh, c.H * c.dh).rows(first, rows).reshape({rows, c.B, c.H, c.dh});
  };
  Problem p(c);
  device->copy(part(0, c.M, c.T), p.q.tensor()), device->copy(part(1, 0, c.K()), p.k.tensor());
  device->copy(part(2, 0, c.K()), p.value.tensor());
  AttentionForward a;
  a.out = p.out.tensor(), a.lse = p.lse.tensor();
  a.q = part(0, c.M, c.T), a.k = part(1, 0, c.K()), a.value = part(2, 0, c.K());
  a.r = p.r.tensor(), a.u = p.u.tensor(), a.v = p.v.tensor();
  device->attention_forward(a);
  CHECK(p.out.bytes == plain.out.bytes);
}
