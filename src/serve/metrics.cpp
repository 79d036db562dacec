#include "src/serve/metrics.h"

#include <unistd.h>

#include <fmt/format.h>
#include <fstream>

namespace longhand::serve {
namespace {

// A label's value: Prometheus wants \, " and line breaks escaped.
std::string quoted(const std::string& value) {
  std::string out;
  for (char c : value) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

std::string headline(const std::string& name, const char* type, const std::string& help) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

template <class Numbers>
struct Column {
  const char *name, *type, *help;
  double (*value)(const Numbers&);
};

// By the name that a request gives: weights or adapter.
constexpr Column<TextCounts> text_columns[] = {
    {"longhand_prompt_tokens_total", "counter", "Prompt tokens taken.",
     [](const TextCounts& n) { return static_cast<double>(n.prompt_tokens); }},
    {"longhand_generated_tokens_total", "counter", "Tokens drawn.",
     [](const TextCounts& n) { return static_cast<double>(n.drawn_tokens); }},
    {"longhand_drafted_tokens_total", "counter", "Tokens foretold by drafts, of texts that have ended.",
     [](const TextCounts& n) { return static_cast<double>(n.drafted_tokens); }},
    {"longhand_accepted_tokens_total", "counter", "Those of them that were drawn.",
     [](const TextCounts& n) { return static_cast<double>(n.accepted_tokens); }},
    {"longhand_texts_finished_total", "counter", "Texts that came to their end.",
     [](const TextCounts& n) { return static_cast<double>(n.finished); }},
    {"longhand_texts_cancelled_total", "counter", "Texts whose client went away, or that a shutdown ended.",
     [](const TextCounts& n) { return static_cast<double>(n.cancelled); }},
    {"longhand_texts_timed_out_total", "counter", "Texts that ran out of time.",
     [](const TextCounts& n) { return static_cast<double>(n.timed_out); }},
    {"longhand_texts_failed_total", "counter", "Texts that an error ended.",
     [](const TextCounts& n) { return static_cast<double>(n.failed); }},
};

// By weights, which have one batch.
constexpr Column<EngineNumbers> engine_columns[] = {
    {"longhand_steps_total", "counter", "Steps of the batch; tokens by steps is the mean batch times what drafts add.",
     [](const EngineNumbers& n) { return static_cast<double>(n.steps); }},
    {"longhand_requests_waiting", "gauge", "Prompts in the queue.",
     [](const EngineNumbers& n) { return static_cast<double>(n.waiting); }},
    {"longhand_requests_running", "gauge", "Prompts being read or continued.",
     [](const EngineNumbers& n) { return static_cast<double>(n.running); }},
    {"longhand_sequences", "gauge", "Texts that the batch holds at most.",
     [](const EngineNumbers& n) { return static_cast<double>(n.sequences); }},
    {"longhand_sequences_used", "gauge", "Texts that the batch holds now.",
     [](const EngineNumbers& n) { return static_cast<double>(n.sequences_used); }},
};

template <class Numbers>
std::string line(const Column<Numbers>& column, const std::string& model, const Numbers& numbers) {
  return fmt::format("{}{{model=\"{}\"}} {}\n", column.name, quoted(model), column.value(numbers));
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace

void Histogram::observe(double seconds) {
  size_t place = 0;
  while (place < bounds.size() && seconds > bounds[place]) ++place;
  ++counts_[place], sum_ += seconds;
}

std::string Histogram::text(const std::string& name, const std::string& help) const {
  std::string out = headline(name, "histogram", help);
  uint64_t count = 0;
  for (size_t i = 0; i < counts_.size(); ++i) {
    count += counts_[i];
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, i < bounds.size() ? fmt::format("{}", bounds[i]) : "+Inf",
                       count);
  }
  return out + fmt::format("{}_sum {}\n{}_count {}\n", name, sum_, name, count);
}

std::string experiment_metrics(const Experiment& experiment) {
  auto counts = experiment.counts();
  std::string answers = headline("longhand_ab_answers_total", "counter", "Answers of an experiment by variant.");
  std::string verdicts =
      headline("longhand_ab_feedback_total", "counter", "Verdicts of readers, the last on each answer.");
  for (size_t i = 0; i < counts.size(); ++i) {
    std::string variant = quoted(experiment.variants()[i].name);
    answers += fmt::format("longhand_ab_answers_total{{variant=\"{}\"}} {}\n", variant, counts[i].answers);
    for (auto [rating, count] : {std::pair("up", counts[i].up), {"down", counts[i].down}})
      verdicts +=
          fmt::format("longhand_ab_feedback_total{{variant=\"{}\",rating=\"{}\"}} {}\n", variant, rating, count);
  }
  return answers + verdicts;
}

void Metrics::answered(const std::string& path, int status, double seconds) {
  std::lock_guard lock(mutex_);
  ++answers_[{path, status}];
  seconds_.observe(seconds);
}

void Metrics::first_token(double seconds) {
  std::lock_guard lock(mutex_);
  first_token_.observe(seconds);
}

std::string Metrics::text(const std::vector<EngineView>& engines, int connections) const {
  std::lock_guard lock(mutex_);
  std::string out = headline("longhand_requests_total", "counter", "Answers by path and status.");
  for (const auto& [key, count] : answers_)
    out +=
        fmt::format("longhand_requests_total{{path=\"{}\",status=\"{}\"}} {}\n", quoted(key.first), key.second, count);
  out += seconds_.text("longhand_request_seconds", "From a request's arrival to the end of its answer.");
  out += first_token_.text("longhand_first_token_seconds", "From a request's submission to its first token.");
  for (const auto& column : text_columns) {
    out += headline(column.name, column.type, column.help);
    for (const EngineView& engine : engines)
      for (size_t i = 0; i < engine.names.size(); ++i) out += line(column, engine.names[i], engine.numbers.texts[i]);
  }
  for (const auto& column : engine_columns) {
    out += headline(column.name, column.type, column.help);
    for (const EngineView& engine : engines) out += line(column, engine.names[0], engine.numbers);
  }
  out += headline("process_resident_memory_bytes", "gauge", "Resident memory of the server.");
  out += fmt::format("process_resident_memory_bytes {}\n", resident_bytes());
  out += headline("longhand_connections", "gauge", "Connections that are open.");
  return out + fmt::format("longhand_connections {}\n", connections);
}

}  // namespace longhand::serve
