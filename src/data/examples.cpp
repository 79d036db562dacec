// Examples in rows, and the batches made of them.
#include <algorithm>
#include <numeric>

#include "longhand/data.h"
#include "longhand/random.h"

namespace longhand {
namespace {

constexpr size_t open_rows = 64;  // rows that still take examples while packing

/// 0, 1, ..., count - 1 in an order drawn from (seed, step).
std::vector<int64_t> shuffled(int64_t count, uint64_t seed, uint64_t step) {
  RandomStream random{.seed = seed, .step = step, .use = RandomUse::shuffle};
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = count - 1; i > 0; --i)
    std::swap(order[i], order[static_cast<uint64_t>(random.bits(i)) * static_cast<uint64_t>(i + 1) >> 32]);
  return order;
}

/// Example e of a stream: tokens [first, end).
std::pair<int64_t, int64_t> example(const TokenStream& stream, int64_t e) {
  const int64_t* start = stream.documents.as<const int64_t>();
  return {start[e], e + 1 < stream.documents.elements() ? start[e + 1] : stream.size()};
}

}  // namespace

ExampleRows::ExampleRows(TokenStream stream, int64_t segment, bool pack, uint64_t seed)
    : stream_(std::move(stream)), segment_(segment) {
  int64_t count = stream_.documents.elements();
  if (stream_.answers.elements() != stream_.size() || count == 0)
    fail("stream {} does not say which tokens of which examples are answers", stream_.name);
  std::vector<std::pair<size_t, int64_t>> open;  // row, inputs still free
  for (int64_t e : shuffled(count, seed, 0)) {
    auto [first, end] = example(stream_, e);
    int64_t inputs = end - first - 1;
    if (inputs < 1 || inputs > segment)
      fail("example {} of {} has {} tokens: rows of {} take 2 to {}", e, stream_.name, end - first, segment,
           segment + 1);
    auto place = std::find_if(open.begin(), open.end(), [&](const auto& row) { return row.second >= inputs; });
    if (pack && place != open.end()) {
      rows_[place->first].push_back(e), place->second -= inputs;
      continue;
    }
    if (open.size() == open_rows) open.erase(open.begin());
    open.emplace_back(rows_.size(), segment - inputs);
    rows_.push_back({e});
  }
}

ExampleRows::Columns ExampleRows::columns(int64_t lanes) const {
  std::vector<int32_t> zeros(segment_ * lanes);
  return {zeros, zeros, zeros, lanes};
}

Batch ExampleRows::Columns::batch(int64_t segment) const {
  Batch batch;
  batch.tokens = ConstTensor(tokens.data(), Dtype::i32, {segment, lanes});
  batch.targets = ConstTensor(targets.data(), Dtype::i32, {segment, lanes});
  batch.document_start = ConstTensor(document_start.data(), Dtype::i32, {segment, lanes});
  return batch;
}

int64_t ExampleRows::fill(int64_t row, Columns& c, int64_t lane) const {
  int64_t at = 0, answers = 0;
  auto put = [&](int32_t token, int32_t target, int64_t start) {
    int64_t place = at++ * c.lanes + lane;
    c.tokens[place] = token, c.targets[place] = target, c.document_start[place] = static_cast<int32_t>(start);
  };
  if (row >= 0)
    for (int64_t e : rows_[row]) {
      auto [first, end] = example(stream_, e);
      for (int64_t start = at, i = first; i + 1 < end; ++i) {
        bool learnt = stream_.answers.as<const uint8_t>()[i + 1] != 0;
        put(stream_.at(i), learnt ? stream_.at(i + 1) : -1, start);
        answers += learnt;
      }
    }
  while (at < segment_) put(0, -1, at);
  return answers;
}

ExampleLoader::ExampleLoader(TokenStream stream, int64_t lanes, int64_t segment, bool pack, uint64_t seed)
    : rows_(std::move(stream), segment, pack, seed), columns_(rows_.columns(lanes)), segment_(segment), seed_(seed) {}

Batch ExampleLoader::next(int64_t, bool& fresh) {
  fresh = true;
  if (ordered_epoch_ != at_.epoch) {
    order_ = shuffled(rows_.size(), seed_, static_cast<uint64_t>(at_.epoch) + 1);
    ordered_epoch_ = at_.epoch;
  }
  int64_t first = at_.step % batches_per_epoch() * columns_.lanes;
  for (int64_t lane = 0; lane < columns_.lanes; ++lane)
    rows_.fill(first + lane < rows_.size() ? order_[first + lane] : -1, columns_, lane);
  ++at_.step, at_.epoch = at_.step / batches_per_epoch();
  return columns_.batch(segment_);
}

void ExampleLoader::restore(const LoaderState& state) {
  if (state.step < 0 || state.epoch != state.step / batches_per_epoch())
    fail("the loader's state (batch {}, epoch {}) is of other batches: these examples give {} an epoch", state.step,
         state.epoch, batches_per_epoch());
  at_ = state;
}

int64_t ExampleLoader::batches_per_epoch() const { return (rows_.size() + columns_.lanes - 1) / columns_.lanes; }

}  // namespace longhand
