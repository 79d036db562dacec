// Generation: the model token by token, with a ring of keys and values in place of the memory of hidden states. Weights
// are fixed here, so a key computed once stays right however far it moves into the past: R is indexed by distance and
// built once for all.
//
//   every layer and query:  the `window` nearest keys, 0 <= d < window, each computed with its own full context
//
// This equals one pass over the whole text under that mask; the text may be longer than any training context.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "longhand/adapter.h"
#include "longhand/choices.h"
#include "longhand/parameters.h"
#include "longhand/speculation.h"

namespace longhand {

/// A weight file on a device, in a chosen type.
struct LoadedModel {
  ModelConfig config;
  ParameterSet weights;
  std::string tokenizer;  // serialized SentencePiece model; empty when the file has none
  std::string words;      // or a vocabulary of words, one a line
  // Of the weights' checksums in file and adapters: tells models apart; empty where there are none.
  std::string checksum;
  std::string path;               // of the file
  std::string base;               // what an adapter made for these weights carries (base_checksum)
  bool quantized = false;         // by `longhand quantize`
  std::vector<Adapter> adapters;  // beside the weights, acting together
};

/// Fails with the file's name when it is no weight file (a token file, say). type: fp32 | bf16.
/// The low-rank updates of adapter files are merged into the weights, one file after the other; bottleneck adapters,
/// which at most one of them may bring, join the model (config.adapter_width). Fails when a file was made for another
/// model.
LoadedModel load_model(Device& device, const std::string& path, Dtype type,
                       const std::vector<std::string>& adapters = {});

/// An adapter to be held beside the weights, whatever their types. Fails when it was made for another model, or holds
/// weights that take the place of the model's.
Adapter load_adapter(Device& device, const std::string& path, const LoadedModel& model);
/// Puts an adapter beside the model's weights and behind its other adapters. Weights that the file has in place of the
/// model's (finetune --train-only) are put there, where these are floats.
void add_adapter(Device& device, const std::string& path, LoadedModel& model);

/// Which of the keys that a query sees it attends to: all of them (topk 0), the topk with the largest scores, or, in
/// block mode, those of its ceil(topk / 64) best pages of 64 keys, the newest two always (see AttentionDecode).
struct KeyChoice {
  int64_t topk = 0;
  TopkMode mode = TopkMode::exact;
};

/// What is fixed before the first token: it decides every size.
struct DecoderShape {
  int64_t sequences = 1;            // S: texts side by side, each with rings of its own
  int64_t window = 0;               // W: keys a query sees; 0 = segment + mem_len of the configuration
  int64_t chunk = 64;               // tokens of one call at most
  std::optional<Dtype> ring;        // of keys, values and R: fp32, bf16 or i8; none = the activations' type
  std::optional<KeyChoice> choice;  // none = as the model was trained
};

class Decoder {
 public:
  /// `weights` and adapters outlive the decoder. A same_length model sees no further than its mem_len, whatever the
  /// window. Sequences begin under the weights alone.
  Decoder(Device& device, const ModelConfig& config, const ParameterSet& weights, const DecoderShape& shape,
          std::vector<AdapterStack> adapters = {});
  /// All sequences under the model's adapters.
  Decoder(Device& device, const LoadedModel& model, const DecoderShape& shape);

  /// Counts the arenas without allocating: pairs (name, bytes) in order.
  static std::vector<std::pair<std::string, int64_t>> plan(const ModelConfig& config, const DecoderShape& shape,
                                                           Dtype type);

  /// The next tokens of one sequence, at least one. A sequence stands in a call once.
  struct Input {
    int32_t sequence = 0;
    std::span<const int32_t> tokens;
    bool every = false;  // logits after each token; otherwise after the last one
    bool none = false;   // no logits at all: the call only fills the rings
  };
  /// Takes all inputs in one pass of at most `chunk` tokens in all (or `sequences`, where that is more) and returns
  /// logits [rows, V] fp32 in the order of the inputs, on the device, valid until the next call; empty when none were
  /// asked for. A row's bits depend neither on the other rows nor on how the text was cut into calls. Neighbours under
  /// the same adapters are computed together.
  Tensor forward(std::span<const Input> inputs);

  /// Final hidden states [rows, D] of every token of the last forward(), in the weights' type, after the final norm
  /// where the model has one; on the device, valid until the next call.
  Tensor hidden();

  int64_t position(int32_t sequence) const;  // tokens taken so far
  void reset(int32_t sequence);
  void copy(int32_t to, int32_t from);  // sequence `to` goes on from where `from` stands, under its adapters
  /// The tokens from `position` on, at most rows() of them, are taken back: the sequence goes on as if they had never
  /// been there. (A ring of window + rows - 1 slots has not lost a key that the tokens from `position` on see.)
  void take_back(int32_t sequence, int64_t position);
  /// An empty sequence goes under one of the decoder's stacks of adapters; no_adapters = the weights alone. It stays
  /// there when it is reset.
  void adapt(int32_t sequence, int32_t adapters);
  static constexpr int32_t no_adapters = -1;

  /// What a sequence's tokens left behind: keys and values of every layer in turn, each [slots, H, dh] in the ring's
  /// type, i8 with their scales [slots, H] after them, the token of position p in slot p modulo slots. See
  /// longhand/session.h.
  std::vector<Tensor> rings(int32_t sequence) const;
  /// How many of a sequence's last rows it takes to go on.
  int64_t rows_needed(int64_t position) const;
  /// A sequence whose rings were filled from elsewhere goes on after `position` tokens.
  void resume(int32_t sequence, int64_t position);

  const ModelConfig& config() const;
  int64_t window() const;         // as it takes effect
  Dtype ring() const;             // what keys, values and R are held in
  std::string attention() const;  // "dense", "topk 64" or "pages 16"
  int64_t sequences() const;
  int64_t rows() const;  // tokens of one call at most

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// A text being written. rules.stream.seed and rules.stream.step tell one text's random numbers from another's; the
/// element is the token's position, so what is drawn does not depend on how the text was cut into calls.
struct WrittenText {
  int32_t sequence = 0;
  std::vector<int32_t> tokens;  // from the decoder's position 0 on; at least one before the first draw
  SamplingParameters rules;
  Speculation speculation;                    // off unless asked for; changes nothing but the time
  std::shared_ptr<const ChoiceTree> choices;  // what may be written; null = anything
  int32_t choice = ChoiceTree::root;          // how much of it has been
  std::span<const int32_t> replay;            // a text whose tokens count as drawn, prompt included: for measurements

  bool complete() const { return choices && choices->complete(choice); }  // nothing is left to draw
};

/// Draws tokens for several texts at once.
class Writer {
 public:
  Writer(Device& device, Decoder& decoder);

  /// Feeds what the decoder has not seen of a text, all but its last token.
  void read(const WrittenText& text);

  struct Drawn {
    int32_t token;
    float logprob;    // log softmax of the raw logits
    int64_t row = 0;  // its raw logits in logits()
  };
  /// Reads each text, draws its next token and appends it; and then those after it, as long as they are what the text's
  /// draft foretold. One list a text, of at least one token.
  std::vector<std::vector<Drawn>> next(std::span<WrittenText* const> texts);
  /// The last `count` of the tokens that the last next() drew, but not all, are taken back: text and decoder are as if
  /// they had not been drawn.
  void take_back(WrittenText& text, int64_t count);
  /// Raw logits [rows, V] fp32 of the last next(), on the device, valid until the decoder's next call.
  Tensor logits() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// Lets text through until one of the stop strings begins. What may be the beginning of one is held back until the rest
/// decides.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stops);  // empty strings are left out
  std::string push(std::string_view text);              // what is safe to show; nothing once stopped
  std::string finish();                                 // what is still held back
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace longhand
