#include <doctest/doctest.h>

#include "longhand/session.h"
#include "tests/core/train_fixture.h"

using namespace longhand;
using namespace longhand::testing;

namespace {

struct Bench {
  std::unique_ptr<Device> device = make_device("cpu", {.threads = 1});
  ModelConfig config = small_model();
  ParameterSet weights{"weights", config, Dtype::fp32};
  Bench() {
    weights.commit(*device);
    initialize(*device, weights, 3);
  }
  Decoder decoder(DecoderShape shape = {.sequences = 2, .window = 21, .chunk = 8}) {
    return Decoder(*device, config, weights, shape);
  }
};

std::vector<int32_t> write(Bench& bench, Decoder& decoder, WrittenText& text, int count) {
  Writer writer(*bench.device, decoder);
  WrittenText* one = &text;
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(writer.next({&one, 1})[0][0].token);
  return tokens;
}

}  // namespace

TEST_CASE("a session that went through a file goes on to the bit, in a decoder of another size too") {
  Scratch scratch;
  for (int length : {1, 7, 21, 60}) {  // a first token, less than the window, the window, more
    Bench bench;
    Decoder decoder = bench.decoder();
    WrittenText text{1, {4}, {}};
    write(bench, decoder, text, length);
    write_session(scratch / "session", take_session(*bench.device, decoder, text, "abc"));
    std::vector<int32_t> wanted = write(bench, decoder, text, 40);
    Decoder other = bench.decoder({.sequences = 5, .window = 21, .chunk = 3});
    WrittenText restored{3, {}, {}};
    resume_session(*bench.device, other, restored, read_session(scratch / "session"), "abc", "here");
    CHECK(write(bench, other, restored, 40) == wanted);
  }
}

TEST_CASE("rings of other types and pages go on to the bit too") {
  Scratch scratch;
  for (auto [ring, choice] : {std::pair{Dtype::bf16, KeyChoice{}}, std::pair{Dtype::i8, KeyChoice{}},
                              std::pair{Dtype::i8, KeyChoice{190, TopkMode::block}},
                              std::pair{Dtype::fp32, KeyChoice{128, TopkMode::block}}}) {
    DecoderShape shape{.sequences = 2, .window = 300, .chunk = 8, .ring = ring, .choice = choice}, other_shape = shape;
    other_shape.sequences = 5, other_shape.chunk = 3;
    for (int length : {90, 420}) {
      Bench bench;
      Decoder decoder = bench.decoder(shape), other = bench.decoder(other_shape);
      WrittenText text{1, {4}, {}}, restored{3, {}, {}};
      write(bench, decoder, text, length);
      write_session(scratch / "session", take_session(*bench.device, decoder, text, "abc"));
      std::vector<int32_t> wanted = write(bench, decoder, text, 150);
      resume_session(*bench.device, other, restored, read_session(scratch / "session"), "abc", "here");
      CHECK(write(bench, other, restored, 150) == wanted);
    }
  }
}

TEST_CASE("a session of something else is refused") {
  Scratch scratch;
  Bench bench;
  Decoder decoder = bench.decoder(), wider = bench.decoder({.window = 30});
  WrittenText text{0, {4, 5}, {}};
  write(bench, decoder, text, 5);
  Session session = take_session(*bench.device, decoder, text, "abc");
  auto refused = [&](Decoder& by, const Session& what, const char* model, const char* why) {
    WrittenText other;
    CHECK_THROWS_WITH_AS(resume_session(*bench.device, by, other, what, model, "s"), doctest::Contains(why), Error);
    CHECK(by.position(0) == (&by == &decoder ? session.position : 0));
  };
  refused(decoder, session, "abd", "other weights");
  refused(wider, session, "abc", "--window 21, here it is 30");
  Decoder narrow = bench.decoder({.sequences = 2, .window = 21, .ring = Dtype::i8});
  refused(narrow, session, "abc", "a ring of fp32, here it is of i8");
  Decoder few = bench.decoder({.sequences = 2, .window = 21, .choice = KeyChoice{4, TopkMode::exact}});
  refused(few, session, "abc", "--attention dense, here it is topk 4");
  Session broken = session;
  broken.rings[1].pop_back();
  refused(decoder, broken, "abc", "damaged");
  broken = session, broken.tokens[2] = 50;
  refused(decoder, broken, "abc", "damaged");
  write_tokens(scratch, "tokens", 100);
  CHECK_THROWS_WITH_AS(read_session(scratch / "tokens"), doctest::Contains("is no session"), Error);
}
