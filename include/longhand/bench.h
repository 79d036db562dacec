// How fast a model writes and reads, beside what the machine can do; and what fewer bits cost in quality.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longhand/data.h"
#include "longhand/generate.h"
#include "longhand/quantize.h"

namespace longhand {

/// Weights drawn tensor by tensor, so that the whole is never there in fp32: matrices uniform with deviation 0.02,
/// gains 1, biases 0.
ParameterSet random_weights(Device& device, const ModelConfig& config, const WeightFormats& formats, uint64_t seed);

struct Speed {
  double tokens_per_s = 0;    // of the median call
  double seconds = 0;         // a call
  double bytes = 0;           // that a call reads at least: weights, and the keys, values and R that its tokens see
  double operations = 0;      // of its products with weights, two a multiply-add
  int64_t weight_bytes = 0;   // in memory
  int64_t decoder_bytes = 0;  // rings, tables, activations
  // Decoding: bytes a second that the device read between the calls, and the median call's share of what it read right
  // before and after.
  double read_rate = 0, read_share = 0;
};

/// As many texts as `shape` says side by side, a token of each a call, `tokens` calls after `warm_up` ones.
Speed measure_decode(Device& device, const ModelConfig& config, const ParameterSet& weights, DecoderShape shape,
                     int64_t tokens);
/// A prompt of `tokens` in one call, logits after its last token; the median of `rounds`.
Speed measure_prefill(Device& device, const ModelConfig& config, const ParameterSet& weights, int64_t tokens,
                      int64_t rounds);

/// Seconds of passes of so many rows of one text, logits after each; medians of `rounds`, in each of which every number
/// of rows has its turn.
std::vector<double> measure_passes(Device& device, const ModelConfig& config, const ParameterSet& weights,
                                   std::span<const int64_t> rows, int64_t window, int64_t rounds);

/// A text written twice side by side, stretch by stretch in turn: token by token, and with drafts of up to `speculate`.
struct DraftedSpeed {
  int64_t tokens = 0;  // written by each
  int64_t passes = 0;  // of the drafted one
  int64_t drafted = 0, accepted = 0;
  double plain_seconds = 0, seconds = 0;
};
struct DraftedTask {
  std::span<const int32_t> prompt;
  std::span<const int32_t>
      replay;            // prompt and what counts as drawn after it; empty = what the weights write, greedily
  int64_t tokens = 256;  // of what the weights write
  int64_t speculate = 7, window = 0;
};
/// Fails when the two texts are not the same.
DraftedSpeed measure_drafts(Device& device, const ModelConfig& config, const ParameterSet& weights,
                            const DraftedTask& task);

/// What attention takes for one token of one text at a full window, all layers.
struct AttentionSpeed {
  Dtype ring = Dtype::fp32;
  KeyChoice choice;
  double bytes = 0;    // that it reads: keys, values, R, scales, bounds
  double seconds = 0;  // the median
};
double attention_bytes(const ModelConfig& config, int64_t window, int64_t sequences, Dtype ring,
                       const KeyChoice& choice);
/// Times every line with rings that hold random rows, line after line, `rounds` times over.
void measure_attention(Device& device, const ModelConfig& config, int64_t window, int64_t rounds,
                       std::vector<AttentionSpeed>& lines);

/// Bits a byte over the first tokens of every validation stream, `tokens` in all, each stream from nothing; the first
/// `skip` tokens of a stream are read but not counted (so that of few tokens, few streams are read), and streams no
/// longer than that are left out.
double bits_per_byte(Device& device, const LoadedModel& model, const TokenFile& data, int64_t tokens,
                     DecoderShape shape = {}, int64_t skip = 0);

/// Choosing the true continuation of a text among four: items drawn from the validation streams by `seed`, a context of
/// `context` tokens and four continuations of `length` tokens, one its own and three from elsewhere in the same stream;
/// the one with the largest log-probability is chosen.
struct ChoiceTask {
  int64_t items = 1000, context = 64, length = 4;
  uint64_t seed = 1;
};
/// For every item whether the choice was right.
std::vector<bool> choose_continuations(Device& device, const LoadedModel& model, const TokenFile& data,
                                       const ChoiceTask& task);

}  // namespace longhand
