#include "src/train/run_log.h"

#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

namespace longhand {
namespace {

using Json = nlohmann::ordered_json;

Json score_object(const HeadScore& score) {
  Json json = {{"labels", score.labels}, {"nats", score.mean_nats()}, {"accuracy", score.accuracy()}};
  json["majority"] = score.majority();
  if (score.kind == HeadKind::tags)
    json.update({{"precision", score.precision()}, {"recall", score.recall()}, {"f1", score.f1()}});
  return json;
}

Json step_object(const StepReport& r) {
  double rate = r.seconds > 0 ? static_cast<double>(r.tokens) / r.seconds : 0;
  Json json = {{"step", r.step},
               {"loss", r.loss},
               {"grad_norm", r.grad_norm},
               {"lr", r.learning_rate},
               {"tokens_per_s", std::round(rate * 10) / 10}};
  if (r.segment > 0) json["segment"] = r.segment;
  return json;
}

/// Whether a line of an earlier run still holds when it goes on from `step` steps done.
bool still_holds(const std::string& line, int64_t step) {
  Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) return false;  // the last line of a run that was killed
  std::string type = json.value("type", "");
  int64_t at = json.value("step", int64_t{0});
  std::string event = json.value("event", "");
  if (type == "step" || event == "skipped" || event == "thawed") return at < step;
  return type == "meta" || ((type == "validation" || type == "event") && at <= step);
}

}  // namespace

std::string head_json(const HeadScore& score) {
  Json json = {{"head", score.name}};
  json.update(score_object(score));
  return json.dump();
}

std::string step_json(const StepReport& report) { return step_object(report).dump(); }

int64_t peak_memory_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

RunLog::RunLog(const std::string& path, int64_t step) : path_(path) {
  std::string kept;
  if (step > 0) {
    std::ifstream old(path);
    for (std::string line; std::getline(old, line);)
      if (still_holds(line, step)) kept += line + '\n';
  }
  continued_ = !kept.empty();
  std::string part = path + ".part";
  file_.reset(std::fopen(part.c_str(), "w"));
  if (!file_) fail("{}: cannot be written: {}", path, std::strerror(errno));
  if (std::fwrite(kept.data(), 1, kept.size(), file_.get()) != kept.size() || std::fflush(file_.get()) != 0)
    fail("{}: cannot be written: {}", path, std::strerror(errno));
  std::filesystem::rename(part, path);
}

void RunLog::write(const std::string& line) {
  if (!file_) return;
  bool good = std::fputs(line.c_str(), file_.get()) >= 0 && std::fputc('\n', file_.get()) >= 0;
  if (!good || std::fflush(file_.get()) != 0)
    fail("{}: cannot be written: {}; the last checkpoint stands, --resume continues from it", path_,
         std::strerror(errno));
}

/// {"embedding": 0, "layers.0.attention": -1, ...}: the first stage in which some of a part trains, -1 for never.
static Json training_stages(const TrainOptions& options) {
  Json parts = Json::object();
  for (const ParameterInfo& info : parameter_list(options.config)) {
    size_t end = info.name.find('.');
    if (info.name.starts_with("layers.")) end = info.name.find('.', info.name.find('.', end + 1) + 1);
    std::string part = info.name.substr(0, end);
    int64_t stage = options.stage(info.name), before = parts.value(part, int64_t{-1});
    parts[part] = before < 0 ? stage : stage < 0 ? before : std::min(before, stage);
  }
  return parts;
}

void RunLog::meta(const Trainer& trainer, const MemoryPlan& plan, const std::string& command, int threads) {
  if (!file_) return;
  Json arenas = Json::object();
  for (const MemoryPlan::Row& row : plan.rows) arenas[row.name] = row.bytes;
  Json json = {{"type", "meta"},
               {"command", command},
               {"config", Json::parse(trainer.options().config.json())},
               {"parameters", plan.parameters},
               {"trained", plan.trained},
               {"stages", training_stages(trainer.options())},
               {"steps", trainer.options().steps},
               {"device", trainer.device_name()},
               {"threads", threads},
               {"flags", Json::parse(trainer.options().json())},
               {"arenas", arenas}};
  write(json.dump());
}

void RunLog::step(const StepReport& report, double ceiling) {
  if (!file_) return;
  Json json = {{"type", "step"}};
  json.update(step_object(report));
  json["seconds"] = report.seconds;
  if (report.seconds > 0) json["gflops"] = std::round(report.flops / report.seconds / 1e8) / 10;
  if (ceiling > 0 && report.seconds > 0) json["sol"] = std::round(report.flops / report.seconds / ceiling * 1e4) / 1e4;
  for (const LossPart& part : report.parts) json["parts"][part.name] = part.nats;
  if (!report.skipped.empty()) json["skipped"] = report.skipped;
  write(json.dump());
}

void RunLog::validation(int64_t step, const std::vector<ValidationRow>& rows) {
  if (!file_ || rows.empty()) return;
  Json streams = Json::object();
  for (const ValidationRow& row : rows) {
    streams[row.name] = {{"nats", row.nats}, {"bits_per_byte", row.bits_per_byte}, {"tokens", row.tokens}};
    for (const HeadScore& score : row.heads) streams[row.name]["heads"][score.name] = score_object(score);
  }
  ValidationRow mean = mean_of(rows);
  Json json = {{"type", "validation"},
               {"step", step},
               {"nats", mean.nats},
               {"bits_per_byte", mean.bits_per_byte},
               {"streams", streams}};
  write(json.dump());
}

void RunLog::event(int64_t step, const std::string& what, const std::string& text) {
  if (!file_) return;
  write(Json({{"type", "event"}, {"step", step}, {"event", what}, {"text", text}}).dump());
}

void RunLog::end(int64_t step, double seconds, double median_tokens_per_s) {
  if (!file_) return;
  write(Json({{"type", "end"},
              {"step", step},
              {"seconds", seconds},
              {"tokens_per_s", median_tokens_per_s},
              {"peak_memory_bytes", peak_memory_bytes()}})
            .dump());
}

}  // namespace longhand
