// longhand import: a Hugging Face checkpoint becomes a weight file.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "longhand/interchange.h"
#include "src/cli/command.h"

namespace longhand::cli {

void add_import(CLI::App& app, Common& common) {
  struct Flags {
    std::string source, output;
    ImportOptions options;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(app, common, "import", "Read a Hugging Face Transfo-XL or XLNet (uni) checkpoint");
  command->add_option("SOURCE", flags->source, "folder with config.json and model.safetensors")->required();
  command->add_option("--output", flags->output, "weight file to write")->required();
  command->add_option("--mem-len", flags->options.mem_len, "memory length, in place of the checkpoint's")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--segments", flags->options.segments, "keep XLNet's segment term");
  command->callback([&common, flags] {
    common.run = [&common, flags] {
      ImportReport report = import_checkpoint(flags->source, flags->output, flags->options);
      if (common.json) {
        nlohmann::ordered_json line = {{"output", flags->output},
                                       {"format", report.format},
                                       {"parameters", report.config.parameters()},
                                       {"left_out", report.left_out},
                                       {"config", nlohmann::ordered_json::parse(report.config.json())}};
        fmt::print("{}\n", line.dump());
        return;
      }
      fmt::print("{}: {} with {} parameters from {}\n", flags->output, report.format, report.config.parameters(),
                 flags->source);
      if (!report.left_out.empty()) fmt::print("left out: {}\n", fmt::join(report.left_out, ", "));
    };
  });
}

}  // namespace longhand::cli
