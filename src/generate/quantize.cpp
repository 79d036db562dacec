#include "longhand/quantize.h"

#include <cmath>
#include <nlohmann/json.hpp>

namespace longhand {
namespace {

constexpr const char* names[] = {"fp32", "bf16", "fp16", "int8", "int4"};
constexpr float largest_fp16 = 65504;

MatrixFormat format_of(WeightType type, bool grouped, const Shape& shape) {
  grouped = grouped && shape[1] % 64 == 0;
  switch (type) {
    case WeightType::fp32:
      return {Dtype::fp32};
    case WeightType::bf16:
      return {Dtype::bf16};
    case WeightType::fp16:
      return {Dtype::fp16};
    case WeightType::int4:
      if (shape[1] % 2 == 0) return {Dtype::u8, grouped};
      return {Dtype::i8, grouped};
    default:
      return {Dtype::i8, grouped};
  }
}

void check_values(const std::vector<float>& values, Dtype type, const std::string& where) {
  float limit = type == Dtype::fp16 ? largest_fp16 : std::numeric_limits<float>::max();
  for (size_t i = 0; i < values.size(); ++i)
    if (!(std::abs(values[i]) <= limit))
      fail("{} has {} at {}: {}", where, values[i], i,
           std::isfinite(values[i]) ? "more than fp16 can hold, take bf16" : "weights are to be finite");
}

SafetensorsFile open_floats(const std::string& path) {
  SafetensorsFile file(path);
  if (!file.has("embedding.weight"))
    fail("{} holds no model: it has no tensor embedding.weight (longhand info {} shows what it is)", path, path);
  if (file.metadata().contains("longhand.quantization"))
    fail("{} is quantised already: start from the weights that it was made from", path);
  if (read_config(file).lora_rank > 0)
    fail("{} has low-rank updates beside its weights: merge them first (longhand merge)", path);
  file.verify();
  return file;
}

}  // namespace

const char* weight_type_name(WeightType type) { return names[static_cast<int>(type)]; }

WeightType parse_weight_type(std::string_view name, std::string_view flag) {
  for (int i = 0; i < 5; ++i)
    if (name == names[i]) return static_cast<WeightType>(i);
  fail_usage("{} {}: it takes fp32, bf16, fp16, int8 or int4", flag, name);
}

QuantizeOptions QuantizeOptions::of(WeightType type) {
  bool four = type == WeightType::int4;
  WeightType rest = four ? WeightType::int8 : type;
  return {.type = type, .grouped = four, .embedding = rest, .output = rest};
}

std::string QuantizeOptions::json() const {
  nlohmann::ordered_json all = {{"type", weight_type_name(type)},
                                {"group", grouped ? "64" : "row"},
                                {"embedding", weight_type_name(embedding)},
                                {"output_layer", weight_type_name(output)}};
  if (!calibration.empty()) all["calibration_tokens"] = calibration.size();
  return all.dump();
}

WeightFormats quantized_formats(const ModelConfig& config, const QuantizeOptions& options, Dtype type) {
  WeightFormats formats{type, {}};
  for (const ParameterInfo& info : parameter_list(config)) {
    bool small = is_lora(info.name) || is_adapter(info.name) || !head_of(info.name).empty();
    if (!info.matrix || small) continue;
    bool embedding = info.name == "embedding.weight", output = info.name.starts_with("output.");
    WeightType wanted = embedding ? options.embedding : output ? options.output : options.type;
    formats.matrices[info.name] = format_of(wanted, options.grouped, info.shape);
  }
  if (config.cutoffs.empty() && options.embedding != options.output)
    formats.matrices["output.weight"] = format_of(options.output, options.grouped, {config.vocab_size, config.d_model});
  return formats;
}

std::vector<MatrixFit> quantize_model(Device& device, const std::string& input, const std::string& output,
                                      const QuantizeOptions& options) {
  SafetensorsFile file = open_floats(input);
  ModelConfig config = read_config(file);
  bool calibrated = !options.calibration.empty();
  Dtype type =
      file.tensor("layers.0.attention.norm.weight").type() == Dtype::bf16 && !calibrated ? Dtype::bf16 : Dtype::fp32;
  WeightFormats formats = quantized_formats(config, options, type);
  ParameterSet set("weights", config, formats);
  auto read = [&](const ParameterInfo& info) {
    std::string name = file.has(info.name) ? info.name : "embedding.weight";  // an output layer of its own
    if (name != info.name && info.name != "output.weight") file.tensor(info.name);
    std::vector<float> values = read_floats(file, name);
    std::string where = fmt::format("{}: tensor {}", input, name);
    if (file.tensor(name).shape() != info.shape)
      fail("{} is {}, the model's configuration needs {}", where, file.tensor(name).shape().text(), info.shape.text());
    check_values(values, set.format(info).type, where);
    return values;
  };
  WeightValues values;
  std::vector<MatrixFit> fits;
  if (calibrated) {
    for (const ParameterInfo& info : set.list()) values[info.name] = read(info);
    fits = calibrate(device, config, formats, options.calibration, values);
  }
  set.commit(device);
  for (size_t i = 0; i < set.list().size(); ++i) {
    const ParameterInfo& info = set.list()[i];
    store_parameter(device, set, i, calibrated ? values.at(info.name) : read(info));
  }
  std::vector<std::vector<char>> storage;
  std::vector<NamedTensor> tensors = host_tensors(device, set, "", storage);
  for (const char* name : {"tokenizer.model", "tokenizer.words"})
    if (file.has(name)) tensors.push_back({name, file.tensor(name)});
  std::map<std::string, std::string> metadata = {
      {"longhand.kind", "weights"}, {"longhand.config", config.json()}, {"longhand.quantization", options.json()}};
  // Factors stand between the weights of a fitted file and adapters made for the ones that it came from.
  std::string base = (calibrated ? "calibrated " : "") + base_checksum(file);
  if (!base.empty()) metadata["longhand.base"] = base;
  write_safetensors(output, tensors, metadata);
  return fits;
}

}  // namespace longhand
