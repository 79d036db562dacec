// Token rows in and their gradients back; the position table.
#include <array>
#include <cmath>

#include "tests/ops/interleaved.h"
#include "tests/ops/operation.h"

namespace longhand::ops {
namespace {

std::vector<Sizes> embedding_shapes() {
  std::vector<Sizes> list;
  for (auto [rows, width, vocabulary] :
       std::vector<std::array<int64_t, 3>>{{1, 1, 1}, {5, 7, 11}, {40, 33, 6}, {3, 128, 1000}, {300, 17, 5}})
    for (int64_t dropout : {0, 1})
      list.push_back({{"rows", rows}, {"D", width}, {"V", vocabulary}, {"dropout", dropout}});
  return list;
}

/// sqrt(D), as the model has it.
float scale_of(const Case& c) { return std::sqrt(static_cast<float>(c("D"))); }

void draw_tokens(Case& c, Random& random) {
  Array& tokens = c.input(
      "tokens", {c("rows")}, [&] { return random.below(c("V")); }, Dtype::i32);
  tokens(0) = static_cast<double>(c("V") - 1);
}

// Tables of inference. Switches: bits 8 or 4, 16 (fp16), 32 (fp32 whatever the case's type); grouped: fp16 scales;
// interleaved (where the device reads such tables).
std::vector<Sizes> held_shapes() {
  std::vector<Sizes> list;
  for (int64_t bits : {4, 8, 16, 32})
    for (int64_t grouped : {0, 1}) {
      if (bits > 8 && grouped) continue;
      list.push_back({{"rows", 9}, {"D", grouped ? 320 : 78}, {"V", 13}, {"bits", bits}, {"grouped", grouped}});
    }
  list.push_back({{"rows", 9}, {"D", 1184}, {"V", 48}, {"interleaved", 1}});
  list.push_back({{"rows", 9}, {"D", 1184}, {"V", 48}, {"bits", 16}, {"interleaved", 1}});
  for (int64_t bits : {4, 8})
    for (int64_t grouped : {0, 1})
      list.push_back({{"rows", 9}, {"D", 1152}, {"V", 48}, {"bits", bits}, {"grouped", grouped}, {"interleaved", 1}});
  list.push_back({{"rows", 3}, {"D", 2050}, {"V", 5}, {"bits", 8}});
  list.push_back({{"rows", 3}, {"D", 1}, {"V", 5}, {"bits", 8}, {"dropout", 1}});
  return list;
}

double held_weight(const Case& c, int64_t row, int64_t column) {
  const Array& weight = c["weight"];
  if (c("bits") == 0 || c("bits") > 8) return weight(row, column);
  double scale = c["scales"].value[c("grouped") ? row * (c("D") / 64) + column / 64 : row];
  if (c("bits") == 8) return weight(row, column) * scale;
  int byte = static_cast<int>(weight(row, column / 2));
  return ((column % 2 ? byte >> 4 : byte & 15) - 8) * scale;
}

struct EmbeddingForwardRow : Operation {
  std::vector<Sizes> shapes() const override {
    std::vector<Sizes> list = embedding_shapes();
    for (const Sizes& held : held_shapes()) list.push_back(held);
    return list;
  }
  void inputs(Case& c, Random& random) const override {
    draw_tokens(c, random);
    auto normal = [&] { return random.normal(); };
    int64_t bits = c("bits"), rows = c("V"), width = c("D");
    if (bits == 8)
      c.input(
          "weight", {rows, width}, [&] { return static_cast<double>(random.below(255) - 127); }, Dtype::i8);
    else if (bits == 4)
      c.input(
          "weight", {rows, width / 2}, [&] { return static_cast<double>(random.below(256)); }, Dtype::u8);
    else
      c.input("weight", {rows, width}, normal, bits == 16 ? Dtype::fp16 : bits == 32 ? Dtype::fp32 : c.type);
    if (bits == 4 || bits == 8)
      c.input(
          "scales", c("grouped") ? Shape{rows, width / 64} : Shape{rows}, [&] { return 0.01 + random.uniform(); },
          c("grouped") ? Dtype::fp16 : Dtype::fp32);
    c.output("out", {c("rows"), c("D")});
  }
  void reference(const Case& c, Fp64& f) const override {
    Dropout dropout = c.dropout(RandomUse::embedding_dropout);
    for (int64_t r = 0; r < c("rows"); ++r)
      for (int64_t x = 0; x < c("D"); ++x) {
        double kept = dropout ? dropout.factor(r * c("D") + x) : 1;
        f.at("out")(r, x) = f.store(scale_of(c) * held_weight(c, c["tokens"](r), x)) * kept;
      }
  }
  void run(Device& device, const Case& c, Bound& d) const override {
    InterleavedWeights weights(device, d["weight"], d["scales"], d["out"].type(), c("interleaved") != 0);
    device.embedding_forward({.out = d["out"],
                              .tokens = d["tokens"],
                              .weight = weights.weight,
                              .scales = weights.scales,
                              .scale = scale_of(c),
                              .dropout = c.dropout(RandomUse::embedding_dropout)});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["D"];
    return {2 * elements * dtype_bytes(type), elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 4096}, {"D", 768}, {"V", 32768}}}; }
};

struct EmbeddingBackwardRow : Operation {
  std::vector<Sizes> shapes() const override { return embedding_shapes(); }
  double limit() const override { return 1e-4; }
  void inputs(Case& c, Random& random) const override {
    auto normal = [&] { return random.normal(); };
    draw_tokens(c, random);
    c.input("d_out", {c("rows"), c("D")}, normal);
    c.input("weight", {c("V"), c("D")}, normal);
    c.update("d_weight", {c("V"), c("D")}, normal);
  }
  void reference(const Case& c, Fp64& f) const override {
    Dropout dropout = c.dropout(RandomUse::embedding_dropout);
    for (int64_t r = 0; r < c("rows"); ++r)
      for (int64_t x = 0; x < c("D"); ++x) {
        double& sum = f.at("d_weight")(c["tokens"](r), x);
        sum = f.store(sum + f.store(scale_of(c) * c["d_out"](r, x) * (dropout ? dropout.factor(r * c("D") + x) : 1)));
      }
  }
  std::vector<Gradient> gradients(const Case&) const override { return {{"weight", "d_weight"}}; }
  double objective(const Case& c) const override {
    Dropout dropout = c.dropout(RandomUse::embedding_dropout);
    double total = 0;
    for (int64_t r = 0; r < c("rows"); ++r)
      for (int64_t x = 0; x < c("D"); ++x)
        total += c["d_out"](r, x) * scale_of(c) * c["weight"](c["tokens"](r), x) *
                 (dropout ? dropout.factor(r * c("D") + x) : 1);
    return total;
  }
  void run(Device& device, const Case& c, Bound& d) const override {
    device.embedding_backward({.d_weight = d["d_weight"],
                               .d_out = d["d_out"],
                               .tokens = d["tokens"],
                               .scale = scale_of(c),
                               .dropout = c.dropout(RandomUse::embedding_dropout)});
  }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["rows"] * s["D"];
    return {3 * elements * dtype_bytes(type), 2 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"rows", 4096}, {"D", 768}, {"V", 32768}}}; }
};

struct PositionEncodingRow : Operation {
  std::vector<Sizes> shapes() const override {
    return {{{"distances", 1}, {"D", 2}}, {{"distances", 7}, {"D", 34}}, {{"distances", 4100}, {"D", 64}}};
  }
  void inputs(Case& c, Random&) const override { c.output("out", {c("distances"), c("D")}); }
  void reference(const Case& c, Fp64& f) const override {
    int64_t half = c("D") / 2;
    for (int64_t d = 0; d < c("distances"); ++d)
      for (int64_t m = 0; m < half; ++m) {
        double angle = static_cast<double>(d) * std::pow(10000.0, -2.0 * m / c("D"));
        f.at("out")(d, m) = std::sin(angle);
        f.at("out")(d, half + m) = std::cos(angle);
      }
  }
  void run(Device& device, const Case&, Bound& d) const override { device.position_encoding({.out = d["out"]}); }
  Cost cost(const Sizes& s, Dtype type) const override {
    double elements = s["distances"] * s["D"];
    return {elements * dtype_bytes(type), 2 * elements};
  }
  std::vector<Sizes> timed_shapes() const override { return {{{"distances", 4096}, {"D", 768}}}; }
};

}  // namespace

std::unique_ptr<Operation> embedding_forward_row() { return std::make_unique<EmbeddingForwardRow>(); }
std::unique_ptr<Operation> embedding_backward_row() { return std::make_unique<EmbeddingBackwardRow>(); }
std::unique_ptr<Operation> position_encoding_row() { return std::make_unique<PositionEncodingRow>(); }

}  // namespace longhand::ops
