#include <doctest/doctest.h>

#include <numeric>

#include "longhand/data.h"

using namespace longhand;

namespace {

// Tokens 0, 1, 2, ... make every entry of a batch its own position.
struct Counting {
  std::vector<uint16_t> tokens;
  std::vector<int64_t> documents;

  explicit Counting(int64_t size, std::vector<int64_t> starts = {}) : tokens(size), documents(std::move(starts)) {
    std::iota(tokens.begin(), tokens.end(), uint16_t{0});
  }
  TokenStream stream() const {
    TokenStream s{.name = "counting", .tokens = {}, .documents = {}, .bytes = 0};
    s.tokens = ConstTensor(tokens.data(), Dtype::u16, {static_cast<int64_t>(tokens.size())});
    if (!documents.empty())
      s.documents = ConstTensor(documents.data(), Dtype::i64, {static_cast<int64_t>(documents.size())});
    return s;
  }
};

std::vector<int32_t> copy(const ConstTensor& tensor) {
  const int32_t* first = tensor.as<const int32_t>();
  return {first, first + tensor.elements()};
}

}  // namespace

TEST_CASE("lanes are the stream cut into equal parts, each read segment by segment") {
  for (int64_t size : {2, 7, 8, 100, 101, 257})
    for (int64_t lanes : {1, 2, 3, 5})
      for (int64_t segment : {1, 2, 7, 16}) {
        CAPTURE(size);
        CAPTURE(lanes);
        CAPTURE(segment);
        Counting counting(size);
        int64_t n = (size - 1) / lanes;
        if (n < segment) {
          CHECK_THROWS_WITH_AS(LaneLoader(counting.stream(), lanes, segment, false),
                               doctest::Contains("stream counting has"), Error);
          continue;
        }
        LaneLoader loader(counting.stream(), lanes, segment, false);
        REQUIRE(loader.batches_per_epoch() == n / segment);
        for (int64_t step = 0; step < 3 * (n / segment) + 1; ++step) {
          int64_t t = step % (n / segment);
          CHECK(loader.next_is_fresh() == (t == 0));
          bool fresh = false;
          Batch batch = loader.next(0, fresh);
          CHECK(fresh == (t == 0));
          REQUIRE(batch.tokens.shape() == Shape{segment, lanes});
          REQUIRE(batch.targets.shape() == Shape{segment, lanes});
          CHECK(batch.document_start.empty());
          for (int64_t i = 0; i < segment; ++i)
            for (int64_t b = 0; b < lanes; ++b) {
              REQUIRE(batch.tokens.as<const int32_t>()[i * lanes + b] == b * n + t * segment + i);
              REQUIRE(batch.targets.as<const int32_t>()[i * lanes + b] == b * n + t * segment + i + 1);
            }
          CHECK(loader.state().step == step + 1);
          CHECK(loader.state().epoch == (step + 1) / (n / segment));
        }
      }
}

TEST_CASE("growing segments follow one another in every lane, and an epoch ends where the next would not fit") {
  Counting counting(1000);
  for (Pacing pacing : {Pacing::linear, Pacing::root, Pacing::step}) {
    SegmentGrowth growth{.start = 3, .steps = 9, .pacing = pacing};
    LaneLoader loader(counting.stream(), 3, 40, false, growth);
    growth.full = 40;
    int64_t position = 0, epoch = 0, last = 0;
    std::vector<int64_t> ends;  // batches up to the end of each epoch
    for (int64_t step = 0; step < 40; ++step) {
      int64_t length = growth.length(step);
      CHECK(length >= last);
      CHECK(length == (step == 0 ? 3 : step >= 9 ? 40 : length / 8 * 8 > 3 ? length / 8 * 8 : 3));
      last = length;
      if (position + length > 333) position = 0, ++epoch, ends.push_back(step);
      CHECK(loader.state().epoch == epoch);
      bool fresh = false;
      Batch batch = loader.next(0, fresh);
      CHECK(fresh == (position == 0));
      REQUIRE(batch.tokens.shape() == Shape{length, 3});
      for (int64_t i = 0; i < length; ++i)
        for (int64_t b = 0; b < 3; ++b) REQUIRE(batch.tokens.as<const int32_t>()[i * 3 + b] == b * 333 + position + i);
      position += length;
    }
    CHECK(loader.batches_per_epoch() == ends[0]);
    CHECK(loader.batches_in(2) == ends[1]);
    int64_t half = loader.batches_in(0.5), fed = 0, end = 0;
    for (int64_t step = 0; step < ends[0]; ++step) end += growth.length(step);
    for (int64_t step = 0; step < half; ++step) fed += growth.length(step);
    CHECK(2 * fed >= end);
    CHECK(2 * (fed - growth.length(half - 1)) < end);
    CHECK(loader.batches_in(1.5) == ends[0] + (ends[1] - ends[0] + 1) / 2);
  }
}

TEST_CASE("with document masks a query sees the keys of its own document and no others") {
  Counting counting(200, {0, 1, 2, 9, 40, 41, 77, 150, 199});
  auto document = [&](int64_t token) {
    int64_t d = 0;
    while (d + 1 < static_cast<int64_t>(counting.documents.size()) && counting.documents[d + 1] <= token) ++d;
    return d;
  };
  for (int64_t lanes : {1, 3, 4})
    for (int64_t segment : {1, 5, 16})
      for (int64_t most : {0, 3, 16, 40}) {
        LaneLoader loader(counting.stream(), lanes, segment, true);
        int64_t n = 199 / lanes, memory = 0;
        for (int64_t step = 0; step < 2 * loader.batches_per_epoch(); ++step) {
          int64_t t = step % loader.batches_per_epoch();
          bool fresh = false;
          Batch batch = loader.next(memory, fresh);
          if (fresh) memory = 0;
          for (int64_t i = 0; i < segment; ++i)
            for (int64_t b = 0; b < lanes; ++b) {
              int64_t start = batch.document_start.as<const int32_t>()[i * lanes + b];
              int64_t query = b * n + t * segment + i;
              for (int64_t key = 0; key <= memory + i; ++key) {  // keys up to the query, in memory and segment
                int64_t token = query - (memory + i) + key;
                REQUIRE((key >= start) == (document(token) == document(query)));
              }
            }
          memory = std::min(most, memory + segment);
        }
      }
}

TEST_CASE("a restored loader goes on with the same batches") {
  Counting counting(333, {0, 50, 51, 200});
  LaneLoader straight(counting.stream(), 3, 10, true);
  for (int64_t stop = 0; stop < 25; ++stop) {
    LaneLoader resumed(counting.stream(), 3, 10, true);
    resumed.restore(straight.state());
    LaneLoader reference(counting.stream(), 3, 10, true);
    reference.restore(straight.state());
    for (int64_t step = 0; step < 15; ++step) {
      bool fresh = false, fresh_reference = false;
      Batch a = resumed.next(20, fresh), b = reference.next(20, fresh_reference);
      REQUIRE(fresh == fresh_reference);
      REQUIRE(copy(a.tokens) == copy(b.tokens));
      REQUIRE(copy(a.targets) == copy(b.targets));
      REQUIRE(copy(a.document_start) == copy(b.document_start));
    }
    bool fresh = false;
    Batch next = straight.next(20, fresh);
    LaneLoader again(counting.stream(), 3, 10, true);
    for (int64_t step = 0; step < stop; ++step) again.next(20, fresh);
    REQUIRE(copy(again.next(20, fresh).tokens) == copy(next.tokens));
  }
}

TEST_CASE("a state of other batches is refused") {
  Counting counting(333);
  LaneLoader loader(counting.stream(), 3, 10, false), longer(counting.stream(), 3, 20, false);
  bool fresh = false;
  for (int step = 0; step < 9; ++step) longer.next(0, fresh);
  CHECK_THROWS_WITH_AS(loader.restore(longer.state()), doctest::Contains("is of other batches"), Error);
}

TEST_CASE("document masks need document starts") {
  Counting counting(100);
  CHECK_THROWS_WITH_AS(LaneLoader(counting.stream(), 1, 10, true), doctest::Contains("where its documents start"),
                       Error);
}
