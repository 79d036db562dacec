// longhand export: a weight file becomes a Hugging Face checkpoint.
#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "longhand/interchange.h"
#include "src/cli/command.h"

namespace longhand::cli {

void add_export(CLI::App& app, Common& common) {
  struct Flags {
    std::string model, output, format = "auto";
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = add_command(app, common, "export", "Write a model as a Hugging Face checkpoint");
  command->add_option("--model", flags->model, "weight file or checkpoint")->required();
  command->add_option("--output", flags->output, "folder for config.json and model.safetensors")->required();
  command->add_option("--format", flags->format, "transfo-xl, xlnet, or auto: the one that can express the model")
      ->capture_default_str();
  command->callback([&common, flags] {
    common.run = [&common, flags] {
      std::string format = export_checkpoint(flags->model, flags->output, flags->format);
      if (common.json)
        fmt::print("{}\n", nlohmann::json{{"output", flags->output}, {"format", format}}.dump());
      else
        fmt::print("{}: written as {}\n", flags->output, format);
    };
  });
}

}  // namespace longhand::cli
