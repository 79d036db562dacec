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
  ConstTensor answers = {};  // [N] u8, examples alone: 1 where the token is to be learnt; `bytes` counts those
  int64_t size() const { return tokens.elements(); }
  int32_t at(int64_t index) const;
};

/// Ids in decimal, separated by blanks, line breaks or commas. Fails with `name`, byte and line of anything else.
std::vector<uint32_t> parse_token_ids(std::string_view text, const std::string& name);

/// What a stream is made of when it comes from no file; see TokenStream.
struct TokenContent {
  std::string name;
  std::vector<uint32_t> tokens;
  std::vector<int64_t> documents;
  std::vector<uint8_t> answers;
  int64_t bytes = 0;
};

/// A token file: a safetensors file with `train.tokens`, `train.documents`, `validation.<name>.tokens`,
/// `validation.<name>.documents`, optionally `tokenizer.model`, and metadata `longhand.kind` = "tokens", `vocab_size`,
/// `train.bytes`, `validation.<name>.bytes`. Plain text of ids separated by blanks or commas is read as well: it has no
/// validation streams and vocab_size 0. Opening checks every id against the vocabulary and every document start;
/// validation streams are ordered by name. Streams point into the file and live as long as it or a copy of it.
class TokenFile {
 public:
  explicit TokenFile(const std::string& path);
  /// Streams that stand in memory, "train" first.
  TokenFile(std::vector<TokenContent> streams, int64_t vocab_size, std::string tokenizer_model);
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

/// Gives out batches, one optimizer step each, in an order that its state alone decides.
class Loader {
 public:
  virtual ~Loader() = default;
  /// The next batch; valid until the next call. `fresh` is true when the memory must be emptied first.
  virtual Batch next(int64_t memory_length, bool& fresh) = 0;
  /// Whether the next batch needs an empty memory.
  virtual bool next_is_fresh() const = 0;
  virtual LoaderState state() const = 0;
  virtual void restore(const LoaderState& state) = 0;  // fails when it is of other batches
  virtual int64_t batches_per_epoch() const = 0;
};

/// Lanes of a stream, which must outlive the loader: with n = floor((N - 1) / B), lane b is tokens [b n, b n + n];
/// batch t feeds [t T, (t + 1) T) of each lane and predicts the token after each. A batch that would pass the lane's
/// end starts again at 0 with empty memory; the rest is dropped. With `mask_documents` the batch carries
/// document_start, so that no query sees another document: the start is counted from the first memory row,
/// `memory_length` being the rows of memory that the batch will meet; it is 0 when everything is visible. The
/// end-of-document token belongs to the document that it ends. Fails when the stream is shorter than one batch, or has
/// no document starts to mask by.
class LaneLoader : public Loader {
 public:
  LaneLoader(TokenStream stream, int64_t lanes, int64_t segment, bool mask_documents);
  Batch next(int64_t memory_length, bool& fresh) override;
  bool next_is_fresh() const override;
  LoaderState state() const override;
  void restore(const LoaderState& state) override;
  int64_t batches_per_epoch() const override;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// Examples (the documents of a stream with `answers`) in rows of T inputs. An example of n tokens feeds its first
/// n - 1 and lies whole in one row; with `pack` a row takes as many as fit, in an order drawn from `seed`, otherwise
/// one. What is left of a row is padding: token 0 that sees itself alone and has no target.
class ExampleRows {
 public:
  /// Fails when an example has fewer than two tokens or more than T + 1.
  ExampleRows(TokenStream stream, int64_t segment, bool pack, uint64_t seed);
  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  /// Position-major [T, lanes] arrays of one step.
  struct Columns {
    std::vector<int32_t> tokens, targets, document_start;
    int64_t lanes = 0;
    Batch batch(int64_t segment) const;
  };
  Columns columns(int64_t lanes) const;
  /// Writes row `row` (-1: padding alone) into one lane; returns its targets.
  int64_t fill(int64_t row, Columns& columns, int64_t lane) const;

 private:
  TokenStream stream_;
  int64_t segment_;
  std::vector<std::vector<int64_t>> rows_;  // the examples of each
};

/// Every row of examples once an epoch, in an order drawn from (seed, epoch), `lanes` a batch; the last batch is filled
/// up with padding. Every batch starts with empty memory, since no example goes on from another.
class ExampleLoader : public Loader {
 public:
  ExampleLoader(TokenStream stream, int64_t lanes, int64_t segment, bool pack, uint64_t seed);
  Batch next(int64_t memory_length, bool& fresh) override;
  bool next_is_fresh() const override { return true; }
  LoaderState state() const override { return at_; }
  void restore(const LoaderState& state) override;
  int64_t batches_per_epoch() const override;

 private:
  ExampleRows rows_;
  ExampleRows::Columns columns_;
  int64_t segment_;
  uint64_t seed_;
  LoaderState at_;
  std::vector<int64_t> order_;
  int64_t ordered_epoch_ = -1;
};

}  // namespace longhand
