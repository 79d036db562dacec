#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/train/flags.h"
#include "src/train/unfreeze.h"

namespace longhand {
namespace {

using Json = nlohmann::ordered_json;

void put(Json& json, const Dtype& value) { json = dtype_name(value); }
void put(Json& json, const ScheduleKind& value) { json = schedule_name(value); }
void put(Json& json, const Difficulty& value) { json = difficulty_name(value); }
void put(Json& json, const Pacing& value) { json = pacing_name(value); }
void put(Json& json, const float& value) { json = Json::parse(fmt::format("{}", value)); }
template <class T>
void put(Json& json, const T& value) {
  json = value;
}

void take(const Json& json, Dtype& value) { value = json.get<std::string>() == "bf16" ? Dtype::bf16 : Dtype::fp32; }
void take(const Json& json, ScheduleKind& value) { value = parse_schedule(json.get<std::string>()); }
void take(const Json& json, Difficulty& value) { value = parse_difficulty(json.get<std::string>()); }
void take(const Json& json, Pacing& value) { value = parse_pacing(json.get<std::string>()); }
template <class T>
void take(const Json& json, T& value) {
  value = json.get<T>();
}

void in_range(const char* flag, double value, double low, double high) {
  if (!(value >= low && value <= high)) fail_usage("{} {}: it takes {} to {}", flag, value, low, high);
}

void check(const TrainOptions& o) {
  if (o.lanes < 1) fail_usage("--batch-size {}: at least one sequence is needed", o.lanes);
  if (o.micro_batch < 1 || o.lanes % o.micro_batch)
    fail_usage("--micro-batch {}: it must divide --batch-size {}", o.micro_batch, o.lanes);
  if (o.segment < 1) fail_usage("--segment {}: at least one token is needed", o.segment);
  if (o.segment_start < 0 || o.segment_start > o.segment)
    fail_usage("--segment-start {}: it takes 1 to --segment {}, or 0 for off", o.segment_start, o.segment);
  if (o.segment_start > 0 && o.examples) fail_usage("--segment-start: rows of examples all have --segment tokens");
  if (o.segment_steps < 0 || (o.segment_steps > 0 && o.segment_start == 0))
    fail_usage("--segment-steps {}: it counts the steps from --segment-start to --segment", o.segment_steps);
  if (o.steps < 0) fail_usage("--steps {}: it cannot be negative", o.steps);
  if (!(o.epochs >= 0)) fail_usage("--epochs {}: it cannot be negative", o.epochs);
  in_range("--learning-rate", o.learning_rate, 0, 1e3);
  in_range("--min-lr-ratio", o.min_lr_ratio, 0, 1);
  if (o.min_lr > o.learning_rate)
    fail_usage("--min-lr {} lies above --learning-rate {}: the schedule falls to it", o.min_lr, o.learning_rate);
  if (o.warmup_ratio >= 0) in_range("--warmup-ratio", o.warmup_ratio, 0, 1);
  in_range("--decay-ratio", o.decay_ratio, 0, 1);
  in_range("--beta1", o.beta1, 0, std::nextafter(1.0, 0.0)), in_range("--beta2", o.beta2, 0, std::nextafter(1.0, 0.0));
  in_range("--eps", o.eps, 0, 1), in_range("--weight-decay", o.weight_decay, 0, 1e3);
  in_range("--clip", o.clip, 0, 1e9), in_range("--label-smoothing", o.label_smoothing, 0, 1);
  in_range("--focal-gamma", o.focal_gamma, 0, 100), in_range("--spike", o.spike, 0, 1e9);
  const DropoutRates& d = o.dropout;
  in_range("--dropout-embedding", d.embedding, 0, 0.99), in_range("--dropout-attention", d.attention, 0, 0.99);
  in_range("--dropout-residual", d.residual, 0, 0.99), in_range("--dropout-activation", d.activation, 0, 0.99);
  in_range("--dropout-feedforward", d.feedforward, 0, 0.99), in_range("--lora-dropout", d.lora, 0, 0.99);
  if (d.lora > 0 && o.config.lora_rank == 0) fail_usage("--lora-dropout needs --lora");
  if (!(o.curriculum_start > 0 && o.curriculum_start <= 1))
    fail_usage("--curriculum-start {}: it is a share above 0, at most 1", o.curriculum_start);
  if (o.curriculum_steps < 0) fail_usage("--curriculum-steps {}: it cannot be negative", o.curriculum_steps);
  if (o.task_temperature != 0) in_range("--task-temperature", o.task_temperature, 0.01, 1e6);
  in_range("--augment-synonyms", o.augment_synonyms, 0, 1);
  in_range("--augment-insertions", o.augment_insertions, 0, 1);
  in_range("--augment-shuffles", o.augment_shuffles, 0, 1);
  if (o.freeze.find('[') != std::string::npos)
    fail_usage("--freeze {}: it takes names; rows stand behind those of --train-only", o.freeze);
  in_range("--fgm", o.fgm, 0, 1e3);
  in_range("--layer-decay", o.layer_decay, 0, 1);
  in_range("--state-weight", o.state_weight, 0, 1e3);
  if (o.patience < 0) fail_usage("--patience {}: it cannot be negative", o.patience);
  if (o.max_skips < 1) fail_usage("--max-skips {}: at least 1", o.max_skips);
  if (o.type == Dtype::fp32 && o.master != Dtype::fp32)
    fail_usage("--master bf16 needs --dtype bf16: fp32 weights are their own master");
}

}  // namespace

void TrainOptions::resolve(int64_t batches) {
  if (micro_batch == 0) micro_batch = lanes;
  if (segment == 0) segment = config.segment > 0 ? config.segment : config.mem_len > 0 ? config.mem_len : 256;
  if (learning_rate == 0) learning_rate = std::min(1e-3, 0.5 / static_cast<double>(config.d_model));
  if (!examples) config.segment = segment;  // rows of examples say nothing about the context of a text
  config.check();
  check(*this);
  if (segment_start > 0 && segment_steps == 0) {
    if (steps == 0)
      fail_usage("--segment-start {}: give --segment-steps, or --steps of which it is half", segment_start);
    segment_steps = (steps + 1) / 2;
  }
  std::vector<ParameterInfo> list = parameter_list(config);
  auto none = [&](auto&& of) { return std::none_of(list.begin(), list.end(), of); };
  for (const ParameterInfo& p : list)
    if (trains(p.name) && first_row(p.name) >= p.shape[0])
      fail_usage("--train-only {}[{}:]: it has {} rows", p.name, first_row(p.name), p.shape[0]);
  if (none([&](const ParameterInfo& p) { return trains(p.name); }))
    fail_usage("nothing is left to train: no parameter matches --train-only {} without matching --freeze {}",
               train_only.empty() ? "*" : train_only, freeze);
  if (none([&](const ParameterInfo& p) { return stage(p.name) == 0; }))
    fail_usage(
        "--unfreeze: nothing trains in the first two epochs, which are the top feed-forward layer's: name what does "
        "with --train-only, with --lora give it updates by --lora-sites up,down and more, with --adapters leave it "
        "among --adapter-sites");
  for (const ParameterInfo& p : list)
    if (auto packed = held.find(p.name); packed != held.end() && packed->second.packed() && has_gradient(p.name))
      fail_usage(
          "{} is held as {}, and is read, not trained: give --lora 8 to train updates beside such matrices, "
          "or name what does train with --train-only",
          p.name, dtype_name(packed->second.type));
  if (batches > 0 && (steps == 0 || epochs > 0)) steps = steps == 0 ? batches : std::min(steps, batches);
}

Schedule TrainOptions::make_schedule() const {
  Schedule s{.kind = schedule, .peak = learning_rate, .steps = steps};
  s.floor = min_lr >= 0 ? min_lr : learning_rate * min_lr_ratio;
  double ratio = warmup_ratio >= 0 ? warmup_ratio : schedule == ScheduleKind::constant ? 0 : 0.02;
  auto part = [&](double r) { return static_cast<int64_t>(std::llround(r * static_cast<double>(steps))); };
  s.warmup = std::min(steps, warmup_steps >= 0 ? warmup_steps : part(ratio));
  s.decay = part(decay_ratio);
  return s;
}

/// Whether `name` is `pattern`, in which * stands for any characters.
static bool matches(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] != '*') return !name.empty() && name[0] == pattern[0] && matches(pattern.substr(1), name.substr(1));
  for (size_t skip = 0; skip <= name.size(); ++skip)
    if (matches(pattern.substr(1), name.substr(skip))) return true;
  return false;
}

/// A pattern of names and the first row that it means: "embedding.weight[8192:]".
struct RowPattern {
  std::string_view name;
  int64_t first_row = 0;

  explicit RowPattern(std::string_view text) : name(text) {
    size_t open = text.find('[');
    if (open == text.npos) return;
    name = text.substr(0, open);
    std::string_view rows = text.substr(open + 1);
    auto [end, error] = std::from_chars(rows.data(), rows.data() + rows.size(), first_row);
    if (error != std::errc() || first_row < 0 || std::string_view(end, rows.data() + rows.size()) != ":]")
      fail_usage("--train-only {}: rows are written as embedding.weight[8192:], from the first to train", text);
  }
};

/// The patterns of a list, one call each.
template <class Visitor>
static void visit_patterns(std::string_view patterns, Visitor&& on) {
  for (size_t first = 0; first < patterns.size();) {
    size_t end = std::min(patterns.find(',', first), patterns.size());
    on(patterns.substr(first, end - first));
    first = end + 1;
  }
}

static bool matches_any(std::string_view patterns, std::string_view name) {
  bool any = false;
  visit_patterns(patterns, [&](std::string_view pattern) { any = any || matches(pattern, name); });
  return any;
}

/// The first row that the patterns mean, -1 where none matches.
static int64_t first_row_of(std::string_view patterns, std::string_view name) {
  int64_t first = -1;
  visit_patterns(patterns, [&](std::string_view text) {
    RowPattern pattern(text);
    if (matches(pattern.name, name)) first = first < 0 ? pattern.first_row : std::min(first, pattern.first_row);
  });
  return first;
}

bool TrainOptions::teaches(std::string_view head) const { return matches_any(heads, head); }

int64_t TrainOptions::stage(std::string_view name) const {
  if (matches_any(freeze, name)) return -1;
  if (std::string_view head = head_of(name); !head.empty()) return teaches(head) ? 0 : -1;
  if (!train_only.empty() && first_row_of(train_only, name) >= 0) return 0;
  if (config.extended() && !is_lora(name) && !is_adapter(name)) return -1;
  if (unfreeze) return unfreezing_stage(config, name);
  return config.extended() || train_only.empty() ? 0 : -1;
}

int64_t TrainOptions::first_row(std::string_view name) const {
  return std::max<int64_t>(0, first_row_of(train_only, name));
}

int64_t TrainOptions::trained_elements(const ParameterInfo& info) const {
  if (!trains(info.name)) return 0;
  return info.shape.elements() / info.shape[0] * std::max<int64_t>(0, info.shape[0] - first_row(info.name));
}

PassShape TrainOptions::pass_shape() const {
  return {.lanes = micro_batch,
          .segment = segment,
          .memory = examples ? 0 : config.mem_len,
          .training = true,
          .recompute = recompute,
          .lora_dropout = dropout.lora > 0};
}

PassShape TrainOptions::validation_shape() const {
  return {.lanes = std::min<int64_t>(micro_batch, 4),
          .segment = segment,
          .memory = examples ? 0 : config.mem_len,
          .training = false,
          .recompute = false};
}

std::string TrainOptions::json() const {
  Json json;
  visit_train_flags(*this, [&](const TrainFlag& flag, const auto& field) { put(json[flag_key(flag)], field); });
  visit_finetune_flags(*this, [&](const TrainFlag& flag, const auto& field) { put(json[flag_key(flag)], field); });
  json["seed"] = seed;
  if (!heads.empty()) json["heads"] = heads;
  return json.dump();
}

TrainOptions parse_train_options(std::string_view text, const ModelConfig& config, std::string_view where) {
  Json json = parse_json<Json>(text);
  if (!json.is_object()) fail("{}: its training flags are not a JSON object", where);
  TrainOptions options;
  options.config = config;
  try {
    visit_train_flags(options, [&](const TrainFlag& flag, auto& field) {
      if (auto entry = json.find(flag_key(flag)); entry != json.end()) take(*entry, field);
    });
    visit_finetune_flags(options, [&](const TrainFlag& flag, auto& field) {
      if (auto entry = json.find(flag_key(flag)); entry != json.end()) take(*entry, field);
    });
    options.heads = json.value("heads", "");
    if (json.contains("seed")) options.seed = json["seed"].get<uint64_t>();
  } catch (const Json::exception& error) {
    fail("{}: its training flags cannot be read: {}", where, error.what());
  }
  return options;
}

}  // namespace longhand
