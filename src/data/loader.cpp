#include <algorithm>
#include <cmath>
#include <limits>

#include "longhand/data.h"

namespace longhand {

struct LaneLoader::State {
  TokenStream stream;
  int64_t lanes = 0, lane_length = 0;
  SegmentGrowth growth;
  bool mask_documents = false;
  LoaderState at;
  std::vector<int32_t> tokens, targets, document_start;

  int64_t position = 0;  // of the next batch in every lane
  int64_t segment = 0;   // its length

  // Where the batch after `step` others begins, and the epoch that it belongs to.
  void go_on() {
    position += segment, ++at.step;
    segment = growth.length(at.step);
    if (position + segment > lane_length) position = 0, ++at.epoch;
  }

  void start() { at = {}, position = 0, segment = growth.length(0); }

  // Each token sees its document's keys that are in reach: the start of its document, counted from the first memory
  // row, which is the token `memory` before the batch. Earlier starts are all "everything visible".
  void fill_document_starts(int64_t lane, int64_t first, int64_t memory) {
    const int64_t* begin = stream.documents.as<const int64_t>();
    const int64_t* end = begin + stream.documents.elements();
    const int64_t* next = std::upper_bound(begin, end, first);  // the first document that starts after the token
    for (int64_t i = 0; i < segment; ++i) {
      while (next != end && *next <= first + i) ++next;
      int64_t start = next[-1] - (first - memory);
      document_start[i * lanes + lane] = static_cast<int32_t>(std::max<int64_t>(start, 0));
    }
  }

  void fill(int64_t memory) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      int64_t first = lane * lane_length + position;
      for (int64_t i = 0; i < segment; ++i) {
        tokens[i * lanes + lane] = stream.at(first + i);
        targets[i * lanes + lane] = stream.at(first + i + 1);
      }
      if (mask_documents) fill_document_starts(lane, first, memory);
    }
  }
};

int64_t Loader::batches_in(double epochs) const {
  return std::max<int64_t>(1, std::ceil(epochs * static_cast<double>(batches_per_epoch()) - 1e-9));
}

LaneLoader::LaneLoader(TokenStream stream, int64_t lanes, int64_t segment, bool mask_documents, SegmentGrowth growth)
    : state_(std::make_shared<State>()) {
  if (lanes < 1 || segment < 1) fail_usage("batches of {} lanes of {} tokens: both must be at least 1", lanes, segment);
  int64_t size = stream.size();
  int64_t lane_length = std::max<int64_t>(size - 1, 0) / lanes;
  if (lane_length < segment)
    fail(
        "stream {} has {} tokens, one batch of {} lanes of {} needs {}: use more text, fewer lanes or a shorter "
        "segment",
        stream.name, size, lanes, segment, lanes * segment + 1);
  if (mask_documents && stream.documents.elements() == 0)
    fail("stream {} does not say where its documents start: train without document boundaries, or prepare a token file",
         stream.name);
  State& s = *state_;
  s.stream = std::move(stream);
  s.lanes = lanes, s.lane_length = lane_length, s.mask_documents = mask_documents;
  s.growth = growth, s.growth.full = segment;
  s.start();
  s.tokens.resize(lanes * segment);
  s.targets.resize(lanes * segment);
  if (mask_documents) s.document_start.resize(lanes * segment);
}

Batch LaneLoader::next(int64_t memory_length, bool& fresh) {
  State& s = *state_;
  fresh = next_is_fresh();
  s.fill(fresh ? 0 : memory_length);
  Shape shape{s.segment, s.lanes};
  Batch batch;
  batch.tokens = ConstTensor(s.tokens.data(), Dtype::i32, shape);
  batch.targets = ConstTensor(s.targets.data(), Dtype::i32, shape);
  if (s.mask_documents) batch.document_start = ConstTensor(s.document_start.data(), Dtype::i32, shape);
  s.go_on();
  return batch;
}

bool LaneLoader::next_is_fresh() const { return state_->position == 0; }

LoaderState LaneLoader::state() const { return state_->at; }

void LaneLoader::restore(const LoaderState& state) {
  State& s = *state_;
  s.start();
  while (s.at.step < state.step) s.go_on();
  if (state.step < 0 || state.epoch != s.at.epoch)
    fail("the loader's state (batch {}, epoch {}) is of other batches: this stream of {} tokens gives {} an epoch",
         state.step, state.epoch, s.stream.size(), batches_per_epoch());
}

int64_t LaneLoader::batches_per_epoch() const { return batches_in(1); }

int64_t LaneLoader::batches_in(double epochs) const {
  State walk;
  walk.lane_length = state_->lane_length, walk.growth = state_->growth;
  walk.start();
  double whole = std::floor(epochs), part = epochs - whole;
  auto feed = [](State& from, double most) {  // tokens of every lane, up to the epoch's end
    int64_t epoch = from.at.epoch, fed = 0;
    while (from.at.epoch == epoch && static_cast<double>(fed) < most) fed += from.segment, from.go_on();
    return static_cast<double>(fed);
  };
  constexpr double all = std::numeric_limits<double>::infinity();
  while (walk.at.epoch < static_cast<int64_t>(whole)) feed(walk, all);
  State ahead = walk;
  feed(walk, part * feed(ahead, all) - 1e-6);
  return std::max<int64_t>(1, walk.at.step);
}

}  // namespace longhand
