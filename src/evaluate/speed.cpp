// Decoding and reading speed of weights that need no training.
#include <algorithm>
#include <chrono>

#include "longhand/bench.h"
#include "longhand/threads.h"

namespace longhand {
namespace {

constexpr int64_t warm_up = 3;

void fill_uniform(std::vector<float>& values, float limit, const RandomStream& stream, ThreadPool& pool) {
  constexpr int64_t piece = 1 << 14;
  int64_t count = static_cast<int64_t>(values.size());
  pool.parallel_for((count + piece - 1) / piece, [&](int64_t index, int) {
    for (int64_t e = index * piece; e < std::min(count, (index + 1) * piece); e += 4) {
      PhiloxBlock block = stream.block(static_cast<uint64_t>(e) / 4);
      for (int64_t i = 0; i < 4 && e + i < count; ++i) values[e + i] = limit * (2 * uniform(block.word[i]) - 1);
    }
  });
}

double median(std::vector<double> values) {
  auto middle = values.begin() + static_cast<int64_t>(values.size()) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

/// The median of `calls` calls after some to warm up; after(seconds) follows each, from the last of these on.
template <class Call, class After>
double median_seconds(Device& device, int64_t calls, const Call& call, const After& after) {
  std::vector<double> all;
  for (int64_t i = 0; i < warm_up + calls; ++i) {
    auto start = std::chrono::steady_clock::now();
    call(i);
    device.synchronize();
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (i >= warm_up) all.push_back(seconds);
    if (i + 1 >= warm_up) after(seconds);
  }
  return median(std::move(all));
}
template <class Call>
double median_seconds(Device& device, int64_t calls, const Call& call) {
  return median_seconds(device, calls, call, [](double) {});
}

/// What every call reads of the weights: neither W_r, whose products with the distances stand in a table, nor of an
/// embedding more than a few rows, unless it is the output layer too.
void count_weights(const ParameterSet& weights, int64_t rows, Speed& speed) {
  for (size_t i = 0; i < weights.list().size(); ++i) {
    const ParameterInfo& info = weights.list()[i];
    bool table = info.name == "embedding.weight" && weights.output.data() != weights.embedding.data();
    if (info.name.ends_with("attention.position.weight") || table) continue;
    speed.bytes += static_cast<double>(weights.tensors()[i].bytes() + weights.scales()[i].bytes());
    bool output = info.name == "embedding.weight" || info.name == "output.weight";
    if (info.matrix) speed.operations += 2.0 * static_cast<double>(info.shape.elements() * (output ? 1 : rows));
  }
  speed.weight_bytes = weights.bytes();
}

std::vector<int32_t> some_tokens(int64_t count, int64_t vocabulary) {
  std::vector<int32_t> tokens(count);
  for (int64_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(i * 7919 % vocabulary);
  return tokens;
}

int64_t bytes_of(const ModelConfig& config, const DecoderShape& shape, Dtype type) {
  int64_t bytes = 0;
  for (const auto& [name, size] : Decoder::plan(config, shape, type)) bytes += size;
  return bytes;
}

}  // namespace

ParameterSet random_weights(Device& device, const ModelConfig& config, const WeightFormats& formats, uint64_t seed) {
  ParameterSet weights("weights", config, formats);
  weights.commit(device);
  ThreadPool pool(device.threads());
  for (size_t i = 0; i < weights.list().size(); ++i) {
    const ParameterInfo& info = weights.list()[i];
    std::vector<float> values(info.shape.elements(), info.name.ends_with("norm.weight") ? 1.0f : 0.0f);
    if (info.matrix) fill_uniform(values, 0.0346f, {.seed = seed, .step = i, .use = RandomUse::initialization}, pool);
    store_parameter(device, weights, i, values);
  }
  weights.interleave(device);
  return weights;
}

Speed measure_decode(Device& device, const ModelConfig& config, const ParameterSet& weights, DecoderShape shape,
                     int64_t tokens) {
  int64_t sequences = shape.sequences;
  shape.chunk = 1;
  Decoder decoder(device, config, weights, shape);
  std::vector<int32_t> text = some_tokens(sequences * (warm_up + tokens), config.vocab_size);
  Speed speed;
  std::vector<double> rates, slowness;  // seconds a call, times the bytes that were read in a second beside it
  speed.seconds = median_seconds(
      device, tokens,
      [&](int64_t i) {
        std::vector<Decoder::Input> inputs;
        for (int64_t s = 0; s < sequences; ++s)
          inputs.push_back({static_cast<int32_t>(s), std::span(text).subspan(i * sequences + s, 1)});
        decoder.forward(inputs);
      },
      [&](double seconds) {
        rates.push_back(device.read_rate());
        if (rates.size() > 1) slowness.push_back(seconds * (rates.back() + rates[rates.size() - 2]) / 2);
      });
  count_weights(weights, sequences, speed);
  int64_t keys = std::min(decoder.window(), warm_up + tokens / 2);
  KeyChoice choice = shape.choice.value_or(KeyChoice{config.topk, config.topk_mode});
  speed.bytes += attention_bytes(config, keys, sequences, decoder.ring(), choice);
  speed.tokens_per_s = static_cast<double>(sequences) / speed.seconds;
  speed.decoder_bytes = bytes_of(config, shape, weights.type());
  speed.read_rate = median(rates), speed.read_share = speed.bytes / median(slowness);
  return speed;
}

Speed measure_prefill(Device& device, const ModelConfig& config, const ParameterSet& weights, int64_t tokens,
                      int64_t rounds) {
  DecoderShape shape{.window = tokens, .chunk = tokens};
  Decoder decoder(device, config, weights, shape);
  std::vector<int32_t> text = some_tokens(tokens, config.vocab_size);
  Decoder::Input input{0, text};
  Speed speed;
  speed.seconds = median_seconds(device, rounds, [&](int64_t) {
    decoder.reset(0);
    decoder.forward({&input, 1});
  });
  count_weights(weights, tokens, speed);
  speed.tokens_per_s = static_cast<double>(tokens) / speed.seconds;
  speed.decoder_bytes = bytes_of(config, shape, weights.type());
  return speed;
}

}  // namespace longhand
