#include "longhand/generate.h"

namespace longhand {

static std::string bytes_of(const SafetensorsFile& file, const std::string& name) {
  if (!file.has(name)) return {};
  ConstTensor bytes = file.tensor(name);
  if (bytes.type() != Dtype::u8) fail("{}: {} holds {}, not bytes", file.path(), name, dtype_name(bytes.type()));
  return {static_cast<const char*>(bytes.data()), static_cast<size_t>(bytes.bytes())};
}

// The file's checksums of its tensors, taken together.
static std::string checksum_of(const SafetensorsFile& file) {
  std::string all;
  for (const auto& [key, value] : file.metadata())
    if (key.starts_with("checksum.")) all += key + value;
  return all.empty() ? all : fmt::format("{:08x}", crc32c(all.data(), static_cast<int64_t>(all.size())));
}

// The updates of a file into the weights.
static void apply(Device& device, const SafetensorsFile& file, LoadedModel& model) {
  ModelConfig config = read_config(file);
  ParameterSet updates("adapter", config, Dtype::fp32, is_lora);
  updates.commit(device);
  load_parameters(device, updates, file);
  merge_lora(device, config, model.weights, updates);
}

static void apply_adapter(Device& device, const std::string& path, const SafetensorsFile& base, LoadedModel& model) {
  SafetensorsFile file(path);
  file.verify();
  auto kind = file.metadata().find("longhand.kind");
  if (kind == file.metadata().end() || kind->second != "adapter")
    fail("{} is no adapter file: `longhand finetune --lora` makes one", path);
  ModelConfig config = read_config(file);
  config.lora_rank = 0, config.lora_alpha = ModelConfig().lora_alpha, config.lora_sites.clear();
  if (config != model.config) fail("{} was made for a model of another configuration than {}", path, base.path());
  auto made_for = file.metadata().find("longhand.base");
  if (made_for != file.metadata().end() && made_for->second != base_checksum(base))
    fail("{} was made for other weights than those of {}", path, base.path());
  for (size_t i = 0; i < model.weights.list().size(); ++i)
    if (const std::string& name = model.weights.list()[i].name; file.has(name)) {
      ParameterSet one("adapter", config, model.weights.type(), [&](const std::string& n) { return n == name; });
      one.commit(device);
      load_parameters(device, one, file);
      device.copy(model.weights.tensors()[i], one.tensors()[i]);
    }
  apply(device, file, model);
  model.checksum += "+" + checksum_of(file);
}

LoadedModel load_model(Device& device, const std::string& path, Dtype type, const std::vector<std::string>& adapters) {
  SafetensorsFile file(path);
  if (!file.has("embedding.weight"))
    fail("{} holds no model: it has no tensor embedding.weight (longhand info {} shows what it is)", path, path);
  ModelConfig config = read_config(file);
  bool updated = config.lora_rank > 0;  // a checkpoint of low-rank training
  config.lora_rank = 0, config.lora_alpha = ModelConfig().lora_alpha, config.lora_sites.clear();
  if (!adapters.empty() && file.metadata().contains("longhand.quantization"))
    fail("{} is quantised: merge {} into the weights that it was made from (longhand merge), then quantise", path,
         adapters[0]);
  LoadedModel model{config, ParameterSet("weights", config, read_formats(file, config, type)), {}, {}, {}};
  model.weights.commit(device);
  load_parameters(device, model.weights, file);
  if (updated) apply(device, file, model);
  model.checksum = checksum_of(file);
  for (const std::string& adapter : adapters) apply_adapter(device, adapter, file, model);
  model.tokenizer = bytes_of(file, "tokenizer.model"), model.words = bytes_of(file, "tokenizer.words");
  return model;
}

}  // namespace longhand
