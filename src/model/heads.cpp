// Heads: emissions of chosen hidden states, what they lose, what they say.
#include "longhand/heads.h"

#include <algorithm>
#include <cmath>

namespace longhand {

namespace {

constexpr int64_t rows_at_a_time = 512;  // hidden states gathered
constexpr float never = -1e6f;           // the score of a tag that may not stand there

/// One head's part of the targets.
struct Chosen {
  std::vector<int32_t> rows, labels, starts;  // starts: of the examples, and behind them the number of rows
  std::vector<float> weights, example_weights;
  int64_t size() const { return static_cast<int64_t>(rows.size()); }

  Chosen(size_t head, std::span<const HeadTarget> targets, int64_t lanes) {
    const HeadTarget* before = nullptr;
    for (const HeadTarget& target : targets) {
      if (target.head != static_cast<int32_t>(head)) continue;
      if (!before || before->lane != target.lane || before->example != target.example)
        starts.push_back(static_cast<int32_t>(rows.size())), example_weights.push_back(target.weight);
      rows.push_back(static_cast<int32_t>(target.row * lanes + target.lane));
      labels.push_back(target.label), weights.push_back(target.weight);
      before = &target;
    }
    starts.push_back(static_cast<int32_t>(rows.size()));
  }
};

}  // namespace

struct Heads::State {
  State(const ModelConfig& config, int64_t rows, Dtype type) : config(config), rows(rows), type(type) { lay_out(); }

  void lay_out() {
    int64_t most = 1, gathered_rows = std::min(rows, rows_at_a_time);
    for (const HeadConfig& head : config.heads) most = std::max(most, static_cast<int64_t>(head.labels.size()));
    index = arena.take(Dtype::i32, {rows}), labels = arena.take(Dtype::i32, {rows});
    starts = arena.take(Dtype::i32, {rows + 1});
    weights_of = arena.take(Dtype::fp32, {rows}), losses = arena.take(Dtype::fp32, {rows});
    gathered = arena.take(type, {gathered_rows, config.d_model});
    d_gathered = arena.take(type, {gathered_rows, config.d_model});
    emissions = arena.take(Dtype::fp32, {rows * most});
    bool tags = std::any_of(config.heads.begin(), config.heads.end(),
                            [](const HeadConfig& head) { return head.kind == HeadKind::tags; });
    if (!tags) return;
    transitions = arena.take(Dtype::fp32, {(most + 2) * most});
    d_transitions = arena.take(Dtype::fp32, {(most + 2) * most});
    narrow = arena.take(type, {(most + 2) * most});
  }

  /// Calls on(hidden states of some rows, first, count) for all rows in turn.
  template <class Visitor>
  void each_piece(const ConstTensor& hidden, int64_t count, Visitor&& on) {
    for (int64_t first = 0; first < count; first += gathered.size(0)) {
      int64_t piece = std::min(gathered.size(0), count - first);
      Tensor h = gathered.rows(0, piece);
      device->embedding_forward({.out = h, .tokens = index.rows(first, piece), .weight = hidden});
      on(h, first, piece);
    }
  }

  /// W h + b of the chosen rows, [rows, labels].
  Tensor emit(size_t head, const ConstTensor& hidden, const Chosen& chosen) {
    auto labels_of_head = static_cast<int64_t>(config.heads[head].labels.size());
    if (chosen.size() > rows) fail("{} places of a head where there are {} hidden states", chosen.size(), rows);
    Tensor out = Tensor(emissions.data(), Dtype::fp32, {chosen.size(), labels_of_head});
    device->upload(index.rows(0, chosen.size()), chosen.rows.data());
    const HeadTensors& w = weights->heads[head];
    each_piece(hidden, chosen.size(), [&](const Tensor& h, int64_t first, int64_t count) {
      device->matmul({.out = out.rows(first, count), .a = h, .b = w.weight, .bias = w.bias});
    });
    return out;
  }

  /// The head's transitions [labels + 2, labels] in fp32.
  Tensor wide_transitions(size_t head) {
    Tensor own = weights->heads[head].transitions;
    if (own.type() == Dtype::fp32) return own;
    Tensor wide(transitions.data(), Dtype::fp32, own.shape());
    device->cast({.out = wide, .x = own});
    return wide;
  }

  void crf_loss(size_t head, const Tensor& emissions, const Chosen& chosen, float scale, bool gradient) {
    auto sequences = static_cast<int64_t>(chosen.starts.size()) - 1;
    device->upload(starts.rows(0, sequences + 1), chosen.starts.data());
    device->upload(weights_of.rows(0, sequences), chosen.example_weights.data());
    Tensor to = gradient ? gradients->heads[head].transitions : Tensor();
    bool through_fp32 = to && to.type() != Dtype::fp32;
    Tensor d = through_fp32 ? Tensor(d_transitions.data(), Dtype::fp32, to.shape()) : to;
    if (through_fp32) device->zero(d);
    device->crf_loss({.emissions = emissions,
                      .d_transitions = d,
                      .loss = losses.rows(0, sequences),
                      .transitions = wide_transitions(head),
                      .starts = starts.rows(0, sequences + 1),
                      .targets = labels.rows(0, chosen.size()),
                      .weights = weights_of.rows(0, sequences),
                      .scale = scale,
                      .gradient = gradient});
    if (!through_fp32) return;
    Tensor rounded(narrow.data(), type, to.shape());
    device->cast({.out = rounded, .x = d});
    device->add({.out = to, .a = to, .b = rounded});
  }

  /// From d_emissions to the head and to the hidden states.
  void take_back(size_t head, const ConstTensor& hidden, const Tensor& d_hidden, const Tensor& d_emissions) {
    const HeadTensors &w = weights->heads[head], &g = gradients->heads[head];
    each_piece(hidden, d_emissions.size(0), [&](const Tensor& h, int64_t first, int64_t count) {
      Tensor d = d_emissions.rows(first, count), d_h = d_gathered.rows(0, count);
      device->matmul({.out = d_h, .a = d, .b = w.weight, .transpose_b = false});
      if (g.weight)
        device->matmul(
            {.out = g.weight, .a = d, .b = h, .transpose_a = true, .transpose_b = false, .accumulate = true});
      if (g.bias) device->bias_backward({.d_bias = g.bias, .d_out = d});
      device->embedding_backward({.d_weight = d_hidden, .d_out = d_h, .tokens = index.rows(first, count)});
    });
  }

  /// What Viterbi walks by: the learnt transitions, if any, and the rule of tags.
  Tensor decoding_transitions(size_t head) {
    const HeadConfig& h = config.heads[head];
    auto n = static_cast<int64_t>(h.labels.size());
    Tensor to(transitions.data(), Dtype::fp32, {n + 2, n});
    std::vector<float> values((n + 2) * n, 0.0f);
    if (h.crf) device->download(values.data(), wide_transitions(head));
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < n; ++i)
        if (!tag_follows(h.labels[i], h.labels[j])) values[i * n + j] = never;
      if (!tag_follows("", h.labels[j])) values[n * n + j] = never;
    }
    device->upload(to, values.data());
    return to;
  }

  Device* device = nullptr;
  ModelConfig config;
  int64_t rows;
  Dtype type;
  const ParameterSet* weights = nullptr;
  const ParameterSet* gradients = nullptr;
  Arena arena{"heads"};
  Tensor index, labels, starts, weights_of, losses;  // [rows] each, of the chosen
  Tensor gathered, d_gathered, emissions;
  Tensor transitions, d_transitions, narrow;
};

static ConstTensor as_matrix(const ConstTensor& t) { return t.reshape({t.size(0) * t.size(1), t.size(2)}); }
static Tensor as_matrix(const Tensor& t) { return t.reshape({t.size(0) * t.size(1), t.size(2)}); }

Heads::Heads(Device& device, const ModelConfig& config, const ParameterSet& weights, const ParameterSet* gradients,
             int64_t rows, Dtype type)
    : state_(std::make_shared<State>(config, rows, type)) {
  state_->device = &device, state_->weights = &weights, state_->gradients = gradients;
  state_->arena.commit(device);
  state_->lay_out();
}

int64_t Heads::bytes(const ModelConfig& config, int64_t rows, Dtype type) {
  return config.heads.empty() ? 0 : State(config, rows, type).arena.bytes();
}

double Heads::loss(size_t head, const ConstTensor& hidden, const Tensor& d_hidden, std::span<const HeadTarget> targets,
                   const LossOptions& options) {
  State& s = *state_;
  Chosen chosen(head, targets, hidden.size(1));
  if (chosen.size() == 0) return 0;
  DeviceRange range(*s.device, "head");
  Tensor emissions = s.emit(head, as_matrix(hidden), chosen);
  s.device->upload(s.labels.rows(0, chosen.size()), chosen.labels.data());
  bool gradient = !d_hidden.empty(), crf = s.config.heads[head].crf;
  if (crf) {
    s.crf_loss(head, emissions, chosen, options.scale, gradient);
  } else {
    s.device->upload(s.weights_of.rows(0, chosen.size()), chosen.weights.data());
    s.device->cross_entropy({.logits = emissions,
                             .loss = s.losses.rows(0, chosen.size()),
                             .targets = s.labels.rows(0, chosen.size()),
                             .weights = s.weights_of.rows(0, chosen.size()),
                             .smoothing = options.smoothing,
                             .gamma = options.gamma,
                             .scale = options.scale,
                             .gradient = gradient});
  }
  if (gradient) s.take_back(head, as_matrix(hidden), as_matrix(d_hidden), emissions);
  std::vector<float> losses(crf ? chosen.starts.size() - 1 : chosen.rows.size());
  s.device->download(losses.data(), s.losses.rows(0, static_cast<int64_t>(losses.size())));
  double sum = 0;
  for (float loss : losses) sum += loss;
  return sum;
}

Heads::Said Heads::say(size_t head, const ConstTensor& hidden, std::span<const HeadTarget> places) {
  State& s = *state_;
  Chosen chosen(head, places, hidden.size(1));
  Said said;
  if (chosen.size() == 0) return said;
  Tensor emissions = s.emit(head, as_matrix(hidden), chosen);
  said.labels.resize(chosen.size());
  if (s.config.heads[head].kind == HeadKind::tags) {
    auto sequences = static_cast<int64_t>(chosen.starts.size()) - 1;
    s.device->upload(s.starts.rows(0, sequences + 1), chosen.starts.data());
    Tensor labels = s.labels.rows(0, chosen.size());
    s.device->crf_decode({.labels = labels,
                          .score = s.losses.rows(0, sequences),
                          .emissions = emissions,
                          .transitions = s.decoding_transitions(head),
                          .starts = s.starts.rows(0, sequences + 1)});
    s.device->download(said.labels.data(), labels);
    return said;
  }
  std::vector<float>& p = said.probabilities;
  p.resize(emissions.elements());
  s.device->download(p.data(), emissions);
  int64_t n = emissions.size(1);
  for (int64_t r = 0; r < chosen.size(); ++r) {
    auto row = p.begin() + r * n, best = std::max_element(row, row + n);
    said.labels[r] = static_cast<int32_t>(best - row);
    float most = *best;
    double sum = 0;
    for (auto e = row; e != row + n; ++e) sum += * e = std::exp(*e - most);
    for (auto e = row; e != row + n; ++e) *e = static_cast<float>(*e / sum);
  }
  return said;
}

bool tag_follows(std::string_view from, std::string_view to) {
  return !to.starts_with("I-") || (from.size() > 2 && from[0] != 'O' && from.substr(2) == to.substr(2));
}

std::vector<TagSpan> tag_spans(const HeadConfig& head, std::span<const int32_t> tags) {
  std::vector<TagSpan> spans;
  std::string_view before;
  for (size_t i = 0; i < tags.size(); ++i) {
    std::string_view tag = head.labels[tags[i]];
    int64_t at = static_cast<int64_t>(i);
    if (tag.starts_with("I-") && tag_follows(before, tag))
      ++spans.back().end;
    else if (tag != "O")
      spans.push_back({at, at + 1, tag.substr(2)});
    before = tag;
  }
  return spans;
}

void HeadScore::add(const HeadConfig& head, std::span<const int32_t> wanted_labels, std::span<const int32_t> said) {
  counts.resize(head.labels.size());
  for (size_t i = 0; i < said.size(); ++i) {
    ++labels, right += wanted_labels[i] == said[i];
    ++counts[wanted_labels[i]];
  }
  if (head.kind != HeadKind::tags) return;
  std::vector<TagSpan> spans = tag_spans(head, wanted_labels), others = tag_spans(head, said);
  wanted += static_cast<int64_t>(spans.size()), found += static_cast<int64_t>(others.size());
  for (const TagSpan& span : others) right_spans += std::find(spans.begin(), spans.end(), span) != spans.end();
}

double HeadScore::majority() const {
  int64_t most = counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
  return share(static_cast<double>(most), static_cast<double>(labels));
}

}  // namespace longhand
