// longhand plan: the memory of a training run, arena by arena, before it is taken.
#include <cstdio>
#include <nlohmann/json.hpp>

#include "src/cli/train_flags.h"

namespace longhand::cli {
namespace {

struct Plan {
  TrainFlags flags;
  std::string init;
  double memory_gb = 0;

  void declare(CLI::App& command) {
    command.add_option("--init,--model", init, "weights file whose configuration is planned")->type_name("FILE")->group("Run");
    command.add_option("--memory-gb", memory_gb, "memory that it must fit into (default: the device's)")
        ->default_str("")
        ->type_name("NUMBER")
        ->group("Run");
    flags.declare(command), flags.declare_finetuning(command);
  }

  void operator()(const CLI::App& command, const Common& common) const {
    TrainOptions options = flags.options(command, common, init, "");
    options.resolve(0);
    int64_t limit = memory_gb > 0 ? static_cast<int64_t>(memory_gb * 1e9) : common.make()->memory_bytes();
    TrainOptions wide = options;
    wide.type = wide.master = wide.moments = Dtype::fp32, wide.base.clear(), wide.held.clear();
    MemoryPlan plan = plan_memory(options, true), all_fp32 = plan_memory(wide, true);
    std::string fitting = plan.total() > limit ? flags_that_fit(options, true, limit) : "";
    common.json ? print_json(options, plan, all_fp32, limit, fitting)
                : print_table(options, plan, all_fp32, limit, fitting);
  }

  static void print_table(const TrainOptions& o, const MemoryPlan& plan, const MemoryPlan& all_fp32, int64_t limit,
                          const std::string& fitting) {
    auto human = [](int64_t bytes) { return human_bytes(static_cast<double>(bytes)); };
    fmt::print("{} parameters; {} x {} tokens at a time of {} sequences, memory {}; {}, master {}, moments {}{}{}\n\n",
               plan.parameters, o.micro_batch, o.segment, o.lanes, o.config.mem_len, dtype_name(o.type),
               dtype_name(o.master), dtype_name(o.moments), o.base.empty() ? "" : fmt::format(", what does not train {}", o.base),
               o.recompute ? ", recomputed" : "");
    fmt::print("{}", plan.table(&all_fp32, "all fp32"));
    fmt::print("\nbytes a parameter: {:.1f}, all fp32 {:.1f}; the whole is {:.1f}% below all fp32\n",
               plan.bytes_per_parameter(), all_fp32.bytes_per_parameter(),
               100 * (1 - static_cast<double>(plan.total()) / static_cast<double>(all_fp32.total())));
    if (plan.total() <= limit)
      fmt::print("it fits into {}, {} stay free\n", human(limit), human(limit - plan.total()));
    else if (!fitting.empty())
      fmt::print("it does not fit into {}; it does with {}\n", human(limit), fitting);
    else
      fmt::print("it does not fit into {}, whatever the types, recomputation and micro-batch\n", human(limit));
  }

  static void print_json(const TrainOptions& o, const MemoryPlan& plan, const MemoryPlan& all_fp32, int64_t limit,
                         const std::string& fitting) {
    nlohmann::ordered_json json;
    json["parameters"] = plan.parameters;
    for (const MemoryPlan::Row& row : plan.rows) json["arenas"][row.name] = row.bytes;
    json["total"] = plan.total();
    for (const MemoryPlan::Row& row : all_fp32.rows) json["all_fp32"]["arenas"][row.name] = row.bytes;
    json["all_fp32"]["total"] = all_fp32.total();
    json["bytes_per_parameter"] = plan.bytes_per_parameter();
    json["memory"] = limit;
    json["fits"] = plan.total() <= limit;
    json["fits_with"] = fitting;
    json["flags"] = nlohmann::ordered_json::parse(o.json());
    fmt::print("{}\n", json.dump());
  }
};

}  // namespace

void add_plan(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "plan", "count the memory of a training run, arena by arena");
  auto plan = std::make_shared<Plan>();
  plan->declare(*command);
  command->callback([command, plan, &common] { common.run = [command, plan, &common] { (*plan)(*command, common); }; });
}

}  // namespace longhand::cli
