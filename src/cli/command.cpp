#include "src/cli/command.h"

namespace longhand::cli {

CLI::App* add_command(CLI::App& app, Common& common, const std::string& name, const std::string& summary) {
  CLI::App* command = app.add_subcommand(name, summary);
  command->option_defaults()->always_capture_default();
  command->get_help_ptr()->group("Common");
  command->add_option("--config", common.config, "YAML file with flags' names as keys; flags given here win")
      ->type_name("FILE")
      ->group("Common");
  command->add_option("--device", common.device, "auto, cpu, cuda or simt")->type_name("NAME")->group("Common");
  command->add_option("--threads", common.threads, "threads of the cpu device, 0 = every core")
      ->type_name("N")
      ->group("Common");
  command->add_option("--seed", common.seed, "seed of all random numbers")->type_name("N")->group("Common");
  command->add_flag("--json", common.json, "results as JSON, one object a line")->group("Common");
  return command;
}

}  // namespace longhand::cli
