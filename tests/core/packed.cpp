// Training beside matrices that are held as integers or fp16.
#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "longhand/model.h"
#include "longhand/quantize.h"
#include "tests/core/train_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

constexpr int64_t lanes = 2, segment = 9;

/// The embedding is larger than any matrix of a layer: it is widened in parts.
ModelConfig model_with(NormPlacement norm) {
  ModelConfig c;
  c.vocab_size = 300, c.d_model = 64, c.n_layer = 2, c.n_head = 2, c.d_head = 32, c.d_ff = 128, c.mem_len = 7;
  c.norm = norm, c.final_norm = norm == NormPlacement::pre, c.output_bias = true;
  c.lora_rank = 3, c.lora_alpha = 6, c.lora_sites = "q,k,v,position,output,up,down";
  return c;
}

bool trains(const std::string& name) { return is_lora(name) || name.ends_with("bias") || name.ends_with("norm.weight"); }

/// A set with the values of `packed`, all of them in `type`.
ParameterSet widened(Device& device, const ModelConfig& config, const ParameterSet& packed, Dtype type) {
  ParameterSet wide("weights", config, type);
  wide.commit(device);
  for (size_t i = 0; i < wide.list().size(); ++i) {
    const Tensor &from = packed.tensors()[i], &to = wide.tensors()[i];
    if (packed.scales()[i])
      device.dequantize({.out = to, .integers = from, .scales = packed.scales()[i]});
    else if (from.type() == to.type())
      device.copy(to, from);
    else
      device.cast({.out = to, .x = from});
  }
  return wide;
}

ParameterSet packed_weights(Device& device, const ModelConfig& config, const QuantizeOptions& options, Dtype type) {
  ParameterSet weights("weights", config, quantized_formats(config, options, type));
  weights.commit(device);
  initialize(device, weights, 5);
  for (size_t i = 0; i < weights.list().size(); ++i) {
    if (!weights.list()[i].name.ends_with("lora_b")) continue;
    std::vector<float> values(weights.list()[i].shape.elements());
    for (size_t e = 0; e < values.size(); ++e) values[e] = 0.05f * std::sin(static_cast<float>(3 * e + 1));
    store_parameter(device, weights, i, values);
  }
  return weights;
}

/// Gradients of what trains, over two segments, in fp64; the loss last.
std::vector<std::vector<double>> gradients_over(Device& device, const ModelConfig& config, const ParameterSet& weights) {
  ParameterSet gradients("gradients", config, weights.type(), trains);
  gradients.commit(device);
  Pass pass(device, config, weights, &gradients, {.lanes = lanes, .segment = segment, .memory = config.mem_len},
            weights.type());
  const DropoutRates dropout{.activation = 0.1f, .feedforward = 0.1f};
  double loss = 0;
  for (int64_t step = 0; step < 2; ++step) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < (segment + 1) * lanes; ++i)
      ids.push_back(static_cast<int32_t>((37 * i + 91 * step + 5 * i * i) % config.vocab_size));
    loss += pass.forward({.tokens = ConstTensor(ids.data(), Dtype::i32, {segment, lanes}),
                          .targets = ConstTensor(ids.data() + lanes, Dtype::i32, {segment, lanes})},
                         {.smoothing = 0.1f}, dropout, 1, step);
    pass.backward();
  }
  std::vector<std::vector<double>> all;
  for (const Tensor& g : gradients.tensors()) {
    std::vector<double>& to = all.emplace_back(g.elements());
    std::vector<float> floats(g.elements());
    std::vector<bf16> halves(g.elements());
    if (g && g.type() == Dtype::fp32) device.download(floats.data(), g);
    if (g && g.type() == Dtype::bf16) device.download(halves.data(), g);
    for (size_t e = 0; e < to.size(); ++e) to[e] = g.type() == Dtype::fp32 ? floats[e] : static_cast<float>(halves[e]);
  }
  all.push_back({loss});
  return all;
}

double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double apart = 0, size = 0;
  for (size_t e = 0; e < a.size(); ++e) apart += (a[e] - b[e]) * (a[e] - b[e]), size += b[e] * b[e];
  return std::sqrt(apart) / std::max(1e-30, std::sqrt(size));
}

}  // namespace

TEST_CASE("updates are not merged into integers") {
  auto device = make_device("cpu", {.threads = 1});
  ModelConfig config = model_with(NormPlacement::pre);
  ParameterSet packed = packed_weights(*device, config, QuantizeOptions::of(WeightType::int8), Dtype::fp32);
  CHECK_THROWS_WITH_AS(merge_lora(*device, config, packed, packed),
                       "low-rank updates are not merged into matrices held as i8: give the adapter file beside the weights",
                       Error);
}

TEST_CASE("gradients beside packed matrices are those beside the floats that they stand for") {
  for (const char* name : {"cpu", "simt"})
    for (NormPlacement norm : {NormPlacement::pre, NormPlacement::post})
      for (WeightType type : {WeightType::int8, WeightType::int4, WeightType::fp16})
        for (bool grouped : {false, true}) {
          if (grouped && type == WeightType::fp16) continue;
          auto device = make_device(name, {.threads = 2});
          ModelConfig config = model_with(norm);
          QuantizeOptions options = QuantizeOptions::of(type);
          options.grouped = grouped;
          ParameterSet packed = packed_weights(*device, config, options, Dtype::fp32);
          auto beside = gradients_over(*device, config, packed);
          auto wide = gradients_over(*device, config, widened(*device, config, packed, Dtype::fp32));
          for (size_t i = 0; i < beside.size(); ++i) {
            std::string what = i < packed.list().size() ? packed.list()[i].name : "loss";
            CAPTURE(name);
            CAPTURE(weight_type_name(type));
            CAPTURE(grouped);
            CAPTURE(what);
            CHECK(beside[i].empty() == (i < packed.list().size() && !trains(what)));
            // The cpu's quantised product rounds activations to 15 bits.
            CHECK(distance(beside[i], wide[i]) < (std::string_view(name) == "cpu" ? 2e-4 : 1e-5));
          }
        }
}
