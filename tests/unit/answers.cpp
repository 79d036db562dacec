#include <doctest/doctest.h>

#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "longhand/answers.h"
#include "longhand/compare.h"
#include "longhand/files.h"
#include "longhand/generate.h"
#include "longhand/instructions.h"
#include "longhand/model.h"
#include "longhand/report.h"

using namespace longhand;

namespace {

double chrf(const char* written, const char* wanted) { return Answer{.wanted = wanted, .written = written}.chrf(); }

std::string temporary(const char* name) {
  return (std::filesystem::temp_directory_path() / fmt::format("longhand-{}-{}", name, getpid())).string();
}

/// Validation questions of a few examples, by the tiny weights' tokenizer.
struct Questions {
  std::unique_ptr<Device> device = make_device("cpu", {.threads = 1});
  LoadedModel model = load_model(*device, "weights/tiny.safetensors", Dtype::fp32);
  Tokenizer tokenizer{model.tokenizer};
  std::vector<Question> list;

  explicit Questions(int count) {
    InstructionFile file;
    for (int i = 0; i < count; ++i)
      file.examples.push_back({.fields = {{"instruction", fmt::format("Write {} words.", i)}},
                               .answer = fmt::format("{} words, and {} more", i, i * i),
                               .task = i % 3 ? "a" : "b"});
    EncodedInstructions encoded = encode_instructions(tokenizer, file, &file, {.segment = 200});
    TokenFile tokens(std::move(encoded.streams), model.config.vocab_size, model.tokenizer);
    list = questions_of(tokens.validation(), 0);
  }
};

}  // namespace

// By hand for "ab" against "abcdefgh": n = 1: P 1, R 2/8; n = 2: P 1, R 1/7; longer ones have no counterpart.
// P = 1, R = (1/4 + 1/7) / 2 = 11/56, F = 5 R / (4 + R). The others are sacrebleu 2.6's (chrF2).
TEST_CASE("chrF is the formula's") {
  CHECK(chrf("ab", "abcdefgh") == doctest::Approx(100 * 5 * (11.0 / 56) / (4 + 11.0 / 56)));
  CHECK(chrf("abc", "abc") == doctest::Approx(100));
  CHECK(chrf("a b c", "abc") == doctest::Approx(100));
  CHECK(chrf("a", "b") == 0);
  CHECK(chrf("", "b") == 0);
  CHECK(chrf("The cat sat on the mat", "The cat is on the mat") == doctest::Approx(64.5779420625287));
  CHECK(chrf("viertausend", "viertausendelf") == doctest::Approx(77.44819091049268));
  CHECK(chrf("你好世界", "你好，世界") == doctest::Approx(33.99581589958159));
  Chrf set;
  set.add("The cat sat on the mat", "The cat is on the mat");
  set.add("viertausend", "viertausendelf"), set.add("你好世界", "你好，世界");
  CHECK(set.score() == doctest::Approx(67.10138671769506));
}

TEST_CASE("a question is an example before its last answer") {
  Questions questions(6);
  CHECK(questions.list.size() == 6);
  const Question& q = questions.list.back();  // task "b", example 3
  CHECK(q.task == "b");
  CHECK(questions.tokenizer.decode({q.tokens.begin() + q.prompt, q.tokens.end() - 1}) == "3 words, and 9 more");
  CHECK(q.tokens.back() == questions.tokenizer.end_of_document());
}

TEST_CASE("an answer depends neither on the texts beside it nor on their number") {
  Questions questions(7);
  auto answer = [&](int64_t rows) {
    return write_answers(*questions.device, questions.model.config, questions.model.weights, questions.tokenizer,
                         questions.list, {.rows = rows, .tokens = 12});
  };
  std::vector<Answer> together = answer(4), alone = answer(1);
  CHECK(together.size() == 7);
  for (size_t i = 0; i < together.size(); ++i) {
    CHECK(together[i].written == alone[i].written);
    CHECK(together[i].tokens == static_cast<int64_t>(questions.list[i].tokens.size()) - questions.list[i].prompt);
  }
}

TEST_CASE("the nats of an answer are those of its tokens after its prompt") {
  Questions questions(5);
  std::vector<Answer> answers = write_answers(*questions.device, questions.model.config, questions.model.weights,
                                              questions.tokenizer, questions.list, {.tokens = 1});
  for (size_t i = 0; i < answers.size(); ++i) {
    const Question& q = questions.list[i];
    int64_t length = static_cast<int64_t>(q.tokens.size()) - 1;
    Pass pass(*questions.device, questions.model.config, questions.model.weights, nullptr,
              {.segment = length, .training = false}, Dtype::fp32);
    std::vector<int32_t> targets(q.tokens.begin() + 1, q.tokens.end());
    std::fill(targets.begin(), targets.begin() + q.prompt - 1, -1);
    Batch batch;
    batch.tokens = ConstTensor(q.tokens.data(), Dtype::i32, {length, 1});
    batch.targets = ConstTensor(targets.data(), Dtype::i32, {length, 1});
    CHECK(answers[i].nats == doctest::Approx(pass.forward(batch, {}, {}, 0, 0)).epsilon(1e-4));
  }
}

TEST_CASE("answers in a file are the answers that were written") {
  std::vector<Answer> answers = {
      {.task = "t", .prompt = "p\n", .wanted = "ab", .written = "a\"b", .before = "x", .nats = 3, .tokens = 2},
      {.task = "u", .prompt = "q", .wanted = "c", .written = "c", .nats = 1, .tokens = 2}};
  std::string path = temporary("answers");
  write_file(path, answers_text(answers));
  std::vector<Answer> read = read_answers(path);
  CHECK(answers_text(read) == answers_text(answers));
  CHECK(read[0].before == "x");
  CHECK(!read[1].before);
  std::vector<AnswerScore> scores = score_answers(read);
  CHECK(scores.size() == 3);
  CHECK(scores[2].exact == 1);
  CHECK(scores[2].nats == doctest::Approx(1));
  CHECK(report_page(R"({"type":"validation","step":0,"nats":1})", "r", read).find("a\"b") != std::string::npos);
  write_file(path, "{\"task\": 1}\n");
  CHECK_THROWS_WITH_AS(read_answers(path), doctest::Contains(":1: this is no answer"), Error);
  std::filesystem::remove(path);
}

TEST_CASE("a bootstrap interval has the width of the mean's standard error, and none where nothing varies") {
  std::vector<double> differences;
  for (int i = 0; i < 400; ++i) differences.push_back(i % 2 ? 1.0 : 0.0);  // mean 1/2, standard error 1/40
  Interval interval = bootstrap(differences, 1);
  CHECK(interval.mean == doctest::Approx(0.5));
  CHECK(interval.low == doctest::Approx(0.5 - 1.96 / 40).epsilon(0.02));
  CHECK(interval.high == doctest::Approx(0.5 + 1.96 / 40).epsilon(0.02));
  Interval same = bootstrap({2, 2, 2}, 1);
  CHECK(same.low == 2);
  CHECK(same.high == 2);
}

TEST_CASE("runs are compared over the examples that both answered") {
  std::string directory = temporary("run");
  std::filesystem::create_directories(directory);
  write_file(directory + "/log.jsonl", R"({"type":"meta","parameters":10,"trained":4})"
                                       "\n"
                                       R"({"type":"validation","step":0,"nats":3})"
                                       "\n"
                                       R"({"type":"step","step":0,"loss":1})"
                                       "\n"
                                       R"({"type":"validation","step":1,"nats":2})"
                                       "\n"
                                       R"({"type":"validation","step":2,"nats":2.5})"
                                       "\n{\"type\":\"end\",\"ste");
  RunSummary run = read_run(directory);
  std::filesystem::remove_all(directory);
  CHECK(run.trained == 4);
  CHECK(run.steps == 1);
  CHECK(run.first_nats == 3);
  CHECK(run.best_step == 1);
  CHECK(run.last_nats == 2.5);
  CHECK(run.seconds == -1);
  RunSummary base = run;
  base.answers = {{.task = "t", .prompt = "p", .wanted = "a", .written = "b", .nats = 4, .tokens = 2},
                  {.task = "t", .prompt = "other", .wanted = "a", .written = "b"}};
  run.answers = {{.task = "t", .prompt = "p", .wanted = "a", .written = "a", .nats = 1, .tokens = 2}};
  RunDifference difference = compare_runs(run, base, 0);
  CHECK(difference.examples == 1);
  CHECK(difference.nats.mean == doctest::Approx(-1.5));
  CHECK(difference.exact.mean == doctest::Approx(100));
  CHECK_THROWS_WITH_AS(read_run(directory), doctest::Contains("no log.jsonl"), Error);
}
