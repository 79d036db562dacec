// Tokens on their way to the reader: bytes become valid UTF-8, stop strings do not leak.
#pragma once

#include <string>
#include <vector>

#include "longhand/generate.h"
#include "longhand/text.h"

namespace longhand {

class PieceStream {
 public:
  PieceStream(const Tokenizer& tokenizer, const std::vector<std::string>& stops)
      : tokenizer_(tokenizer), filter_(stops) {}

  /// What can be shown once `token` is there.
  std::string push(int32_t token) { return filter_.push(utf8_.push(tokenizer_.piece_bytes(token))); }

  /// What was still held back; nothing when a stop string was met.
  std::string finish() {
    std::string rest = filter_.push(utf8_.finish());
    return rest + filter_.finish();
  }

  bool stopped() const { return filter_.stopped(); }

 private:
  const Tokenizer& tokenizer_;
  Utf8Stream utf8_;
  StopFilter filter_;
};

}  // namespace longhand
