// What a model knows, measured through the decoder that will run it: bits a byte, and choices among continuations.
#include <algorithm>
#include <cmath>

#include "longhand/bench.h"
#include "longhand/text.h"

namespace longhand {
namespace {

/// Log-probabilities of tokens that the decoder was given.
class Scorer {
 public:
  Scorer(Device& device, const LoadedModel& model, const DecoderShape& shape)
      : device_(device), decoder_(device, model.config, model.weights, shape) {
    lay_out();
    arena_.commit(device);
    lay_out();
  }
  Decoder& decoder() { return decoder_; }

  /// forward() with logits after every token; targets: the token after each, of all inputs in order.
  std::vector<float> score(std::span<const Decoder::Input> inputs, std::span<const int32_t> targets) {
    int64_t rows = static_cast<int64_t>(targets.size());
    Tensor logits = decoder_.forward(inputs), tokens = tokens_.rows(0, rows), logprob = logprob_.rows(0, rows);
    device_.upload(tokens, targets.data());
    device_.log_probability({.logprob = logprob, .logits = logits, .tokens = tokens});
    std::vector<float> values(rows);
    device_.download(values.data(), logprob);
    return values;
  }

 private:
  void lay_out() {
    tokens_ = arena_.take(Dtype::i32, {decoder_.rows()});
    logprob_ = arena_.take(Dtype::fp32, {decoder_.rows()});
  }
  Device& device_;
  Decoder decoder_;
  Arena arena_{"scores"};
  Tensor tokens_, logprob_;
};

std::vector<int32_t> tokens_of(const TokenStream& stream, int64_t first, int64_t count) {
  std::vector<int32_t> tokens(count);
  for (int64_t i = 0; i < count; ++i) tokens[i] = stream.at(first + i);
  return tokens;
}

void check_data(const LoadedModel& model, const TokenFile& data) {
  if (data.validation().empty()) fail("the token file has no validation text");
  if (data.vocab_size() != model.config.vocab_size ||
      (!model.tokenizer.empty() && !data.tokenizer_model().empty() && model.tokenizer != data.tokenizer_model()))
    fail("the token file was made with another vocabulary than the model's");
}

/// One item: the context, then its own continuation and three others.
bool choose(Scorer& scorer, const std::vector<int32_t>& context, const std::vector<std::vector<int32_t>>& choices) {
  Decoder& decoder = scorer.decoder();
  decoder.reset(0);
  Decoder::Input first{0, std::span(context).first(context.size() - 1), false, true};
  decoder.forward({&first, 1});
  std::vector<std::vector<int32_t>> given(choices.size());
  std::vector<Decoder::Input> inputs;
  std::vector<int32_t> targets;
  for (size_t c = 0; c < choices.size(); ++c) {
    decoder.copy(static_cast<int32_t>(c), 0);
    given[c] = {context.back()};
    given[c].insert(given[c].end(), choices[c].begin(), choices[c].end() - 1);
    inputs.push_back({static_cast<int32_t>(c), given[c], true});
    targets.insert(targets.end(), choices[c].begin(), choices[c].end());
  }
  std::vector<float> logprobs = scorer.score(inputs, targets);
  std::vector<double> sums(choices.size());
  for (size_t i = 0; i < logprobs.size(); ++i) sums[i / choices[0].size()] += logprobs[i];
  return std::max_element(sums.begin(), sums.end()) == sums.begin();
}

}  // namespace

double bits_per_byte(Device& device, const LoadedModel& model, const TokenFile& data, int64_t tokens,
                     DecoderShape shape, int64_t skip) {
  constexpr int64_t chunk = 256;
  check_data(model, data);
  if (model.tokenizer.empty()) fail("bits a byte need a tokenizer in the model's file");
  Tokenizer tokenizer(model.tokenizer);
  shape.chunk = chunk;
  Scorer scorer(device, model, shape);
  int64_t long_enough = std::count_if(data.validation().begin(), data.validation().end(),
                                      [&](const TokenStream& stream) { return stream.size() - 1 > skip; });
  if (long_enough == 0) fail("no validation stream has more than {} tokens", skip + 1);
  // What is read and not counted must not outweigh what is: then fewer streams.
  int64_t each = std::max(tokens / long_enough, std::min(tokens, skip)), counted = 0;
  double nats = 0, bytes = 0;
  for (const TokenStream& stream : data.validation()) {
    if (stream.size() - 1 <= skip || counted >= tokens) continue;
    int64_t count = std::min(skip + each, stream.size() - 1);
    counted += count - skip;
    scorer.decoder().reset(0);
    for (int64_t first = 0; first < count; first += chunk) {
      int64_t part = std::min(chunk, count - first);
      std::vector<int32_t> text = tokens_of(stream, first, part), targets = tokens_of(stream, first + 1, part);
      Decoder::Input input{0, text, true};
      std::vector<float> logprobs = scorer.score({&input, 1}, targets);
      for (int64_t i = std::max<int64_t>(skip - first, 0); i < part; ++i)
        nats -= logprobs[i], bytes += static_cast<double>(tokenizer.piece_bytes(targets[i]).size());
    }
  }
  return nats / std::log(2.0) / bytes;
}

std::vector<bool> choose_continuations(Device& device, const LoadedModel& model, const TokenFile& data,
                                       const ChoiceTask& task) {
  constexpr int64_t choices = 4;
  check_data(model, data);
  Scorer scorer(device, model,
                {.sequences = choices,
                 .window = task.context + task.length,
                 .chunk = std::max(task.context, choices * task.length)});
  RandomStream random{.seed = task.seed, .use = RandomUse::shuffle};
  std::vector<bool> right;
  uint64_t drawn = 0;
  auto below = [&](int64_t n) { return static_cast<int64_t>(random.bits(drawn++) % static_cast<uint64_t>(n)); };
  for (int64_t item = 0; item < task.items; ++item) {
    const TokenStream& stream = data.validation()[item % data.validation().size()];
    int64_t last = stream.size() - task.context - task.length;
    if (last < choices) fail("validation stream {} has {} tokens, too few for a choice", stream.name, stream.size());
    int64_t start = below(last);
    std::vector<std::vector<int32_t>> texts = {tokens_of(stream, start + task.context, task.length)};
    for (int tries = 0; static_cast<int64_t>(texts.size()) < choices; ++tries) {
      std::vector<int32_t> other = tokens_of(stream, below(last), task.length);
      if (other != texts[0] || tries > 100) texts.push_back(std::move(other));
    }
    right.push_back(choose(scorer, tokens_of(stream, start, task.context), texts));
  }
  return right;
}

}  // namespace longhand
