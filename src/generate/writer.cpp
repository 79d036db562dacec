// The loop's body: feed what is new and what may follow, draw, keep what holds.
#include <algorithm>

#include "longhand/generate.h"

namespace longhand {
namespace {

// A text in a call: its last token and its draft are rows [first, first + 1 + draft) of the logits.
struct Reading {
  WrittenText* text;
  std::vector<int32_t> tokens;  // the last one of the text, then the draft
  int64_t first = 0;
  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

// Drafts end where a choice would be left, or be complete.
void keep_allowed(const WrittenText& text, std::vector<int32_t>& draft) {
  if (!text.choices) return;
  int32_t node = text.choice;
  for (size_t i = 0; i < draft.size(); ++i) {
    node = text.choices->child(node, draft[i]);
    if (node < 0 || text.choices->complete(node)) return draft.resize(i);
  }
}

}  // namespace

struct Writer::State {
  Device& device;
  Decoder& decoder;
  int64_t rows;  // tokens drawn in a pass at most
  Arena arena{"sampling"};
  Tensor tokens, logprob, history, allowed;  // [rows] i32, [rows] fp32, [rows, window] i32, [rows, ceil(V / 64)] u64
  Tensor logits;                             // the decoder's, of the last step

  State(Device& device, Decoder& decoder)
      : device(device), decoder(decoder), rows(std::min(decoder.rows(), decoder.sequences() + Speculation::limit)) {
    lay_out();
    arena.commit(device);
    lay_out();
  }
  void lay_out() {
    tokens = arena.take(Dtype::i32, {rows});
    logprob = arena.take(Dtype::fp32, {rows});
    history = arena.take(Dtype::i32, {rows * decoder.window()});
    allowed = arena.take(Dtype::u64, {rows, (decoder.config().vocab_size + 63) / 64});
  }

  std::vector<Reading> plan(std::span<WrittenText* const> texts);
  std::vector<SamplingParameters> rules(const std::vector<Reading>& readings) const;
  ConstTensor upload_history(const std::vector<Reading>& readings, int64_t count);
  ConstTensor upload_allowed(const std::vector<Reading>& readings, int64_t count);
  std::vector<Drawn> keep(const Reading& reading, const int32_t* ids, const float* logprobs);
};

// The rows that are left beside one for every text are shared out evenly.
std::vector<Reading> Writer::State::plan(std::span<WrittenText* const> texts) {
  std::vector<Reading> readings;
  int64_t count = static_cast<int64_t>(texts.size()), spare = rows - count, row = 0;
  for (WrittenText* text : texts) {
    Reading reading{text, {text->tokens.back()}, row};
    const Speculation& speculation = text->speculation;
    int64_t room = std::min({speculation.most, speculation.depth, spare / count});
    if (room > 0) {
      std::vector<int32_t> draft = find_draft(text->tokens, room);
      keep_allowed(*text, draft);
      reading.tokens.insert(reading.tokens.end(), draft.begin(), draft.end());
    }
    row += reading.rows();
    readings.push_back(std::move(reading));
  }
  return readings;
}

std::vector<SamplingParameters> Writer::State::rules(const std::vector<Reading>& readings) const {
  std::vector<SamplingParameters> list;
  for (const Reading& reading : readings)
    for (int64_t row = 0; row < reading.rows(); ++row) {
      list.push_back(reading.text->rules);
      list.back().stream.use = RandomUse::sampling;
      list.back().element = reading.text->tokens.size() + static_cast<uint64_t>(row);
    }
  return list;
}

// The tokens that the repetition penalty counts: those inside the window, of the draft those before the row's. Empty
// when no text asks for it.
ConstTensor Writer::State::upload_history(const std::vector<Reading>& readings, int64_t count) {
  bool wanted = false;
  size_t longest = 1;
  for (const Reading& reading : readings) {
    wanted = wanted || reading.text->rules.repetition_penalty != 1;
    longest = std::max(longest, reading.text->tokens.size() + reading.tokens.size() - 1);
  }
  if (!wanted) return {};
  int64_t width = std::min(static_cast<int64_t>(longest), decoder.window());
  std::vector<int32_t> table(count * width, -1), seen;
  for (const Reading& reading : readings) {
    seen = reading.text->tokens;
    seen.insert(seen.end(), reading.tokens.begin() + 1, reading.tokens.end());
    for (int64_t row = 0; row < reading.rows(); ++row) {
      auto end = seen.begin() + static_cast<int64_t>(reading.text->tokens.size()) + row;
      std::copy(end - std::min(end - seen.begin(), width), end, table.begin() + (reading.first + row) * width);
    }
  }
  Tensor place = history.rows(0, count * width).reshape({count, width});
  device.upload(place, table.data());
  return place;
}

// The tokens that may come after each row. Empty when every text may be anything.
ConstTensor Writer::State::upload_allowed(const std::vector<Reading>& readings, int64_t count) {
  auto constrained = [](const Reading& reading) { return reading.text->choices != nullptr; };
  if (std::none_of(readings.begin(), readings.end(), constrained)) return {};
  size_t width = static_cast<size_t>(allowed.size(1));
  std::vector<uint64_t> table(count * width);
  for (const Reading& reading : readings) {
    int32_t node = reading.text->choice;
    for (int64_t row = 0; row < reading.rows(); ++row) {
      std::span<uint64_t> words(table.data() + (reading.first + row) * width, width);
      if (!constrained(reading)) {
        std::fill(words.begin(), words.end(), ~uint64_t{0});
        continue;
      }
      if (row > 0) node = reading.text->choices->child(node, reading.tokens[row]);
      reading.text->choices->allow(node, words);
    }
  }
  Tensor place = allowed.rows(0, count);
  device.upload(place, table.data());
  return place;
}

// Of what was drawn after each row, the tokens that came after the text as it really went on.
std::vector<Writer::Drawn> Writer::State::keep(const Reading& reading, const int32_t* ids, const float* logprobs) {
  WrittenText& text = *reading.text;
  std::vector<Drawn> drawn;
  for (int64_t row = 0; row < reading.rows(); ++row) {
    if (row > 0 && text.tokens.back() != reading.tokens[row]) break;
    if (row > 0 && text.tokens.size() == text.replay.size()) break;
    int64_t at = reading.first + row;
    int32_t token = text.tokens.size() < text.replay.size() ? text.replay[text.tokens.size()] : ids[at];
    drawn.push_back({token, logprobs[at], at});
    text.tokens.push_back(token);
    if (text.choices) text.choice = text.choices->child(text.choice, token);
  }
  decoder.take_back(text.sequence, static_cast<int64_t>(text.tokens.size()) - 1);
  text.speculation.learn(reading.rows() - 1, static_cast<int64_t>(drawn.size()) - 1);
  return drawn;
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

std::vector<std::vector<Writer::Drawn>> Writer::next(std::span<WrittenText* const> texts) {
  State& s = *state_;
  if (texts.empty()) return {};
  for (const WrittenText* text : texts) {
    if (text->tokens.empty()) fail("a text of no tokens cannot be continued: give it a first one");
    if (text->complete()) fail("a text that has become one of its choices cannot be continued");
    read(*text);
  }
  std::vector<Reading> readings = s.plan(texts);
  std::vector<Decoder::Input> inputs;
  for (const Reading& reading : readings) inputs.push_back({reading.text->sequence, reading.tokens, true});
  Tensor logits = s.logits = s.decoder.forward(inputs);
  int64_t rows = logits.size(0);
  Tensor tokens = s.tokens.rows(0, rows), logprob = s.logprob.rows(0, rows);
  s.device.sample({.tokens = tokens,
                   .logprob = logprob,
                   .logits = logits,
                   .history = s.upload_history(readings, rows),
                   .allowed = s.upload_allowed(readings, rows),
                   .rules = s.rules(readings)});
  std::vector<int32_t> ids(rows);
  std::vector<float> values(rows);
  s.device.download(ids.data(), tokens);
  s.device.download(values.data(), logprob);
  std::vector<std::vector<Drawn>> drawn;
  for (const Reading& reading : readings) drawn.push_back(s.keep(reading, ids.data(), values.data()));
  return drawn;
}

void Writer::take_back(WrittenText& text, int64_t count) {
  if (count == 0) return;
  text.tokens.resize(text.tokens.size() - static_cast<size_t>(count));
  if (text.choices)
    for (int64_t i = 0; i < count; ++i) text.choice = text.choices->parent(text.choice);
  state_->decoder.take_back(text.sequence, static_cast<int64_t>(text.tokens.size()) - 1);
}

}  // namespace longhand
