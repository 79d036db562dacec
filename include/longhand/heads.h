// Heads: classification of texts, words and dialogues by a linear layer on chosen final hidden states.
//
//   emission_i = W h_i + b;   labels, states and plain tags: cross-entropy of softmax(emission_i);
//   tags with transitions: a linear-chain conditional random field (Lafferty et al. 2001) over the words of an example
//
// Tags are decoded under the rule that I-x follows B-x or I-x: Viterbi over the transitions, or over the rule alone.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "longhand/model.h"

namespace longhand {

class Heads {
 public:
  /// For passes of at most `rows` hidden states. `gradients` may be null where nothing is learnt. Both outlive the
  /// heads.
  Heads(Device& device, const ModelConfig& config, const ParameterSet& weights, const ParameterSet* gradients,
        int64_t rows, Dtype type);
  /// What they would allocate.
  static int64_t bytes(const ModelConfig& config, int64_t rows, Dtype type);

  /// The sum of a head's (weighted) losses over those of the targets that are its own. With `d_hidden`, which has the
  /// shape of `hidden` [T, B, D], the gradients of loss.scale times it are added there and to the head's.
  double loss(size_t head, const ConstTensor& hidden, const Tensor& d_hidden, std::span<const HeadTarget> targets,
              const LossOptions& loss);

  /// What a head says at those of the places that are its own, in their order; `label` of a place is not looked at.
  struct Said {
    std::vector<int32_t> labels;
    std::vector<float> probabilities;  // [places, labels], of labels and states
  };
  Said say(size_t head, const ConstTensor& hidden, std::span<const HeadTarget> places);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

/// Whether tag `to` may follow tag `from`, or begin where `from` is empty.
bool tag_follows(std::string_view from, std::string_view to);

/// Words [first, end) that make up one x: a B-x and the I-x behind it.
struct TagSpan {
  int64_t first, end;
  std::string_view type;
  bool operator==(const TagSpan&) const = default;
};
std::vector<TagSpan> tag_spans(const HeadConfig& head, std::span<const int32_t> tags);

/// How often a head was right: of every label, and, as conlleval counts, of whole spans of tags.
struct HeadScore {
  std::string name;
  HeadKind kind = HeadKind::label;
  double nats = 0;                                 // sum over the labels
  int64_t labels = 0, right = 0;                   // places, and those where it said what was wanted
  int64_t wanted = 0, found = 0, right_spans = 0;  // spans
  std::vector<int64_t> counts;                     // of each label among those wanted

  void add(const HeadConfig& head, std::span<const int32_t> wanted_labels, std::span<const int32_t> said);
  double mean_nats() const { return share(nats, static_cast<double>(labels)); }
  double accuracy() const { return share(static_cast<double>(right), static_cast<double>(labels)); }
  double majority() const;  // accuracy of the commonest label
  double precision() const { return share(static_cast<double>(right_spans), static_cast<double>(found)); }
  double recall() const { return share(static_cast<double>(right_spans), static_cast<double>(wanted)); }
  double f1() const { return share(2.0 * static_cast<double>(right_spans), static_cast<double>(wanted + found)); }

 private:
  static double share(double part, double whole) { return whole > 0 ? part / whole : 0; }
};

}  // namespace longhand
