#include <algorithm>
#include <cmath>

#include "longhand/train.h"
#include "src/train/fgm.h"
#include "src/train/lane_memory.h"

namespace longhand {
namespace {

/// Bytes of the trained parameters.
int64_t trained_bytes(const TrainOptions& o, Dtype type) {
  return ParameterSet("", o.config, type, [&](const std::string& name) { return o.trains(name); }).bytes();
}

int64_t gradient_bytes(const TrainOptions& o) {
  return ParameterSet("", o.config, o.type, [&](const std::string& name) { return o.has_gradient(name); }).bytes();
}

std::string percent(int64_t part, int64_t whole) {
  return fmt::format("{:.1f}%", whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0.0);
}

}  // namespace

int64_t MemoryPlan::total() const {
  int64_t sum = 0;
  for (const Row& row : rows) sum += row.bytes;
  return sum;
}

int64_t MemoryPlan::bytes(std::string_view name) const {
  for (const Row& row : rows)
    if (row.name == name) return row.bytes;
  return 0;
}

double MemoryPlan::bytes_per_parameter() const {
  int64_t sum = bytes("weights") + bytes("gradients") + bytes("master") + bytes("moments");
  return static_cast<double>(sum) / static_cast<double>(std::max<int64_t>(1, parameters));
}

MemoryPlan plan_memory(const TrainOptions& o, bool validation) {
  MemoryPlan plan;
  plan.parameters = o.config.parameters();
  for (const ParameterInfo& info : parameter_list(o.config)) plan.trained += o.trained_elements(info);
  plan.rows = {{"weights", ParameterSet("", o.config, o.formats()).bytes()},
               {"gradients", gradient_bytes(o)},
               {"master", o.has_master() ? trained_bytes(o, o.master) : 0},
               {"moments", 2 * trained_bytes(o, o.moments)}};
  for (const auto& [name, bytes] : Pass::plan(o.config, o.pass_shape(), o.type, o.formats()))
    plan.rows.push_back({name, bytes});
  if (!o.heads.empty())
    plan.rows.push_back({"heads", Heads::bytes(o.config, o.pass_shape().lanes * o.pass_shape().segment, o.type)});
  int64_t aside = LaneMemory(o.config, o.pass_shape(), o.micro_batches(), o.type, o.fgm > 0).bytes();
  for (MemoryPlan::Row& row : plan.rows)
    if (row.name == "memory") row.bytes += aside;
  if (o.fgm > 0) plan.rows.push_back({"adversarial", AdversarialStep(o.config, o.type, 0).bytes()});
  if (validation) {
    int64_t bytes = 0;
    PassShape shape = o.validation_shape();
    for (const auto& row : Pass::plan(o.config, shape, o.type, o.formats())) bytes += row.second;
    bytes += Heads::bytes(o.config, shape.lanes * shape.segment, o.type);
    plan.rows.push_back({"validation", bytes});
  }
  return plan;
}

std::string MemoryPlan::table(const MemoryPlan* other, std::string_view other_title) const {
  std::string text = fmt::format("{:<12} {:>10} {:>7}", "arena", "bytes", "share");
  if (other) text += fmt::format(" {:>12}", other_title);
  text += '\n';
  auto line = [&](std::string_view name, int64_t bytes, int64_t beside) {
    text += fmt::format("{:<12} {:>10} {:>7}", name, human_bytes(static_cast<double>(bytes)), percent(bytes, total()));
    if (other) text += fmt::format(" {:>12}", human_bytes(static_cast<double>(beside)));
    text += '\n';
  };
  for (const Row& row : rows) line(row.name, row.bytes, other ? other->bytes(row.name) : 0);
  line("total", total(), other ? other->total() : 0);
  return text;
}

std::string flags_that_fit(const TrainOptions& options, bool validation, int64_t limit) {
  struct Types {
    Dtype type, master, moments;
  };
  const Types types[] = {{options.type, options.master, options.moments},
                         {Dtype::bf16, options.master, options.moments},
                         {Dtype::bf16, options.master, Dtype::bf16},
                         {Dtype::bf16, Dtype::bf16, Dtype::bf16}};
  // From what changes least to what changes most: the micro-batch leaves the numbers alone, recomputation costs time,
  // narrower types cost digits.
  for (const Types& t : types) {
    for (bool recompute : {false, true}) {
      if (options.recompute && !recompute) continue;
      for (int64_t micro = options.micro_batch; micro >= 1; --micro) {
        if (options.lanes % micro) continue;
        TrainOptions changed = options;
        changed.type = t.type, changed.master = t.master, changed.moments = t.moments;
        changed.recompute = recompute, changed.micro_batch = micro;
        if (plan_memory(changed, validation).total() > limit) continue;
        std::string flags;
        if (t.type != options.type) flags += " --dtype bf16";
        if (t.moments != options.moments) flags += " --moments bf16";
        if (t.master != options.master) flags += " --master bf16";
        if (recompute && !options.recompute) flags += " --recompute";
        if (micro != options.micro_batch) flags += fmt::format(" --micro-batch {}", micro);
        return flags.empty() ? flags : flags.substr(1);
      }
    }
  }
  return "";
}

std::string human_bytes(double bytes) {
  const char* units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  int unit = 0;
  while (std::abs(bytes) >= 999.5 && unit < 5) bytes /= 1000, ++unit;
  return unit == 0 ? fmt::format("{:.0f} B", bytes)
                   : fmt::format("{:.{}f} {}", bytes, bytes < 99.95 ? 1 : 0, units[unit]);
}

}  // namespace longhand
