#include "longhand/report.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>

#include "longhand/error.h"

using namespace longhand;

namespace {

std::string log_of(int steps) {
  std::string log =
      R"({"type":"meta","command":"longhand train <x>","config":{"d_model":8},"flags":{},"parameters":100})"
      "\n";
  for (int i = 0; i < steps; ++i)
    log +=
        fmt::format(R"({{"type":"step","step":{},"loss":{},"grad_norm":1.5,"lr":0.001,"tokens_per_s":100,"sol":0.5}})"
                    "\n",
                    i, 5.0 - i * 0.01);
  log +=
      R"({"type":"validation","step":50,"nats":4.5,"bits_per_byte":2.25,"streams":{"en":{"nats":4.5,"bits_per_byte":2.25,"tokens":10}}})"
      "\n";
  return log;
}

size_t count(const std::string& text, const std::string& word) {
  size_t n = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) ++n;
  return n;
}

}  // namespace

TEST_CASE("a report holds every curve and needs no network") {
  std::string page = report_page(log_of(100), "run");
  CHECK(count(page, "<svg") == 6);
  for (const char* title :
       {"Loss", "Validation by language", "Gradient norm", "Learning rate", "Throughput", "speed of light"})
    CHECK(page.find(title) != std::string::npos);
  CHECK(page.find("http") == std::string::npos);
  CHECK(page.find("longhand train &lt;x&gt;") != std::string::npos);
  CHECK(page.find("2.250") != std::string::npos);
}

TEST_CASE("a fine-tuning run shows its tasks, what trains from when on, and where its best weights were") {
  std::string log =
      R"({"type":"meta","command":"longhand finetune x","parameters":9,"flags":{"patience":2},"stages":{"embedding":-1,"layers.0.attention":1,"layers.0.feedforward":0}})"
      "\n";
  for (int i = 0; i < 20; ++i)
    log += fmt::format(R"({{"type":"step","step":{},"loss":2,"segment":64}})"
                       "\n",
                       i);
  log += R"({"type":"event","step":7,"event":"thawed","text":"layers.0.attention trains from here on"})"
         "\n";
  for (auto [step, nats] : {std::pair(5, 3.0), std::pair(10, 2.5), std::pair(15, 2.75)})
    log += fmt::format(R"({{"type":"validation","step":{},"nats":{},"streams":{{"de-en":{{"nats":1}}}}}})"
                       "\n",
                       step, nats);
  log += R"({"type":"event","step":20,"event":"early stop","text":"after 20 steps"})"
         "\n";
  std::string page = report_page(log, "run");
  CHECK(page.find("Validation by task") != std::string::npos);
  CHECK(page.find("layers.0.attention trains from step 7") != std::string::npos);
  CHECK(page.find("layers.0.feedforward trains from step 0") != std::string::npos);
  CHECK(page.find("embedding trains") == std::string::npos);
  CHECK(page.find(">embedding</text>") != std::string::npos);
  CHECK(page.find("best validation, of step 10") != std::string::npos);
  CHECK(page.find(">early stop</text>") != std::string::npos);
  CHECK(page.find("tokens of every lane") != std::string::npos);
}

TEST_CASE("a log that a killed run cut short is reported as far as it goes") {
  std::string log = log_of(10);
  CHECK_NOTHROW(report_page(log.substr(0, log.size() - 20), "run"));
}

TEST_CASE("what is not a log is refused with its line") {
  CHECK_THROWS_WITH_AS(report_page("{\"type\":\"step\",\"step\":0}\nnonsense\n", "run"),
                       "log line 2: not a JSON object; is this the log.jsonl of a run?", Error);
  CHECK_THROWS_AS(report_page("", "run"), Error);
}

TEST_CASE("a chart survives no points, one point and values that are not finite") {
  Chart chart{"t", "x", "y", {{"a", {}}, {"b", {{1, 2}}}, {"c", {{0, NAN}, {1, INFINITY}, {2, -1}}}}, true, {}};
  std::string svg = chart.svg();
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find("inf") == std::string::npos);
}
