// Token files and the loaders that cut them into batches.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/model.h"
#include "longhand/safetensors.h"

namespace longhand {

/// A stream of tokens with the starts of its documents; `bytes` is the UTF-8 length of the text, 0 when unknown.
struct TokenStream {
  std::string name;       // "train", or the language of a validation stream: "en", "zh", ...
  ConstTensor tokens;     // [N] u16 or u32
  ConstTensor documents;  // [documents] i64, ascending, first 0; empty when unknown
  int64_t bytes = 0;
  int64_t size() const { return tokens.elements(); }
  int32_t at(int64_t index) const;
};

/// Ids in decimal, separated by blanks, line breaks or commas. Fails with `name`, byte and line of anything else.
std::vector<uint32_t> parse_token_ids(std::string_view text, const std::string& name);

/// A token file: a safetensors file with `train.tokens`, `train.documents`, `validation.<name>.tokens`,
/// `validation.<name>.documents`, optionally `tokenizer.model`, and metadata `longhand.kind` = "tokens", `vocab_size`,
/// `train.bytes`, `validation.<name>.bytes`. Plain text of ids separated by blanks or commas is read as well: it has no
/// validation streams and vocab_size 0. Opening checks every id against the vocabulary and every document start;
/// validation streams are ordered by name. Streams point into the file and live as long as it or a copy of it.
class TokenFile {
 public:
  explicit TokenFile(const std::string& path);
  const TokenStream& train() const;
  const std::vector<TokenStream>& validation() const;
  int64_t vocab_size() const;
  std::string_view tokenizer_model() const;  // serialized SentencePiece model, may be empty

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// Where a loader stands: enough to continue bit for bit.
struct LoaderState {
  int64_t step = 0;  // batches given out
  int64_t epoch = 0;
};

/// Lanes of a stream, which must outlive the loader: with n = floor((N - 1) / B), lane b is tokens [b n, b n + n];
/// batch t feeds [t T, (t + 1) T) of each lane and predicts the token after each. A batch that would pass the lane's
/// end starts again at 0 with empty memory; the rest is dropped. With `mask_documents` the batch carries
/// document_start, so that no query sees another document: the start is counted from the first memory row,
/// `memory_length` being the rows of memory that the batch will meet; it is 0 when everything is visible. The
/// end-of-document token belongs to the document that it ends. Fails when the stream is shorter than one batch, or has
/// no document starts to mask by.
class LaneLoader {
 public:
  LaneLoader(TokenStream stream, int64_t lanes, int64_t segment, bool mask_documents);
  /// The next batch; valid until the next call. `fresh` is true when the memory must be emptied first.
  Batch next(int64_t memory_length, bool& fresh);
  /// Whether the next batch starts a lane again.
  bool next_is_fresh() const;
  LoaderState state() const;
  void restore(const LoaderState& state);  // fails when it is of a loader with another number of batches an epoch
  int64_t batches_per_epoch() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace longhand
