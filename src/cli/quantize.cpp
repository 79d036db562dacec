// longhand quantize: weights of fewer bits.
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "longhand/quantize.h"
#include "src/cli/calibration.h"
#include "src/cli/command.h"

namespace longhand::cli {
namespace {

struct QuantizeFlags {
  std::string model, output, type = "int8", group, embedding, output_layer, calibrate;
};

QuantizeOptions options_of(const QuantizeFlags& flags) {
  WeightType type = parse_weight_type(flags.type, "--type");
  QuantizeOptions options = QuantizeOptions::of(type);
  bool integers = type == WeightType::int8 || type == WeightType::int4;
  if (!flags.group.empty()) {
    if (flags.group != "row" && flags.group != "64") fail_usage("--group {}: it takes row or 64", flags.group);
    if (!integers) fail_usage("--group {}: weights of {} have no scales", flags.group, flags.type);
    options.grouped = flags.group == "64";
  }
  if (!flags.calibrate.empty() && !integers) fail_usage("--calibrate: weights of {} are not rounded", flags.type);
  if (!flags.embedding.empty()) options.embedding = parse_weight_type(flags.embedding, "--embedding");
  if (!flags.output_layer.empty()) options.output = parse_weight_type(flags.output_layer, "--output-layer");
  return options;
}

nlohmann::ordered_json json_of(const MatrixFit& fit) {
  return {{"name", fit.name},
          {"exponent", fit.exponent},
          {"error_before", fit.error_before},
          {"error_after", fit.error_after}};
}

void print_fits(const std::vector<MatrixFit>& fits) {
  fmt::print("{:<36} {:>8} {:>12} {:>12}\n", "error of a matrix's products", "exponent", "before", "after");
  for (const MatrixFit& fit : fits)
    fmt::print("{:<36} {:>8.2f} {:>11.3f}% {:>11.3f}%\n", fit.name, fit.exponent, 100 * fit.error_before,
               100 * fit.error_after);
}

void run_quantize(const QuantizeFlags& flags, const Common& common) {
  QuantizeOptions options = options_of(flags);
  if (!flags.calibrate.empty()) options.calibration = read_calibration(flags.calibrate, flags.model);
  auto device = common.make();
  int64_t before = 0;
  if (std::error_code error; std::filesystem::exists(flags.model, error))
    before = static_cast<int64_t>(std::filesystem::file_size(flags.model));
  std::vector<MatrixFit> fits = quantize_model(*device, flags.model, flags.output, options);
  int64_t after = static_cast<int64_t>(std::filesystem::file_size(flags.output));
  if (common.json) {
    nlohmann::ordered_json line = {{"output", flags.output}, {"bytes", after}, {"bytes_before", before}};
    line["quantization"] = nlohmann::ordered_json::parse(options.json());
    for (const MatrixFit& fit : fits) line["calibration"].push_back(json_of(fit));
    return fmt::print("{}\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
  }
  if (!fits.empty()) print_fits(fits);
  fmt::print("{}: {} bytes ({} had {}); matrices {}{}, embedding {}, output layer {}\n", flags.output, after,
             flags.model, before, weight_type_name(options.type),
             options.type < WeightType::int8 ? ""
             : options.grouped               ? " with a scale for every 64"
                                             : " with a scale a row",
             weight_type_name(options.embedding), weight_type_name(options.output));
}

}  // namespace

void add_quantize(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "quantize", "write a model's weights in fewer bits");
  auto flags = std::make_shared<QuantizeFlags>();
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type) {
    return command->add_option(name, value, meaning)->type_name(type);
  };
  add("--model", flags->model, "weight file or checkpoint", "FILE")->required();
  add("--output", flags->output, "the file to write", "FILE")->required();
  add("--type", flags->type, "of the layers' matrices: int8, int4, fp16, bf16 or fp32", "TYPE");
  add("--group", flags->group, "integers that share a scale: row, or 64 neighbours (default: row; int4: 64)", "N");
  add("--embedding", flags->embedding, "type of the embedding (default: as --type; with int4: int8)", "TYPE");
  add("--output-layer", flags->output_layer,
      "type of the output layer; another than the embedding's is a second matrix", "TYPE");
  add("--calibrate", flags->calibrate, "text, or token file (its training text), that int8 and int4 are fitted to",
      "FILE");
  command->callback([flags, &common] { common.run = [flags, &common] { run_quantize(*flags, common); }; });
}

}  // namespace longhand::cli
