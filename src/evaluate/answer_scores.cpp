// Figures of answers, the file that holds them, and the bootstrap.
#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "longhand/answers.h"
#include "longhand/files.h"
#include "longhand/random.h"

namespace longhand {

using Json = nlohmann::ordered_json;

std::vector<AnswerScore> score_answers(const std::vector<Answer>& answers) {
  struct Sum {
    AnswerScore score;
    Chrf chrf;
    double nats = 0;
    int64_t tokens = 0;
  };
  std::map<std::string, Sum> tasks;
  for (const Answer& answer : answers) {
    Sum& sum = tasks[answer.task];
    ++sum.score.examples, sum.score.exact += answer.exact();
    sum.chrf.add(answer.written, answer.wanted);
    sum.nats += answer.nats, sum.tokens += answer.tokens;
  }
  std::vector<AnswerScore> scores;
  AnswerScore mean{.task = "mean"};
  for (auto& [task, sum] : tasks) {
    sum.score.task = task, sum.score.chrf = sum.chrf.score();
    sum.score.nats = sum.nats / static_cast<double>(std::max<int64_t>(1, sum.tokens));
    mean.examples += sum.score.examples, mean.exact += sum.score.exact;
    mean.chrf += sum.score.chrf / static_cast<double>(tasks.size());
    mean.nats += sum.score.nats / static_cast<double>(tasks.size());
    scores.push_back(sum.score);
  }
  scores.push_back(mean);
  return scores;
}

std::string answers_text(const std::vector<Answer>& answers) {
  std::string text;
  for (const Answer& a : answers) {
    Json line = {{"task", a.task},
                 {"prompt", a.prompt},
                 {"wanted", a.wanted},
                 {"written", a.written},
                 {"exact", a.exact()},
                 {"chrf", a.chrf()},
                 {"nats", a.nats / static_cast<double>(std::max<int64_t>(1, a.tokens))},
                 {"tokens", a.tokens}};
    if (a.before) line["before"] = *a.before;
    text += line.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
  }
  return text;
}

std::vector<Answer> read_answers(const std::string& path) {
  std::string text = read_file(path);
  std::vector<Answer> answers;
  int64_t line = 0;
  for (size_t first = 0; first < text.size();) {
    size_t end = std::min(text.find('\n', first), text.size());
    Json json = Json::parse(text.begin() + static_cast<int64_t>(first), text.begin() + static_cast<int64_t>(end),
                            nullptr, false);
    first = end + 1, ++line;
    try {
      Answer a{.task = json.at("task"),
               .prompt = json.at("prompt"),
               .wanted = json.at("wanted"),
               .written = json.at("written"),
               .tokens = json.at("tokens")};
      if (json.contains("before")) a.before = json.at("before").get<std::string>();
      a.nats = json.at("nats").get<double>() * static_cast<double>(a.tokens);
      answers.push_back(std::move(a));
    } catch (const Json::exception&) {
      fail("{}:{}: this is no answer as `longhand eval --output` writes them", path, line);
    }
  }
  return answers;
}

Interval bootstrap(const std::vector<double>& differences, uint64_t seed, int64_t samples) {
  Interval interval;
  if (differences.empty()) return interval;
  uint64_t count = differences.size();
  for (double d : differences) interval.mean += d / static_cast<double>(count);
  std::vector<double> means(samples);
  for (int64_t s = 0; s < samples; ++s) {
    RandomStream random{.seed = seed, .step = static_cast<uint64_t>(s), .use = RandomUse::sampling};
    double sum = 0;
    for (uint64_t i = 0; i < count; ++i) sum += differences[static_cast<uint64_t>(random.bits(i)) * count >> 32];
    means[s] = sum / static_cast<double>(count);
  }
  std::sort(means.begin(), means.end());
  interval.low = means[static_cast<size_t>(0.025 * static_cast<double>(samples))];
  interval.high = means[std::min<size_t>(samples - 1, static_cast<size_t>(0.975 * static_cast<double>(samples)))];
  return interval;
}

}  // namespace longhand
