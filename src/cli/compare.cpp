// longhand compare RUN RUN...: runs side by side, and how sure their differences are.
#include "longhand/compare.h"

#include <nlohmann/json.hpp>

#include "longhand/train.h"
#include "src/cli/command.h"

namespace longhand::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string bytes_or_dash(int64_t bytes) { return bytes < 0 ? "-" : human_bytes(static_cast<double>(bytes)); }

template <class T>
std::string or_dash(T value, const char* form) {
  return value < 0 ? "-" : fmt::format(fmt::runtime(form), value);
}

AnswerScore mean_of(const RunSummary& run) {
  return run.answers.empty() ? AnswerScore{.chrf = -1} : score_answers(run.answers).back();
}

std::string exact_of(const AnswerScore& score) {
  if (score.examples == 0) return "-";
  return fmt::format("{:.1f}%", 100.0 * static_cast<double>(score.exact) / static_cast<double>(score.examples));
}

void print_table(const std::vector<RunSummary>& runs, size_t width) {
  fmt::print("{:<{}} {:>11} {:>7} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6}\n", "run", width, "trained",
             "steps", "first", "best", "last", "tokens/s", "time", "memory", "file", "exact", "chrF");
  for (const RunSummary& r : runs) {
    AnswerScore score = mean_of(r);
    fmt::print("{:<{}} {:>11} {:>7} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9} {:>7} {:>6}\n", r.name, width,
               or_dash(r.trained, "{}"), or_dash(r.steps, "{}"), or_dash(r.first_nats, "{:.4f}"),
               or_dash(r.best_nats, "{:.4f}"), or_dash(r.last_nats, "{:.4f}"), or_dash(r.tokens_per_s, "{:.0f}"),
               or_dash(r.seconds, "{:.0f} s"), bytes_or_dash(r.peak_memory), bytes_or_dash(r.file_bytes),
               exact_of(score), or_dash(score.chrf, "{:.1f}"));
  }
}

std::string text_of(const Interval& i, const char* form) {
  std::string pattern = fmt::format("{0} ({0} to {0})", form);
  return fmt::format(fmt::runtime(pattern), i.mean, i.low, i.high);
}

void print_differences(const std::vector<RunSummary>& runs, size_t width, uint64_t seed) {
  fmt::print("\nAgainst {}, example by example, with 95% intervals of a paired bootstrap:\n", runs[0].name);
  fmt::print("{:<{}} {:>8} {:>28} {:>24} {:>26}\n", "run", width, "examples", "nats a token", "chrF", "exact, percent");
  for (size_t i = 1; i < runs.size(); ++i) {
    RunDifference d = compare_runs(runs[i], runs[0], seed);
    fmt::print("{:<{}} {:>8} {:>28} {:>24} {:>26}\n", runs[i].name, width, d.examples,
               d.examples ? text_of(d.nats, "{:+.4f}") : "-", d.examples ? text_of(d.chrf, "{:+.1f}") : "-",
               d.examples ? text_of(d.exact, "{:+.1f}") : "-");
  }
}

void print_json(const std::vector<RunSummary>& runs, uint64_t seed) {
  auto interval = [](const Interval& i) { return Json({{"mean", i.mean}, {"low", i.low}, {"high", i.high}}); };
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunSummary& r = runs[i];
    Json line = {{"run", r.name},
                 {"parameters", r.parameters},
                 {"trained", r.trained},
                 {"steps", r.steps},
                 {"first_nats", r.first_nats},
                 {"best_nats", r.best_nats},
                 {"best_step", r.best_step},
                 {"last_nats", r.last_nats},
                 {"tokens_per_s", r.tokens_per_s},
                 {"seconds", r.seconds},
                 {"peak_memory_bytes", r.peak_memory},
                 {"file_bytes", r.file_bytes}};
    if (!r.answers.empty()) {
      AnswerScore score = mean_of(r);
      line["answers"] = score.examples, line["exact"] = score.exact, line["chrf"] = score.chrf;
    }
    RunDifference d = i > 0 ? compare_runs(r, runs[0], seed) : RunDifference{};
    if (d.examples > 0)
      line["difference"] = {{"examples", d.examples},
                            {"nats", interval(d.nats)},
                            {"chrf", interval(d.chrf)},
                            {"exact", interval(d.exact)}};
    fmt::print("{}\n", line.dump());
  }
}

void run_compare(const std::vector<std::string>& directories, const Common& common) {
  if (directories.size() < 2) fail_usage("compare takes two runs or more: longhand compare runs/one runs/two");
  std::vector<RunSummary> runs;
  size_t width = 3;
  bool answers = false;
  for (const std::string& directory : directories) {
    runs.push_back(read_run(directory));
    width = std::max(width, runs.back().name.size());
    answers = answers || (runs.size() > 1 && !runs.back().answers.empty());
  }
  if (common.json) return print_json(runs, common.seed);
  print_table(runs, width);
  if (answers && !runs[0].answers.empty()) print_differences(runs, width, common.seed);
}

}  // namespace

void add_compare(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "compare", "put runs side by side");
  auto runs = std::make_shared<std::vector<std::string>>();
  command->add_option("RUN", *runs, "run directories; the others are compared with the first");
  command->callback([runs, &common] { common.run = [runs, &common] { run_compare(*runs, common); }; });
}

}  // namespace longhand::cli
