// The output layer: logits of hidden states, by one product with the embedding or by an adaptive softmax.
#pragma once

#include "longhand/parameters.h"

namespace longhand {

/// What an adaptive softmax needs beside its weights, for `rows` hidden states at a time; nothing without cutoffs.
struct OutputScratch {
  static constexpr int64_t rows = 32;
  Tensor projected, tail;         // [rows, d], [rows, n] of the largest tail
  Tensor tails;                   // [rows, tails]: logits of the tails as a whole
  Tensor first_token, first_log;  // [rows] i32, all 0; [rows]
  Tensor terms, signs;            // [rows, 3]; [n, 3]: every row is 1, 1, -1

  void lay_out(Arena& arena, const ModelConfig& config);
  void fill(Device& device);  // the constants, after the arena's commit()
};

/// out [rows, V] fp32 (with a plain softmax: fp32 | bf16) from hidden [rows, D]. With cutoffs, word w of tail i has
///   logit_w = tail logit_w - log sum over the tail's words of exp(tail logit) + logit of the tail i
/// so that one softmax over all V of them gives p(w) = p(tail i) p(w | tail i).
void output_logits(Device& device, const ParameterSet& weights, const ModelConfig& config, const Tensor& out,
                   const ConstTensor& hidden, const OutputScratch& scratch);

}  // namespace longhand
