// The loop's body: feed what is new, draw, append.
#include <algorithm>

#include "longhand/generate.h"

namespace longhand {

struct Writer::State {
  Device& device;
  Decoder& decoder;
  Arena arena{"sampling"};
  Tensor tokens, logprob, history;  // [S] i32, [S] fp32, [S, window] i32
  Tensor logits;                    // the decoder's, of the last step

  State(Device& device, Decoder& decoder) : device(device), decoder(decoder) {
    lay_out();
    arena.commit(device);
    lay_out();
  }
  void lay_out() {
    int64_t rows = decoder.sequences();
    tokens = arena.take(Dtype::i32, {rows});
    logprob = arena.take(Dtype::fp32, {rows});
    history = arena.take(Dtype::i32, {rows * decoder.window()});
  }

  ConstTensor upload_history(std::span<WrittenText* const> texts);
};

// The tokens that the repetition penalty counts: those inside the window. Empty when no text asks for it.
ConstTensor Writer::State::upload_history(std::span<WrittenText* const> texts) {
  bool wanted = false;
  size_t longest = 1;
  for (const WrittenText* text : texts) {
    wanted = wanted || text->rules.repetition_penalty != 1;
    longest = std::max(longest, text->tokens.size());
  }
  if (!wanted) return {};
  int64_t rows = static_cast<int64_t>(texts.size());
  int64_t width = std::min(static_cast<int64_t>(longest), decoder.window());
  std::vector<int32_t> table(rows * width, -1);
  for (int64_t row = 0; row < rows; ++row) {
    const std::vector<int32_t>& seen = texts[row]->tokens;
    int64_t count = std::min(static_cast<int64_t>(seen.size()), width);
    std::copy(seen.end() - count, seen.end(), table.begin() + row * width);
  }
  Tensor place = history.rows(0, rows * width).reshape({rows, width});
  device.upload(place, table.data());
  return place;
}

Writer::Writer(Device& device, Decoder& decoder) : state_(std::make_shared<State>(device, decoder)) {}

void Writer::read(const WrittenText& text) {
  Decoder& decoder = state_->decoder;
  std::span<const int32_t> all = text.tokens;
  int64_t last = static_cast<int64_t>(all.size()) - 1;
  if (last < decoder.position(text.sequence)) fail("the decoder is ahead of the text that it is to continue");
  for (int64_t at; (at = decoder.position(text.sequence)) < last;) {
    Decoder::Input input{text.sequence, all.subspan(at, std::min(decoder.rows(), last - at)), false, true};
    decoder.forward({&input, 1});
  }
}

Tensor Writer::logits() const { return state_->logits; }

std::vector<Writer::Drawn> Writer::next(std::span<WrittenText* const> texts) {
  State& s = *state_;
  std::vector<Decoder::Input> inputs;
  std::vector<SamplingParameters> rules;
  for (const WrittenText* text : texts) {
    if (text->tokens.empty()) fail("a text of no tokens cannot be continued: give it a first one");
    read(*text);
    inputs.push_back({text->sequence, std::span(text->tokens).last(1)});
    rules.push_back(text->rules);
    rules.back().stream.use = RandomUse::sampling;
    rules.back().element = text->tokens.size();
  }
  if (inputs.empty()) return {};
  int64_t rows = static_cast<int64_t>(inputs.size());
  Tensor logits = s.logits = s.decoder.forward(inputs);
  Tensor tokens = s.tokens.rows(0, rows), logprob = s.logprob.rows(0, rows);
  s.device.sample(
      {.tokens = tokens, .logprob = logprob, .logits = logits, .history = s.upload_history(texts), .rules = rules});
  std::vector<int32_t> ids(rows);
  std::vector<float> values(rows);
  s.device.download(ids.data(), tokens);
  s.device.download(values.data(), logprob);
  std::vector<Drawn> drawn;
  for (int64_t row = 0; row < rows; ++row) {
    drawn.push_back({ids[row], values[row]});
    texts[row]->tokens.push_back(ids[row]);
  }
  return drawn;
}

}  // namespace longhand
