#include "longhand/report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "longhand/error.h"

namespace longhand {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* style = R"(
:root{--ink:#1c2430;--soft:#5d6878;--line:#e3e7ec;--page:#fbfbfa;--card:#fff}
.c0{--c:#2463eb}.c1{--c:#d9480f}.c2{--c:#0c8599}.c3{--c:#9c36b5}.c4{--c:#2f9e44}.c5{--c:#c2255c}.c6{--c:#b08900}.c7{--c:#5f3dc4}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#98a3b3;--line:#2c333d;--page:#14181d;--card:#1b2027}
.c0{--c:#74a2ff}.c1{--c:#ff8a5c}.c2{--c:#4fd1e0}.c3{--c:#d68bea}.c4{--c:#69db7c}.c5{--c:#f783ac}.c6{--c:#e8c547}.c7{--c:#a58bff}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1120px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.05rem;margin:2rem 0 .6rem}p{color:var(--soft);margin:.2rem 0}
code{font:13px ui-monospace,monospace;overflow-wrap:anywhere}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:1rem}
figure,.card{background:var(--card);border:1px solid var(--line);border-radius:8px;margin:0;padding:.6rem}
svg{width:100%;height:auto;display:block}text{fill:var(--ink);font:12px system-ui,sans-serif}
.title{font-size:14px;font-weight:600}.tick,.label{font-size:11px}.tick{fill:var(--soft)}tspan{fill:var(--c)}
.grid{stroke:var(--line);fill:none}.mark{stroke:var(--soft);stroke-dasharray:3 3;fill:none}
.line{fill:none;stroke:var(--c);stroke-linejoin:round}.strong{stroke-width:2}.faint{stroke-width:1;opacity:.35}.dot,.bar{fill:var(--c)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}td,th{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:500}td:first-child,th:first-child,.words td,.words th{text-align:left}.words td{white-space:pre-wrap}
.facts{display:flex;flex-wrap:wrap;gap:.4rem 2rem;margin:1rem 0}.facts b{display:block;font-size:1.15rem;font-variant-numeric:tabular-nums}.facts span{color:var(--soft);font-size:.85rem}
)";

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) out += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  return out;
}

struct Validation {
  double step, nats, bits_per_byte;
  std::map<std::string, std::pair<double, double>> streams;  // nats, bits a byte
  std::map<std::string, Json> heads;                         // by stream and name: labels, accuracy, f1, ...
};

struct Run {
  Json meta, end;
  std::vector<Json> steps, events;
  std::vector<Validation> validations;
  std::vector<std::string> languages;  // or tasks, in the order of the log
  bool tasks = false;                  // it was fine-tuned
};

double value(const Json& object, const char* key) {
  auto entry = object.find(key);
  return entry != object.end() && entry->is_number() ? entry->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

void add_validation(Run& run, const Json& line) {
  Validation v{value(line, "step"), value(line, "nats"), value(line, "bits_per_byte"), {}, {}};
  auto streams = line.find("streams");
  if (streams != line.end() && streams->is_object())
    for (const auto& [name, row] : streams->items()) {
      if (run.validations.empty()) run.languages.push_back(name);
      v.streams[name] = {value(row, "nats"), value(row, "bits_per_byte")};
      if (row.contains("heads"))
        for (const auto& [head, score] : row["heads"].items())
          v.heads[name == head ? head : fmt::format("{} {}", name, head)] = score;
    }
  run.validations.push_back(std::move(v));
}

Run read_log(std::string_view log) {
  Run run;
  int64_t number = 0;
  while (!log.empty()) {
    size_t end = log.find('\n');
    std::string_view text = log.substr(0, end);
    bool complete = end != std::string_view::npos;
    log.remove_prefix(complete ? end + 1 : log.size());
    ++number;
    if (text.empty()) continue;
    Json line = Json::parse(text, nullptr, false);
    if (!line.is_object()) {
      if (!complete) break;
      fail("log line {}: not a JSON object; is this the log.jsonl of a run?", number);
    }
    std::string type = line.value("type", "");
    if (type == "meta")
      run.meta = std::move(line), run.tasks = run.meta.value("command", "").find(" finetune") != std::string::npos;
    else if (type == "step")
      run.steps.push_back(std::move(line));
    else if (type == "validation")
      add_validation(run, line);
    else if (type == "event")
      run.events.push_back(std::move(line));
    else if (type == "end")
      run.end = std::move(line);
    else
      fail("log line {}: its type is \"{}\": meta, step, validation, event and end are known", number, type);
  }
  if (run.steps.empty() && run.validations.empty()) fail("the log holds no step yet: nothing to report");
  return run;
}

std::vector<std::pair<double, double>> column(const Run& run, const char* key, double factor = 1) {
  std::vector<std::pair<double, double>> points;
  for (const Json& step : run.steps) points.emplace_back(value(step, "step"), factor * value(step, key));
  return points;
}

/// Exponential moving average over about 1/50 of the run, corrected for its start.
std::vector<std::pair<double, double>> smooth(const std::vector<std::pair<double, double>>& raw) {
  double keep = 1 - 1 / std::max(1.0, static_cast<double>(raw.size()) / 50), mean = 0, weight = 0;
  std::vector<std::pair<double, double>> out;
  for (auto [x, y] : raw) {
    if (std::isfinite(y)) mean = keep * mean + (1 - keep) * y, weight = keep * weight + (1 - keep);
    out.emplace_back(x, weight > 0 ? mean / weight : y);
  }
  return out;
}

/// The parts of the loss, where there are several, and how often the heads were right.
void add_head_charts(const Run& run, std::vector<Chart>& all) {
  std::map<std::string, std::vector<std::pair<double, double>>> parts, heads;
  for (const Json& step : run.steps)
    if (step.contains("parts"))
      for (const auto& [name, nats] : step["parts"].items())
        if (nats.is_number()) parts[name].emplace_back(value(step, "step"), nats.get<double>());
  for (const Validation& v : run.validations)
    for (const auto& [name, score] : v.heads)
      heads[name].emplace_back(v.step, 100 * value(score, score.contains("f1") ? "f1" : "accuracy"));
  Chart loss{"Parts of the loss", "step", "nats a token or label", {}, false, {}};
  for (const auto& [name, points] : parts) loss.series.push_back({name, smooth(points)});
  if (loss.series.size() > 1) all.push_back(std::move(loss));
  Chart right{"Heads in validation", "step", "F1 of tags, accuracy of others, %", {}, false, {}};
  for (const auto& [name, points] : heads) right.series.push_back({name, points, true});
  if (!right.series.empty()) all.push_back(std::move(right));
}

/// Of a run that stops early and keeps its best weights; otherwise null.
const Validation* best_validation(const Run& run) {
  auto flags = run.meta.find("flags");
  if (flags == run.meta.end() || flags->value("patience", 0) <= 0 || run.validations.empty()) return nullptr;
  return &*std::min_element(run.validations.begin(), run.validations.end(),
                            [](const Validation& a, const Validation& b) { return a.nats < b.nats; });
}

std::vector<Chart> charts(const Run& run) {
  std::vector<std::pair<double, std::string>> marks;
  for (const Json& event : run.events)
    if (event.value("event", "") != "sample")
      marks.emplace_back(value(event, "step"), event.value("event", "") + ": " + event.value("text", ""));
  if (const Validation* best = best_validation(run))
    marks.emplace_back(best->step, fmt::format("best: {:.4f} nats a token, the weights that are kept", best->nats));
  std::stable_sort(marks.begin(), marks.end(), [](const auto& a, const auto& b) { return a.first < b.first; });

  std::vector<Chart> all;
  auto loss = column(run, "loss");
  Chart training{"Loss", "step", "nats a token", {{"", loss, false}, {"train", smooth(loss)}}, false, marks};
  Chart languages{run.tasks ? "Validation by task" : "Validation by language", "step", "bits a byte", {}, false, {}};
  std::vector<std::pair<double, double>> mean;
  for (const Validation& v : run.validations) mean.emplace_back(v.step, v.nats);
  if (!mean.empty()) training.series.push_back({"valid", mean});
  for (const std::string& name : run.languages) {
    Chart::Series series{name, {}, true};
    for (const Validation& v : run.validations)
      if (auto row = v.streams.find(name); row != v.streams.end())
        series.points.emplace_back(v.step,
                                   row->second.second > 0 ? row->second.second : row->second.first / std::log(2));
    languages.series.push_back(std::move(series));
  }
  all.push_back(std::move(training));
  if (!languages.series.empty()) all.push_back(std::move(languages));
  add_head_charts(run, all);
  auto norm = column(run, "grad_norm");
  all.push_back({"Gradient norm", "step", "before clipping", {{"", norm, false}, {"norm", smooth(norm)}}, true, marks});
  all.push_back({"Learning rate", "step", "", {{"rate", column(run, "lr")}}, false, {}});
  if (!run.steps.empty() && run.steps.front().contains("segment"))
    all.push_back({"Segment", "step", "tokens of every lane", {{"tokens", column(run, "segment")}}, false, {}});
  auto rate = column(run, "tokens_per_s");
  all.push_back({"Throughput", "step", "tokens a second", {{"", rate, false}, {"rate", smooth(rate)}}, false, {}});
  auto light = column(run, "sol", 100);
  all.push_back({"Share of this machine's speed of light",
                 "step",
                 "%",
                 {{"", light, false}, {"share", smooth(light)}},
                 false,
                 {}});
  return all;
}

/// Parts of the model and when they began to train, from the top of the model down; nothing where all do from the
/// start.
std::string training_parts(const Run& run) {
  auto stages = run.meta.find("stages");
  if (stages == run.meta.end() || !stages->is_object()) return "";
  Timeline timeline{"What trains", "step", run.steps.empty() ? 1 : value(run.steps.back(), "step") + 1, {}};
  bool all = true;
  for (const auto& [name, stage] : stages->items()) {
    double from = std::numeric_limits<double>::infinity();
    if (stage.is_number() && stage.get<int64_t>() == 0) from = 0;
    for (const Json& event : run.events)
      if (event.value("event", "") == "thawed" && event.value("text", "").find(name) != std::string::npos)
        from = value(event, "step");
    all = all && from == 0;
    timeline.rows.insert(timeline.rows.begin(), {name, from});
  }
  return all ? "" : "<h2>Frozen and training parts</h2><figure>" + timeline.svg() + "</figure>";
}

std::string fact(std::string_view what, const std::string& figure) {
  return fmt::format("<div><b>{}</b><span>{}</span></div>", escape(figure), escape(what));
}

std::string facts(const Run& run) {
  std::string out = "<div class=\"facts\">";
  if (run.meta.contains("parameters"))
    out += fact("parameters", fmt::format("{:.3g} M", value(run.meta, "parameters") / 1e6));
  if (!run.steps.empty()) {
    out += fact("steps", fmt::format("{:.0f}", value(run.steps.back(), "step") + 1));
    out += fact("last loss, nats a token", fmt::format("{:.4f}", smooth(column(run, "loss")).back().second));
  }
  if (!run.validations.empty()) {
    out += fact("validation, nats a token", fmt::format("{:.4f}", run.validations.back().nats));
    if (const Validation* best = best_validation(run))
      out += fact(fmt::format("best validation, of step {:.0f}", best->step), fmt::format("{:.4f}", best->nats));
    if (run.validations.back().bits_per_byte > 0)
      out += fact("validation, bits a byte", fmt::format("{:.4f}", run.validations.back().bits_per_byte));
  }
  if (run.end.is_object()) {
    out += fact("tokens a second", fmt::format("{:.0f}", value(run.end, "tokens_per_s")));
    out += fact("time", fmt::format("{:.0f} s", value(run.end, "seconds")));
    out += fact("peak memory", fmt::format("{:.0f} MB", value(run.end, "peak_memory_bytes") / 1e6));
  }
  return out + "</div>";
}

std::string validation_table(const Run& run) {
  if (run.languages.empty()) return "";
  const Validation &first = run.validations.front(), &last = run.validations.back();
  std::string out = fmt::format(
      "<h2>Validation</h2><div class=\"card\"><table><tr><th>stream</th><th>bits a byte, step {:.0f}</th><th>bits a "
      "byte, "
      "step {:.0f}</th><th>nats a token</th></tr>",
      first.step, last.step);
  for (const std::string& name : run.languages) {
    auto a = first.streams.find(name), b = last.streams.find(name);
    if (a == first.streams.end() || b == last.streams.end()) continue;
    out += fmt::format("<tr><td>{}</td><td>{:.3f}</td><td>{:.3f}</td><td>{:.3f}</td></tr>", escape(name),
                       a->second.second, b->second.second, b->second.first);
  }
  return out + "</table></div>";
}

std::string head_rows(const Run& run) {
  if (run.validations.empty() || run.validations.back().heads.empty()) return "";
  std::string out =
      "<h2>Heads</h2><div class=\"card\"><table><tr><th>head</th><th>labels</th><th>nats a label</th><th>accuracy</th>"
      "<th>commonest label</th><th>precision</th><th>recall</th><th>F1</th></tr>";
  for (const auto& [name, score] : run.validations.back().heads) {
    auto percent = [&score = score](const char* key) {
      return score.contains(key) ? fmt::format("{:.1f}%", 100 * value(score, key)) : std::string();
    };
    out += fmt::format(
        "<tr><td>{}</td><td>{:.0f}</td><td>{:.3f}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
        escape(name), value(score, "labels"), value(score, "nats"), percent("accuracy"), percent("majority"),
        percent("precision"), percent("recall"), percent("f1"));
  }
  return out + "</table></div>";
}

std::string event_list(const Run& run) {
  if (run.events.empty()) return "";
  std::string out =
      "<h2>Events and samples</h2><div class=\"card\"><table class=\"words\"><tr><th>step</th><th>event</th>"
      "<th>text</th></tr>";
  for (const Json& event : run.events)
    out += fmt::format("<tr><td>{:.0f}</td><td>{}</td><td>{}</td></tr>", value(event, "step"),
                       escape(event.value("event", "")), escape(event.value("text", "")));
  return out + "</table></div>";
}

constexpr size_t most_answers = 24;

std::string answer_list(const std::vector<Answer>& answers) {
  if (answers.empty()) return "";
  AnswerScore mean = score_answers(answers).back();
  std::string out = fmt::format(
      "<h2>Answers to validation examples</h2><p>{} answers, {} of them exact, chrF {:.1f}, {:.3f} nats a token</p>"
      "<div class=\"card\"><table class=\"words\"><tr><th>task</th><th>prompt</th><th>wanted</th><th>before</th>"
      "<th>written</th></tr>",
      mean.examples, mean.exact, mean.chrf, mean.nats);
  size_t count = std::min(answers.size(), most_answers);
  for (size_t i = 0; i < count; ++i) {
    const Answer& a = answers[i * answers.size() / count];
    out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>", escape(a.task),
                       escape(a.prompt), escape(a.wanted), escape(a.before.value_or("")), escape(a.written));
  }
  return out + "</table></div>";
}

std::string settings(const Run& run) {
  if (!run.meta.is_object()) return "";
  std::string out = "<h2>Settings</h2><div class=\"card\"><table>";
  for (const char* group : {"config", "flags"})
    if (run.meta.contains(group))
      for (const auto& [key, setting] : run.meta[group].items())
        out += fmt::format("<tr><td>{}</td><td><code>{}</code></td></tr>", escape(key), escape(setting.dump()));
  return out + "</table></div>";
}

}  // namespace

std::string report_page(std::string_view log, std::string_view name, const std::vector<Answer>& answers) {
  Run run = read_log(log);
  std::string page = fmt::format(
      "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\"><title>{0}</title><style>{1}</style></head><body><h1>{0}</h1>",
      escape(name), style);
  if (run.meta.contains("command"))
    page += fmt::format("<p><code>{}</code></p>", escape(run.meta.value("command", "")));
  page += facts(run) + "<div class=\"charts\">";
  for (const Chart& chart : charts(run)) page += "<figure>" + chart.svg() + "</figure>";
  page += "</div>" + training_parts(run) + validation_table(run) + head_rows(run) + answer_list(answers) +
          event_list(run) + settings(run) + "</body></html>\n";
  return page;
}

}  // namespace longhand
