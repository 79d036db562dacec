// A model and data small enough that a training step takes a millisecond.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "longhand/train.h"

namespace longhand::testing {

/// A directory of its own for one test, removed at its end.
class Scratch {
 public:
  Scratch() {
    std::string pattern = (std::filesystem::temp_directory_path() / "longhand-train-XXXXXX").string();
    if (!mkdtemp(pattern.data())) fail("no scratch directory");
    path_ = pattern;
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline std::string read_bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline ModelConfig small_model() {
  ModelConfig c;
  c.vocab_size = 50, c.d_model = 16, c.n_layer = 2, c.n_head = 2, c.d_head = 8, c.d_ff = 24, c.mem_len = 11;
  return c;
}

inline TrainOptions small_options() {
  TrainOptions o;
  o.config = small_model();
  o.lanes = 4, o.segment = 7, o.steps = 12, o.learning_rate = 1e-2, o.seed = 5;
  o.resolve(0);
  return o;
}

/// Token files: documents of 13 tokens in which each token follows from the one before it, two validation streams.
inline std::string write_tokens(const Scratch& scratch, const std::string& name, int64_t count, int shift = 1) {
  std::vector<uint16_t> tokens(count);
  std::vector<int64_t> documents;
  for (int64_t i = 0; i < count; ++i) {
    tokens[i] = static_cast<uint16_t>(i % 13 == 0 ? (i / 13 * 7 + shift) % 50 : (tokens[i - 1] * 3 + shift) % 50);
    if (i % 13 == 0) documents.push_back(i);
  }
  ConstTensor all(tokens.data(), Dtype::u16, {count}),
      starts(documents.data(), Dtype::i64, {int64_t(documents.size())});
  auto documents_of = [&](int64_t n) { return starts.rows(0, (n + 12) / 13); };
  std::vector<NamedTensor> tensors{{"train.tokens", all},
                                   {"train.documents", starts},
                                   {"validation.de.tokens", all.rows(0, 61)},
                                   {"validation.de.documents", documents_of(61)},
                                   {"validation.en.tokens", all.rows(0, 40)},
                                   {"validation.en.documents", documents_of(40)}};
  std::string path = scratch / name;
  write_safetensors(path, tensors,
                    {{"longhand.kind", "tokens"},
                     {"vocab_size", "50"},
                     {"train.bytes", std::to_string(4 * count)},
                     {"validation.de.bytes", "122"},
                     {"validation.en.bytes", "120"}});
  return path;
}

}  // namespace longhand::testing
