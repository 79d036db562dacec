// In which order training meets its examples: easy ones first (Bengio et al. 2009, "Curriculum Learning"), and how
// often each task comes.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace longhand {

/// What makes an example hard: its tokens, the mean -log frequency of its tokens in the data, or the mean loss of its
/// answer under the weights that the run starts from.
enum class Difficulty : uint8_t { none, length, rarity, loss };
enum class Pacing : uint8_t { linear, root, step };

/// "none", "length", "rarity", "loss"; "linear", "root", "step". Parsing fails with the list.
Difficulty parse_difficulty(std::string_view name);
const char* difficulty_name(Difficulty kind);
Pacing parse_pacing(std::string_view name);
const char* pacing_name(Pacing pacing);

struct Curriculum {
  Difficulty difficulty = Difficulty::none;
  Pacing pacing = Pacing::linear;
  double start = 0.3;  // share of the examples, easiest first, that the first batch is drawn from
  int64_t steps = 0;   // batches until all take part

  bool at_work(int64_t step) const { return difficulty != Difficulty::none && step < steps; }
  /// The share of batch t, with p = t / steps:
  ///   linear: start + (1 - start) p;   root: sqrt(start^2 + (1 - start^2) p) (Platanios et al. 2019);
  ///   step: as linear, p in quarters
  double share(int64_t step) const;
};

/// Segments that grow (Press et al. 2021, "Shortformer", and Li et al. 2022, "The Stability-Efficiency Dilemma", begin
/// on short ones): batch t feeds length(t) tokens of every lane. Short ones cost less attention a token and make more
/// updates of the same text.
struct SegmentGrowth {
  int64_t start = 0, full = 0;  // tokens; start 0: full at once
  int64_t steps = 0;            // batches until it is full
  Pacing pacing = Pacing::linear;

  bool at_work(int64_t step) const { return start > 0 && step < steps; }
  /// full times the share that Curriculum gives with start / full, rounded down to a multiple of 8 above the start.
  int64_t length(int64_t step) const;
};

/// Rows in groups, each group's rows in a fixed order; which of them an epoch or a batch takes, by (seed, epoch) or
/// (seed, step) alone. Group g has the rows [first[g], first[g + 1]); it comes with probability p_g, in proportion to
/// rows^(1 / temperature): 1 leaves the shares as they are, a larger one evens them out.
class RowOrder {
 public:
  RowOrder(std::vector<int64_t> first, double temperature, uint64_t seed);
  int64_t size() const { return first_.back(); }
  /// As many draws as there are rows. One group: each row once. Several: of each its share, going round in it.
  std::vector<int64_t> epoch(int64_t epoch) const;
  /// Rows of a batch, from the first `share` of every group.
  std::vector<int64_t> draw(int64_t step, int64_t count, double share) const;

 private:
  int64_t groups() const { return static_cast<int64_t>(first_.size()) - 1; }
  int64_t rows(int64_t group) const { return first_[group + 1] - first_[group]; }

  std::vector<int64_t> first_;
  std::vector<double> probability_;
  std::vector<int64_t> draws_;  // of each group in an epoch
  uint64_t seed_;
};

/// 0, 1, ..., count - 1 in an order drawn from (seed, step, layer).
std::vector<int64_t> shuffled(int64_t count, uint64_t seed, uint64_t step, uint32_t layer = 0);

}  // namespace longhand
