#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "longhand/error.h"
#include "longhand/model.h"

using namespace longhand;

namespace {

ModelConfig small_config(NormPlacement norm) {
  ModelConfig c;
  c.vocab_size = 37, c.d_model = 24, c.n_layer = 3, c.n_head = 3, c.d_head = 7, c.d_ff = 29, c.mem_len = 9;
  c.norm = norm, c.final_norm = norm == NormPlacement::pre;
  return c;
}

constexpr const char* every_site = "q,k,v,position,output,up,down";

/// A model, its gradients, and three segments of two lanes.
struct Bench {
  ModelConfig config;
  std::unique_ptr<Device> device = make_device("cpu", {.threads = 2});
  ParameterSet weights, gradients;
  std::vector<int32_t> ids;
  std::vector<uint8_t> parts;
  int64_t lanes = 2, segment = 11;

  explicit Bench(const ModelConfig& c, Dtype type = Dtype::fp32)
      : config(c), weights("weights", c, type), gradients("gradients", c, type) {
    weights.commit(*device), gradients.commit(*device);
    initialize(*device, weights, 5);
    auto fill = [](const Tensor& tensor) {  // what begins at 0
      for (int64_t i = 0; i < tensor.elements(); ++i)
        tensor.as<float>()[i] = 0.05f * std::sin(static_cast<float>(3 * i + 1));
    };
    for (const LayerTensors& layer : weights.layers) {
      for (const LoraTensors& low : layer.lora) fill(low.b);
      for (const AdapterTensors& adapter : layer.adapters)
        fill(adapter.down_bias), fill(adapter.up), fill(adapter.up_bias);
    }
    for (int64_t i = 0; i < lanes * (3 * segment + 1); ++i) {
      ids.push_back(static_cast<int32_t>(philox(3, static_cast<uint32_t>(i), 0, 0, 0).word[0] % 37));
      parts.push_back(static_cast<uint8_t>(i / 17 % 3));
    }
  }
  Batch batch(int64_t which) {
    Shape shape{segment, lanes};
    int64_t at = which * segment * lanes;
    Batch b{.tokens = ConstTensor(&ids[at], Dtype::i32, shape),
            .targets = ConstTensor(&ids[at + lanes], Dtype::i32, shape)};
    if (config.segments) b.segment_ids = ConstTensor(&parts[at], Dtype::u8, shape);
    return b;
  }
  PassShape shape(bool training = true) const {
    return {.lanes = lanes,
            .segment = segment,
            .memory = config.mem_len,
            .training = training,
            .lora_dropout = config.lora_rank > 0};
  }
  /// Sum of the losses of three segments; gradients are left in `gradients`.
  double run(const PassShape& shape, const DropoutRates& dropout = {}) {
    for (const Tensor& g : gradients.tensors()) device->zero(g);
    Pass pass(*device, config, weights, &gradients, shape, weights.type());
    double loss = 0;
    for (int64_t s = 0; s < 3; ++s) {
      loss += pass.forward(batch(s), {}, dropout, 1, s);
      if (shape.training) pass.backward();
    }
    return loss;
  }
  std::vector<char> gradient_bytes() const {
    std::vector<char> bytes;
    for (const Tensor& g : gradients.tensors())
      bytes.insert(bytes.end(), static_cast<char*>(g.data()), static_cast<char*>(g.data()) + g.bytes());
    return bytes;
  }
};

const DropoutRates all_dropouts{
    .embedding = 0.1f, .attention = 0.2f, .residual = 0.1f, .activation = 0.1f, .feedforward = 0.3f, .lora = 0.2f};

}  // namespace

TEST_CASE("recomputation gives the same bits") {
  for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post})
    for (int64_t topk : {0, 4}) {
      ModelConfig config = small_config(norm);
      config.lora_rank = 2, config.lora_sites = every_site;
      config.topk = topk, config.segments = topk > 0;
      config.adapter_width = 5, config.adapter_sites = topk > 0 ? "attention" : "feedforward";
      Bench bench(config);
      PassShape shape = bench.shape();
      double loss = bench.run(shape, all_dropouts);
      std::vector<char> kept = bench.gradient_bytes();
      shape.recompute = true;
      CHECK(bench.run(shape, all_dropouts) == loss);
      CHECK(bench.gradient_bytes() == kept);
    }
}

TEST_CASE("a pass without gradients gives the loss of one with them") {
  for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post})
    for (int64_t layers : {1, 2, 3}) {
      ModelConfig config = small_config(norm);
      config.n_layer = layers, config.adapter_width = 5;
      Bench bench(config);
      CHECK(bench.run(bench.shape(false)) == doctest::Approx(bench.run(bench.shape(true))).epsilon(1e-6));
    }
}

TEST_CASE("the loss does not depend on how many rows of logits are held") {
  Bench bench(small_config(NormPlacement::pre));
  PassShape shape = bench.shape();
  double whole = bench.run(shape);
  shape.loss_rows = 5;
  CHECK(bench.run(shape) == doctest::Approx(whole).epsilon(1e-6));
}

TEST_CASE(
    "gradients are those of finite differences, those of adapters and of low-rank updates of every matrix included") {
  for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post}) {
    ModelConfig config = small_config(norm);
    config.segments = true, config.output_bias = true;
    config.lora_rank = 3, config.lora_alpha = 6, config.lora_sites = every_site;
    config.adapter_width = 5;
    Bench bench(config);
    DropoutRates dropout = norm == NormPlacement::pre ? DropoutRates{} : all_dropouts;
    // Memory carries no gradient: one segment after a warm-up segment whose memory is frozen by restoring it.
    auto loss_of_second = [&](bool training) {
      for (const Tensor& g : bench.gradients.tensors()) bench.device->zero(g);
      Pass pass(*bench.device, config, bench.weights, &bench.gradients, bench.shape(), Dtype::fp32);
      for (int64_t l = 0; l < config.n_layer; ++l) {
        pass.set_memory(config.mem_len, 0);
        Tensor memory = pass.memory(l);
        for (int64_t i = 0; i < memory.elements(); ++i) memory.as<float>()[i] = std::sin(static_cast<float>(i + 7 * l));
      }
      double loss = pass.forward(bench.batch(1), {}, dropout, 1, 0);
      if (training) pass.backward();
      return loss;
    };
    loss_of_second(true);
    std::vector<std::vector<float>> gradients;
    for (const Tensor& g : bench.gradients.tensors())
      gradients.emplace_back(g.as<float>(), g.as<float>() + g.elements());
    for (size_t p = 0; p < gradients.size(); ++p) {
      // Along the gradient itself the difference quotient is the gradient's squared norm over its norm.
      double norm2 = 0;
      for (float g : gradients[p]) norm2 += static_cast<double>(g) * g;
      double length = std::sqrt(norm2), step = 2e-2;
      if (length == 0) continue;
      float* w = bench.weights.tensors()[p].as<float>();
      std::vector<float> kept(w, w + gradients[p].size());
      auto shifted = [&](double by) {
        for (size_t e = 0; e < kept.size(); ++e) w[e] = static_cast<float>(kept[e] + by * gradients[p][e] / length);
        return loss_of_second(false);
      };
      double slope = (8 * (shifted(step) - shifted(-step)) - (shifted(2 * step) - shifted(-2 * step))) / (12 * step);
      for (size_t e = 0; e < kept.size(); ++e) w[e] = kept[e];
      CAPTURE(bench.weights.list()[p].name);
      CHECK(slope == doctest::Approx(length).epsilon(0.01));
    }
  }
}

TEST_CASE("dropout before a low-rank update leaves what the update does on average") {
  constexpr int draws = 200;
  auto loss = [](Bench& bench, float rate, uint64_t step) {
    Pass pass(*bench.device, bench.config, bench.weights, nullptr, bench.shape(false), Dtype::fp32);
    return pass.forward(bench.batch(0), {}, {.lora = rate}, 1, step);
  };
  ModelConfig config = small_config(NormPlacement::pre);
  Bench plain(config);
  double without = loss(plain, 0, 0);
  for (const std::string site : {"v", "output"}) {
    CAPTURE(site);
    config.lora_rank = 3, config.lora_alpha = 0.3f, config.lora_sites = site;  // so small that the loss is linear in it
    Bench bench(config);
    double effect = loss(bench, 0, 0) - without, mean = 0, squares = 0;
    for (uint64_t step = 0; step < draws; ++step) {
      double dropped = loss(bench, 0.5f, step) - without;
      mean += dropped / draws, squares += dropped * dropped / draws;
    }
    double error = std::sqrt((squares - mean * mean) / draws);
    CHECK(error > 0);
    CHECK(std::abs(effect) > 10 * error);
    CHECK(std::abs(mean - effect) < 4 * error);
  }
}

TEST_CASE("merged low-rank updates give what they gave beside the weights") {
  for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post}) {
    ModelConfig config = small_config(norm);
    double plain = Bench(config).run(Bench(config).shape(false));
    config.lora_rank = 3, config.lora_alpha = 96, config.lora_sites = every_site;
    Bench bench(config);
    double beside = bench.run(bench.shape(false));
    CHECK(std::abs(beside - plain) > 0.1);
    merge_lora(*bench.device, config, bench.weights, bench.weights);
    for (const LayerTensors& layer : bench.weights.layers)
      for (const LoraTensors& low : layer.lora) bench.device->zero(low.b);
    CHECK(bench.run(bench.shape(false)) == doctest::Approx(beside).epsilon(1e-5));
  }
}

TEST_CASE("frozen parameters take no memory for gradients, and the others' gradients are the same bits") {
  using Wanted = bool (*)(const std::string&);
  constexpr Wanted cases[] = {
      [](const std::string& name) { return is_lora(name) || name.ends_with("norm.bias"); },
      [](const std::string& name) { return is_adapter(name); },
      [](const std::string& name) { return name.starts_with("layers.1.attention.adapter."); },
      [](const std::string& name) { return name.starts_with("layers.2.feedforward.adapter.up."); },
  };
  ModelConfig config = small_config(NormPlacement::pre);
  config.lora_rank = 2, config.lora_sites = "q,up", config.adapter_width = 4;
  Bench whole(config);
  auto run = [](Bench& bench, const DropoutRates& dropout) {
    Pass pass(*bench.device, bench.config, bench.weights, &bench.gradients, bench.shape(), Dtype::fp32);
    for (const Tensor& g : bench.gradients.tensors())
      if (g) bench.device->zero(g);
    for (int64_t s = 0; s < 2; ++s) pass.forward(bench.batch(s), {}, dropout, 1, s), pass.backward();
  };
  for (const DropoutRates& dropout : {DropoutRates{}, all_dropouts}) {
    run(whole, dropout);
    for (Wanted wanted : cases) {
      Bench part(config);
      part.gradients = ParameterSet("gradients", config, Dtype::fp32, wanted);
      part.gradients.commit(*part.device);
      CHECK(part.gradients.bytes() < whole.gradients.bytes() / 4);
      run(part, dropout);
      for (size_t i = 0; i < part.gradients.list().size(); ++i) {
        const Tensor &a = part.gradients.tensors()[i], &b = whole.gradients.tensors()[i];
        CHECK(a.empty() == !wanted(part.gradients.list()[i].name));
        if (a) CHECK(std::memcmp(a.data(), b.data(), a.bytes()) == 0);
      }
    }
  }
}

TEST_CASE("fresh adapters leave the model as it is, to the bit") {
  for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post}) {
    ModelConfig config = small_config(norm);
    Bench plain(config);
    config.adapter_width = 4;
    Bench adapted(config);
    for (const LayerTensors& layer : adapted.weights.layers)
      for (const AdapterTensors& a : layer.adapters)
        adapted.device->zero(a.up), adapted.device->zero(a.up_bias), adapted.device->zero(a.down_bias);
    DropoutRates dropout = all_dropouts;
    dropout.lora = 0;
    CHECK(adapted.run(adapted.shape(), dropout) == plain.run(plain.shape(), dropout));
  }
}

TEST_CASE("tokens and targets outside the vocabulary are named") {
  Bench bench(small_config(NormPlacement::pre));
  bench.ids[3] = 37;
  CHECK_THROWS_WITH_AS(bench.run(bench.shape()), "token 37 at position 1 of lane 1: the vocabulary has 37 entries",
                       Error);
}
