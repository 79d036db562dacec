#include "src/serve/load_generator.h"

#include <httplib.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "longhand/error.h"
#include "longhand/random.h"

namespace longhand::serve {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

/// What one client lived through.
struct Experience {
  int64_t answers = 0, left = 0, tokens = 0;
  std::map<std::string, int64_t> errors;
  std::vector<double> first_token, between_tokens, whole;
};

/// The moments at which requests fall due.
class Schedule {
 public:
  explicit Schedule(const LoadOptions& options)
      : options_(options),
        start_(Clock::now()),
        end_(start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(options.seconds))) {}

  /// Waits for the next request's moment and says when it was due; false: no more.
  bool next(Clock::time_point& due, uint64_t& number) {
    {
      std::lock_guard lock(mutex_);
      number = count_++;
      if (options_.rate > 0) {
        double draw = (philox(options_.seed, static_cast<uint32_t>(number), 0, 0, 0).word[0] + 0.5) * 0x1p-32;
        offset_ -= std::log(draw) / options_.rate;
        due = start_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(offset_));
      } else {
        due = Clock::now();
      }
    }
    if (due >= end_) return false;
    std::this_thread::sleep_until(due);
    return true;
  }

 private:
  const LoadOptions& options_;
  Clock::time_point start_, end_;
  std::mutex mutex_;
  uint64_t count_ = 0;
  double offset_ = 0;  // seconds
};

/// Counts the events of a stream as they come in.
class Answer {
 public:
  Answer(Experience& experience, Clock::time_point due, int64_t leave_after)
      : experience_(experience), due_(due), last_(due), leave_after_(leave_after) {}

  /// False: the client goes away.
  bool take(const char* data, size_t size) {
    held_.append(data, size);
    for (size_t end; (end = held_.find("\n\n")) != std::string::npos; held_.erase(0, end + 2)) {
      if (held_.starts_with("data: [DONE]")) done_ = true;
      if (held_.starts_with("data: {\"error\"")) failed_ = true;
      if (!done_ && !failed_) token();
    }
    return leave_after_ < 0 || tokens_ < leave_after_;
  }
  bool done() const { return done_; }
  bool failed() const { return failed_; }

 private:
  void token() {
    auto now = Clock::now();
    (tokens_ == 0 ? experience_.first_token : experience_.between_tokens).push_back(seconds_between(last_, now));
    last_ = now, ++tokens_, ++experience_.tokens;
  }

  Experience& experience_;
  Clock::time_point due_, last_;
  int64_t leave_after_, tokens_ = 0;
  std::string held_;
  bool done_ = false, failed_ = false;
};

class Client {
 public:
  explicit Client(const LoadOptions& options) : options_(options), http_(options.url) {
    http_.set_keep_alive(true), http_.set_tcp_nodelay(true);
    http_.set_read_timeout(std::chrono::seconds(300));
  }

  void run(Schedule& schedule) {
    Clock::time_point due;
    for (uint64_t number; schedule.next(due, number);) ask(due, number);
  }
  Experience experience;

 private:
  void ask(Clock::time_point due, uint64_t number) {
    PhiloxBlock bits = philox(options_.seed, static_cast<uint32_t>(number), 0, 1, 0);
    bool leaves = bits.word[0] < options_.hang_up * 4294967296.0;
    Answer answer(experience, due, leaves ? 1 + bits.word[1] % std::max<int64_t>(1, options_.tokens - 1) : -1);
    httplib::Request request;
    request.method = "POST", request.path = "/v1/completions", request.body = body(number);
    request.set_header("Content-Type", "application/json");
    if (!options_.key.empty()) request.set_header("Authorization", "Bearer " + options_.key);
    request.content_receiver = [&](const char* data, size_t size, uint64_t, uint64_t) {
      return answer.take(data, size);
    };
    httplib::Result result = http_.send(request);
    if (leaves && !result && result.error() == httplib::Error::Canceled) {
      ++experience.left;
    } else if (!result) {
      ++experience.errors[httplib::to_string(result.error())];
    } else if (result->status != 200) {
      ++experience.errors[fmt::format("status {}", result->status)];
    } else if (answer.failed() || !answer.done()) {
      ++experience.errors[answer.failed() ? "the stream ended in an error" : "the stream was cut off"];
    } else {
      ++experience.answers;
      experience.whole.push_back(seconds_between(due, Clock::now()));
    }
  }

  std::string body(uint64_t number) const {
    nlohmann::json json = {{"prompt", options_.prompt},
                           {"max_tokens", options_.tokens},
                           {"stream", true},
                           {"logprobs", 0},
                           {"ignore_eos", true},
                           {"seed", number}};
    if (!options_.model.empty()) json["model"] = options_.model;
    return json.dump();
  }

  const LoadOptions& options_;
  httplib::Client http_;
};

double resident_memory(const LoadOptions& options) {
  httplib::Client http(options.url);
  httplib::Headers headers;
  if (!options.key.empty()) headers.emplace("Authorization", "Bearer " + options.key);
  httplib::Result result = http.Get("/metrics", headers);
  if (!result) fail("{}: {}; is a server running there?", options.url, httplib::to_string(result.error()));
  constexpr std::string_view name = "\nprocess_resident_memory_bytes ";
  size_t at = result->body.find(name);
  return at == std::string::npos ? 0 : std::strtod(result->body.c_str() + at + name.size(), nullptr);
}

template <class Values>
void append(Values& to, const Values& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace

Quantiles quantiles(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  auto at = [&](double part) {
    return values[static_cast<size_t>(part * static_cast<double>(values.size() - 1) + 0.5)];
  };
  return {at(0.5), at(0.9), at(0.99), values.back()};
}

LoadReport generate_load(const LoadOptions& options) {
  LoadReport report;
  report.server_memory_before = resident_memory(options);
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < options.clients; ++i) clients.push_back(std::make_unique<Client>(options));
  auto start = Clock::now();
  Schedule schedule(options);
  std::vector<std::thread> threads;
  for (auto& client : clients) threads.emplace_back([&] { client->run(schedule); });
  for (std::thread& thread : threads) thread.join();
  report.seconds = seconds_between(start, Clock::now());
  try {
    report.server_memory_after = resident_memory(options);
  } catch (const Error&) {
    // The server went away meanwhile: the errors say so, and what was measured stands.
  }

  Experience all;
  for (auto& client : clients) {
    const Experience& one = client->experience;
    report.answers += one.answers, report.left += one.left, report.tokens += one.tokens;
    for (const auto& [what, count] : one.errors) report.errors[what] += count;
    append(all.first_token, one.first_token), append(all.between_tokens, one.between_tokens);
    append(all.whole, one.whole);
    if (one.whole.empty()) continue;
    double sum = 0;
    for (double x : one.whole) sum += x;
    double mean = sum / static_cast<double>(one.whole.size());
    report.slowest_client = std::max(report.slowest_client, mean);
    report.fastest_client = report.fastest_client > 0 ? std::min(report.fastest_client, mean) : mean;
  }
  report.first_token = quantiles(all.first_token), report.between_tokens = quantiles(all.between_tokens);
  report.whole = quantiles(all.whole);
  return report;
}

}  // namespace longhand::serve
