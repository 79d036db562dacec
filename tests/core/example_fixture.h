// Examples of a small model: see train_fixture.h.
#pragma once

#include "tests/core/train_fixture.h"

namespace longhand::testing {

/// Examples of 3 to 12 tokens; example e is (e, e + stride, ...), its last third is the answer.
inline TokenContent some_examples(int64_t count, int64_t stride) {
  TokenContent c{.name = "train"};
  for (int64_t e = 0; e < count; ++e) {
    int64_t length = 3 + e * 3 % 10;
    c.documents.push_back(static_cast<int64_t>(c.tokens.size()));
    for (int64_t i = 0; i < length; ++i) {
      c.tokens.push_back(static_cast<uint32_t>((e + i * stride) % 50));
      c.answers.push_back(i * 3 >= 2 * length);
    }
    c.bytes += length;
  }
  return c;
}

inline TokenFile example_file(int64_t stride = 1) {
  TokenContent validation = some_examples(9, stride);
  validation.name = "answers";
  return TokenFile({some_examples(40, stride), validation}, 50, "");
}

inline TrainOptions example_options() {
  TrainOptions o = small_options();
  o.examples = true, o.segment = 16, o.steps = 0, o.epochs = 3, o.dropout = {0.1f, 0.1f, 0.1f, 0.1f, 0.1f};
  o.resolve(0);
  return o;
}

}  // namespace longhand::testing
