// Token files and the loaders that cut them into batches.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/curriculum.h"
#include "longhand/model.h"
#include "longhand/safetensors.h"

namespace longhand {

/// What a head is to say of an example after reading its token `token`.
struct ExampleLabel {
  int32_t head, token, label;
};

/// Other forms of a stream's examples, made when they are drawn.
class ExampleVariants {
 public:
  struct Variant {
    std::vector<int32_t> tokens;
    std::vector<uint8_t> answers;  // as in TokenStream
    std::vector<ExampleLabel> labels = {};
  };
  virtual ~ExampleVariants() = default;
  /// The form of an example in batch `step`; without tokens where the example itself is meant.
  virtual Variant make(int64_t example, int64_t step) const = 0;
  virtual uint32_t checksum() const = 0;  // of what the forms are made by
};

/// A stream of tokens with the starts of its documents; `bytes` is the UTF-8 length of the text, 0 when unknown.
struct TokenStream {
  std::string name;       // "train", or the language of a validation stream: "en", "zh", ...
  ConstTensor tokens;     // [N] u16 or u32
  ConstTensor documents;  // [documents] i64, ascending, first 0; empty when unknown
  int64_t bytes = 0;
  ConstTensor answers = {};  // [N] u8, examples alone: 1 where the token is to be learnt; `bytes` counts those
  ConstTensor tasks = {};    // [documents] i32, examples alone: places in task_names; may be empty
  std::vector<std::string> task_names = {};
  std::shared_ptr<const ExampleVariants> variants = {};
  const std::vector<std::vector<ExampleLabel>>* labels = nullptr;  // of every document; null = none
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
  std::vector<int32_t> tasks;
  std::vector<std::string> task_names;
  std::shared_ptr<const ExampleVariants> variants;
  std::vector<std::vector<ExampleLabel>> labels;
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
  virtual int64_t batches_per_epoch() const = 0;       // of the first
  /// Batches until so many epochs' tokens have been given out.
  virtual int64_t batches_in(double epochs) const;

  /// Whether a curriculum by loss still waits for the losses of its examples; they are kept in checkpoints.
  virtual bool needs_losses() const { return false; }
  virtual void take_losses(std::vector<float>) {}
  virtual std::vector<float> losses() const { return {}; }
};

/// Lanes of a stream, which must outlive the loader: with n = floor((N - 1) / B), lane b is tokens [b n, b n + n];
/// batch t feeds [t T, (t + 1) T) of each lane and predicts the token after each. A batch that would pass the lane's
/// end starts again at 0 with empty memory; the rest is dropped. With `mask_documents` the batch carries
/// document_start, so that no query sees another document: the start is counted from the first memory row,
/// `memory_length` being the rows of memory that the batch will meet; it is 0 when everything is visible. The
/// end-of-document token belongs to the document that it ends. Fails when the stream is shorter than one batch, or has
/// no document starts to mask by. Segments may grow: a batch goes on where the one before ended, whatever its length,
/// and an epoch ends before the batch that would pass the lane's end.
class LaneLoader : public Loader {
 public:
  LaneLoader(TokenStream stream, int64_t lanes, int64_t segment, bool mask_documents, SegmentGrowth growth = {});
  Batch next(int64_t memory_length, bool& fresh) override;
  bool next_is_fresh() const override;
  LoaderState state() const override;
  void restore(const LoaderState& state) override;
  int64_t batches_per_epoch() const override;
  int64_t batches_in(double epochs) const override;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// Examples (the documents of a stream with `answers`) in rows of T inputs. An example of n tokens feeds its first
/// n - 1 and lies whole in one row; with `pack` a row takes as many as fit, in the order given, otherwise one. What is
/// left of a row is padding: token 0 that sees itself alone and has no target. Examples that have variants get an
/// eighth more room; a variant that needs still more is not used.
class ExampleRows {
 public:
  /// Rows of one group, in an order drawn from `seed`. Fails when an example has fewer than two tokens or more than
  /// T + 1.
  ExampleRows(TokenStream stream, int64_t segment, bool pack, uint64_t seed);
  /// Rows of several groups of examples, each in its own order.
  ExampleRows(TokenStream stream, int64_t segment, bool pack, const std::vector<std::vector<int64_t>>& groups);
  int64_t size() const { return static_cast<int64_t>(rows_.size()); }
  /// The first row of every group, and behind them size().
  const std::vector<int64_t>& first_rows() const { return first_rows_; }
  const std::vector<int64_t>& examples(int64_t row) const { return rows_[row]; }
  int64_t inputs(int64_t example) const;
  int64_t room(int64_t example) const;

  /// Position-major [T, lanes] arrays of one step; weights may be empty.
  struct Columns {
    std::vector<int32_t> tokens, targets, document_start;
    int64_t lanes = 0;
    std::vector<float> weights = {};
    std::vector<std::vector<HeadTarget>> lane_heads = {};  // of each lane
    std::vector<HeadTarget> heads = {};
    Batch batch(int64_t segment);
  };
  Columns columns(int64_t lanes) const;
  /// Writes row `row` (-1: padding alone) into one lane; returns its targets, heads' aside. With a step the examples'
  /// variants.
  int64_t fill(int64_t row, Columns& columns, int64_t lane, int64_t step = -1) const;
  /// What targets of each task count, by their place in task_names; columns carry weights from here on.
  void weigh(std::vector<float> task_weights) { task_weights_ = std::move(task_weights); }

 private:
  void add_group(const std::vector<int64_t>& examples, bool pack);
  TokenStream stream_;
  int64_t segment_;
  std::vector<std::vector<int64_t>> rows_;  // the examples of each
  std::vector<int64_t> first_rows_;
  std::vector<float> task_weights_;
};

struct ExampleOptions {
  int64_t lanes = 1, segment = 0;
  bool pack = true;
  uint64_t seed = 0;
  Curriculum curriculum = {};
  double task_temperature = 0;  // 0 = tasks are mixed as they stand; otherwise rows of one task each, see RowOrder
  std::vector<float> task_weights = {};  // see ExampleRows::weigh
};

/// Every row of examples once an epoch, in an order drawn from (seed, epoch), `lanes` a batch; the last batch is filled
/// up with padding. Every batch starts with empty memory, since no example goes on from another. While a curriculum is
/// at work, batches are drawn from its share of rows that were packed in the order of difficulty.
class ExampleLoader : public Loader {
 public:
  ExampleLoader(TokenStream stream, const ExampleOptions& options);
  Batch next(int64_t memory_length, bool& fresh) override;
  bool next_is_fresh() const override { return true; }
  LoaderState state() const override { return at_; }
  void restore(const LoaderState& state) override;
  int64_t batches_per_epoch() const override;
  bool needs_losses() const override { return options_.curriculum.difficulty == Difficulty::loss && !easy_; }
  void take_losses(std::vector<float> losses) override;
  std::vector<float> losses() const override { return losses_; }

 private:
  struct Ranked {
    ExampleRows rows;
    RowOrder order;
  };
  void rank(const std::vector<float>& difficulty);
  std::vector<int64_t> rows_of_batch();

  ExampleOptions options_;
  TokenStream stream_;
  std::vector<std::vector<int64_t>> groups_;  // examples, in an order drawn from the seed
  ExampleRows rows_;
  RowOrder order_;
  std::optional<Ranked> easy_;
  std::vector<float> losses_;
  ExampleRows::Columns columns_;
  LoaderState at_;
  std::vector<int64_t> epoch_order_;
  int64_t ordered_epoch_ = -1;
};

/// The difficulty of every example of a stream by length or rarity; see Curriculum.
std::vector<float> example_difficulty(const TokenStream& stream, Difficulty kind);

}  // namespace longhand
