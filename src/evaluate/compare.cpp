#include "longhand/compare.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "longhand/files.h"

namespace longhand {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

void take(RunSummary& run, const Json& line) {
  std::string type = line.value("type", "");
  if (type == "meta") {
    run.parameters = line.value("parameters", int64_t{-1});
    run.trained = line.value("trained", run.parameters);
  } else if (type == "step") {
    run.steps = line.value("step", int64_t{-1}) + 1;
  } else if (type == "validation") {
    double nats = line.value("nats", -1.0);
    if (run.first_nats < 0) run.first_nats = nats;
    if (run.best_nats < 0 || nats < run.best_nats) run.best_nats = nats, run.best_step = line.value("step", int64_t{0});
    run.last_nats = nats;
  } else if (type == "end") {
    run.tokens_per_s = line.value("tokens_per_s", -1.0), run.seconds = line.value("seconds", -1.0);
    run.peak_memory = line.value("peak_memory_bytes", int64_t{-1});
  }
}

void read_log(RunSummary& run, const std::string& path) {
  std::string log = read_file(path);
  int64_t number = 0;
  for (size_t first = 0; first < log.size();) {
    size_t end = std::min(log.find('\n', first), log.size());
    Json line =
        Json::parse(log.begin() + static_cast<int64_t>(first), log.begin() + static_cast<int64_t>(end), nullptr, false);
    ++number;
    if (line.is_object())
      take(run, line);
    else if (end < log.size() && end > first)
      fail("{}:{}: not a JSON object; is this the log.jsonl of a run?", path, number);
    first = end + 1;
  }
}

}  // namespace

RunSummary read_run(const std::string& directory) {
  RunSummary run{.name = fs::path(directory).lexically_normal().filename().string()};
  if (run.name.empty()) run.name = fs::weakly_canonical(directory).filename().string();
  std::string log = directory + "/log.jsonl";
  if (!fs::exists(log)) fail("{}: there is no log.jsonl here; name a directory that --output made", directory);
  read_log(run, log);
  for (const char* name : {"/model.safetensors", "/adapter.safetensors"})
    if (fs::exists(directory + name)) run.file_bytes = static_cast<int64_t>(fs::file_size(directory + name));
  if (fs::exists(directory + "/answers.jsonl")) run.answers = read_answers(directory + "/answers.jsonl");
  return run;
}

RunDifference compare_runs(const RunSummary& run, const RunSummary& base, uint64_t seed) {
  std::map<std::tuple<std::string, std::string, std::string>, const Answer*> known;
  for (const Answer& a : base.answers) known[{a.task, a.prompt, a.wanted}] = &a;
  std::vector<double> nats, chrf, exact;
  for (const Answer& a : run.answers) {
    auto found = known.find({a.task, a.prompt, a.wanted});
    if (found == known.end()) continue;
    const Answer& b = *found->second;
    auto mean = [](const Answer& x) { return x.nats / static_cast<double>(std::max<int64_t>(1, x.tokens)); };
    nats.push_back(mean(a) - mean(b)), chrf.push_back(a.chrf() - b.chrf());
    exact.push_back(100.0 * (a.exact() - b.exact()));
    known.erase(found);
  }
  return {static_cast<int64_t>(nats.size()), bootstrap(nats, seed), bootstrap(chrf, seed), bootstrap(exact, seed)};
}

}  // namespace longhand
