#include "src/serve/experiment.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "longhand/error.h"

namespace longhand::serve {
namespace {

/// Uniform in [0, 1): FNV-1a, its bits mixed as MurmurHash3 ends.
double hashed(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (unsigned char c : text) hash = (hash ^ c) * 0x100000001b3;
  hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
  hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
  return static_cast<double>((hash ^ hash >> 33) >> 11) * 0x1p-53;
}

double rate_of(int64_t successes, int64_t trials) {
  return trials > 0 ? static_cast<double>(successes) / static_cast<double>(trials) : 0;
}

template <class Field, class Value>
void put(Field& field, const std::optional<Value>& value) {
  if (value) field = *value;
}

}  // namespace

void Variant::apply(SamplingParameters& rules) const {
  put(rules.temperature, temperature), put(rules.top_p, top_p), put(rules.min_p, min_p);
  put(rules.repetition_penalty, repetition_penalty), put(rules.top_k, top_k);
}

Interval wilson(int64_t successes, int64_t trials) {
  if (trials == 0) return {0, 1};
  constexpr double z = 1.959963984540054;
  double n = static_cast<double>(trials), p = rate_of(successes, trials);
  double middle = p + z * z / (2 * n), reach = z * std::sqrt(p * (1 - p) / n + z * z / (4 * n * n));
  double scale = 1 + z * z / n;
  return {std::max(0.0, (middle - reach) / scale), std::min(1.0, (middle + reach) / scale)};
}

Interval newcombe(int64_t a, int64_t of_a, int64_t b, int64_t of_b) {
  double p = rate_of(a, of_a), q = rate_of(b, of_b);
  Interval first = wilson(a, of_a), second = wilson(b, of_b);
  return {p - q - std::hypot(p - first.low, second.high - q), p - q + std::hypot(first.high - p, q - second.low)};
}

Experiment::Experiment(std::string name, std::vector<Variant> variants)
    : name_(std::move(name)), variants_(std::move(variants)), counts_(variants_.size()) {
  if (variants_.size() < 2) fail("experiment {}: it needs two variants or more", name_);
  for (size_t i = 0; i < variants_.size(); ++i) {
    const Variant& one = variants_[i];
    if (!(one.share > 0 && std::isfinite(one.share)))
      fail("experiment {}: variant {} has the share {}: it is above 0", name_, one.name, one.share);
    for (size_t k = 0; k < i; ++k)
      if (variants_[k].name == one.name) fail("experiment {}: variant {} stands twice", name_, one.name);
    shares_ += one.share;
  }
}

size_t Experiment::choose(const std::string& user, double draw) const {
  double at = (user.empty() ? draw : hashed(name_ + '\0' + user)) * shares_;
  size_t variant = 0;
  while (variant + 1 < variants_.size() && at >= variants_[variant].share) at -= variants_[variant++].share;
  return variant;
}

void Experiment::answered(const std::string& id, size_t variant, int64_t tokens) {
  std::lock_guard lock(mutex_);
  ++counts_.at(variant).answers, counts_[variant].tokens += tokens;
  if (!answers_.emplace(id, Answer{variant, {}}).second) return;
  order_.push_back(id);
  if (order_.size() <= remembered) return;
  answers_.erase(order_.front());
  order_.pop_front();
}

bool Experiment::rate(const std::string& id, bool up) {
  std::lock_guard lock(mutex_);
  auto found = answers_.find(id);
  if (found == answers_.end()) return false;
  Answer& answer = found->second;
  Count& count = counts_[answer.variant];
  if (answer.up) --(*answer.up ? count.up : count.down);
  answer.up = up;
  ++(up ? count.up : count.down);
  return true;
}

std::vector<Experiment::Count> Experiment::counts() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

std::string Experiment::json() const {
  using Json = nlohmann::ordered_json;
  std::vector<Count> counts = this->counts();
  Json list = Json::array();
  for (size_t i = 0; i < counts.size(); ++i) {
    const Count &one = counts[i], &first = counts[0];
    int64_t rated = one.up + one.down, rated_first = first.up + first.down;
    Interval interval = wilson(one.up, rated), apart = newcombe(one.up, rated, first.up, rated_first);
    Json row = {{"variant", variants_[i].name},
                {"model", variants_[i].model},
                {"share", variants_[i].share / shares_},
                {"answers", one.answers},
                {"tokens", one.tokens},
                {"up", one.up},
                {"down", one.down}};
    row["rate"] = rated > 0 ? Json(rate_of(one.up, rated)) : Json();
    row["interval"] = {interval.low, interval.high};
    if (i > 0 && rated > 0 && rated_first > 0)
      row["difference"] = {{"to", variants_[0].name},
                           {"rate", rate_of(one.up, rated) - rate_of(first.up, rated_first)},
                           {"interval", {apart.low, apart.high}}};
    list.push_back(row);
  }
  return Json{{"experiment", name_}, {"variants", list}}.dump() + "\n";
}

}  // namespace longhand::serve
