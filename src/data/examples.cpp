// Examples in rows, and the batches made of them.
#include <algorithm>
#include <numeric>

#include "longhand/data.h"
#include "longhand/random.h"

namespace longhand {
namespace {

constexpr size_t open_rows = 64;  // rows that still take examples while packing

/// Example e of a stream: tokens [first, end).
std::pair<int64_t, int64_t> example(const TokenStream& stream, int64_t e) {
  const int64_t* start = stream.documents.as<const int64_t>();
  return {start[e], e + 1 < stream.documents.elements() ? start[e + 1] : stream.size()};
}

}  // namespace

ExampleRows::ExampleRows(TokenStream stream, int64_t segment, bool pack, uint64_t seed)
    : ExampleRows(stream, segment, pack, {shuffled(stream.documents.elements(), seed, 0)}) {}

ExampleRows::ExampleRows(TokenStream stream, int64_t segment, bool pack,
                         const std::vector<std::vector<int64_t>>& groups)
    : stream_(std::move(stream)), segment_(segment) {
  if (stream_.answers.elements() != stream_.size() || stream_.documents.elements() == 0)
    fail("stream {} does not say which tokens of which examples are answers", stream_.name);
  for (const std::vector<int64_t>& examples : groups) add_group(examples, pack);
  first_rows_.push_back(size());
}

int64_t ExampleRows::inputs(int64_t e) const {
  auto [first, end] = example(stream_, e);
  return end - first - 1;
}

int64_t ExampleRows::room(int64_t e) const {
  int64_t needed = inputs(e);
  return stream_.variants && needed < segment_ ? std::min(segment_, needed + (needed + 7) / 8) : needed;
}

void ExampleRows::add_group(const std::vector<int64_t>& examples, bool pack) {
  first_rows_.push_back(size());
  std::vector<std::pair<size_t, int64_t>> open;  // row, inputs still free
  for (int64_t e : examples) {
    int64_t needed = room(e);
    if (needed < 1 || needed > segment_)
      fail("example {} of {} has {} tokens: rows of {} take 2 to {}", e, stream_.name, inputs(e) + 1, segment_,
           segment_ + 1);
    auto place = std::find_if(open.begin(), open.end(), [&](const auto& row) { return row.second >= needed; });
    if (pack && place != open.end()) {
      rows_[place->first].push_back(e), place->second -= needed;
      continue;
    }
    if (open.size() == open_rows) open.erase(open.begin());
    open.emplace_back(rows_.size(), segment_ - needed);
    rows_.push_back({e});
  }
}

ExampleRows::Columns ExampleRows::columns(int64_t lanes) const {
  std::vector<int32_t> zeros(segment_ * lanes);
  std::vector<float> weights(task_weights_.empty() ? 0 : zeros.size());
  return {zeros, zeros, zeros, lanes, weights, std::vector<std::vector<HeadTarget>>(lanes)};
}

Batch ExampleRows::Columns::batch(int64_t segment) {
  Batch batch;
  batch.tokens = ConstTensor(tokens.data(), Dtype::i32, {segment, lanes});
  batch.targets = ConstTensor(targets.data(), Dtype::i32, {segment, lanes});
  batch.document_start = ConstTensor(document_start.data(), Dtype::i32, {segment, lanes});
  if (!weights.empty()) batch.weights = ConstTensor(weights.data(), Dtype::fp32, {segment, lanes});
  heads.clear();
  for (const std::vector<HeadTarget>& lane : lane_heads) heads.insert(heads.end(), lane.begin(), lane.end());
  batch.heads = heads;
  return batch;
}

int64_t ExampleRows::fill(int64_t row, Columns& c, int64_t lane, int64_t step) const {
  int64_t at = 0, answers = 0;
  float weight = 1;
  auto put = [&](int32_t token, int32_t target, int64_t start) {
    int64_t place = at++ * c.lanes + lane;
    if (!c.weights.empty()) c.weights[place] = weight;
    c.tokens[place] = token, c.targets[place] = target, c.document_start[place] = static_cast<int32_t>(start);
  };
  auto put_all = [&](int64_t count, auto&& token, auto&& learnt) {
    for (int64_t start = at, i = 0; i + 1 < count; ++i) {
      put(token(i), learnt(i + 1) ? token(i + 1) : -1, start);
      answers += learnt(i + 1) ? 1 : 0;
    }
  };
  std::vector<HeadTarget>& heads = c.lane_heads[lane];
  heads.clear();
  auto put_labels = [&](const std::vector<ExampleLabel>& labels, int64_t start, int64_t e) {
    for (const ExampleLabel& l : labels)
      heads.push_back({l.head, static_cast<int32_t>(lane), static_cast<int32_t>(start + l.token), l.label,
                       static_cast<int32_t>(e), weight});
  };
  for (int64_t e : row >= 0 ? rows_[row] : std::vector<int64_t>()) {
    int64_t start = at;
    if (!task_weights_.empty()) weight = task_weights_[stream_.tasks.as<const int32_t>()[e]];
    ExampleVariants::Variant v;
    if (stream_.variants && step >= 0) v = stream_.variants->make(e, step);
    int64_t size = static_cast<int64_t>(v.tokens.size());
    auto [first, end] = example(stream_, e);
    bool varied = size > 1 && size - 1 <= room(e);
    if (stream_.labels) put_labels(varied ? v.labels : (*stream_.labels)[e], start, e);
    if (varied)
      put_all(
          size, [&](int64_t i) { return v.tokens[i]; }, [&](int64_t i) { return v.answers[i] != 0; });
    else
      put_all(
          end - first, [&, from = first](int64_t i) { return stream_.at(from + i); },
          [&, from = first](int64_t i) { return stream_.answers.as<const uint8_t>()[from + i] != 0; });
  }
  while (at < segment_) put(0, -1, at);
  return answers;
}

}  // namespace longhand
