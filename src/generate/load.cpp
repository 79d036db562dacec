#include <algorithm>

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
static void apply_lora(Device& device, const SafetensorsFile& file, LoadedModel& model) {
  ModelConfig config = read_config(file);
  if (config.lora_rank == 0) return;
  ParameterSet updates("adapter", config, Dtype::fp32, is_lora);
  updates.commit(device);
  load_parameters(device, updates, file);
  merge_lora(device, config, model.weights, updates);
}

// The heads that an adapter brings, beside those of the model.
static void add_heads(ModelConfig& config, const ModelConfig& made_with, const std::string& path) {
  for (const HeadConfig& head : made_with.heads) {
    auto same = [&](const HeadConfig& known) { return known.name == head.name; };
    auto known = std::find_if(config.heads.begin(), config.heads.end(), same);
    if (known == config.heads.end())
      config.heads.push_back(head);
    else if (*known != head)
      fail("{}: its head {} is another than the model's", path, head.name);
  }
}

// What an adapter's file has to fit.
struct Base {
  std::string path, checksum;  // LoadedModel::base
  bool quantized;
  ModelConfig config;
};

// The configuration that an adapter's file was made with; fails where that was for another base.
static ModelConfig check_adapter(const SafetensorsFile& file, const Base& base) {
  file.verify();
  auto kind = file.metadata().find("longhand.kind");
  if (kind == file.metadata().end() || kind->second != "adapter")
    fail("{} is no adapter file: `longhand finetune --lora` or `--adapters` makes one", file.path());
  ModelConfig made_with = read_config(file);
  // Updates of layers hold beside rows for new words too (longhand/vocabulary.h).
  if (!file.has("embedding.weight") && !file.has("output.bias")) made_with.vocab_size = base.config.vocab_size;
  if (made_with.plain() != base.config.plain())
    fail("{} was made for a model of another configuration than {}", file.path(), base.path);
  auto made_for = file.metadata().find("longhand.base");
  bool unknown = base.quantized && base.checksum.empty();
  if (made_for != file.metadata().end() && made_for->second != base.checksum && !unknown)
    fail("{} was made for other weights than those of {}", file.path(), base.path);
  return made_with;
}

// An adapter file to be merged. The bottleneck adapters that it may bring join the configuration.
static SafetensorsFile open_adapter(const std::string& path, const Base& base, ModelConfig& config,
                                    std::string& bottleneck) {
  SafetensorsFile file(path);
  ModelConfig made_with = check_adapter(file, base);
  if (made_with.lora_rank > 0 && base.quantized)
    fail("{} is quantised: merge {} into the weights that it was made from (longhand merge), then quantise", base.path,
         path);
  add_heads(config, made_with, path);
  if (made_with.adapter_width == 0) return file;
  if (!bottleneck.empty())
    fail("{} and {} both hold bottleneck adapters, and a part of a layer has one: give one of them", bottleneck, path);
  bool alike = made_with.adapter_width == config.adapter_width && made_with.adapter_sites == config.adapter_sites;
  if (config.adapter_width > 0 && !alike)
    fail("{} holds adapters of another form than those in {}: give it beside the weights without them", path,
         base.path);
  bottleneck = path;
  config.adapter_width = made_with.adapter_width, config.adapter_sites = made_with.adapter_sites;
  return file;
}

// Puts the tensors of an adapter's file that take the place of the model's there.
static void replace_weights(Device& device, const SafetensorsFile& file, LoadedModel& model) {
  for (size_t i = 0; i < model.weights.list().size(); ++i) {
    const ParameterInfo& info = model.weights.list()[i];
    if (!file.has(info.name)) continue;
    if (Shape shape = file.tensor(info.name).shape(); shape != info.shape)
      fail("{}: tensor {} is {}, the model's configuration needs {}", file.path(), info.name, shape.text(),
           info.shape.text());
    store_parameter(device, model.weights, i, read_floats(file, info.name));
  }
}

static void merge_adapter(Device& device, const SafetensorsFile& file, LoadedModel& model) {
  replace_weights(device, file, model);
  apply_lora(device, file, model);
  model.checksum += "+" + checksum_of(file);
}

static Base base_of(const LoadedModel& model) { return {model.path, model.base, model.quantized, model.config}; }

// The first tensor of an adapter's file that takes the place of one of the model's, but for heads, which write nothing.
static const ParameterInfo* replaced(const SafetensorsFile& file, const LoadedModel& model) {
  for (const ParameterInfo& info : model.weights.list())
    if (file.has(info.name) && !info.name.starts_with("head.")) return &info;
  return nullptr;
}

// What the file adds to the model's weights. The factor alpha / rank goes into B.
static Adapter adapter_of(Device& device, const SafetensorsFile& file, const ModelConfig& config,
                          const LoadedModel& model) {
  auto wanted = [own = model.weights.list()](const std::string& name) {
    bool there = std::any_of(own.begin(), own.end(), [&](const ParameterInfo& info) { return info.name == name; });
    return is_lora(name) || (is_adapter(name) && !there);
  };
  Adapter adapter{config, ParameterSet("adapter", config, model.weights.type(), wanted), checksum_of(file)};
  ParameterSet wide("adapter", config, Dtype::fp32, wanted);
  adapter.added.commit(device), wide.commit(device);
  load_parameters(device, wide, file);
  float factor = config.lora_rank > 0 ? config.lora_alpha / static_cast<float>(config.lora_rank) : 1;
  for (size_t i = 0; i < wide.list().size(); ++i) {
    if (wide.tensors()[i].empty()) continue;
    std::vector<float> values(wide.tensors()[i].elements());
    device.download(values.data(), wide.tensors()[i]);
    if (wide.list()[i].name.ends_with("lora_b"))
      for (float& value : values) value *= factor;
    store_parameter(device, adapter.added, i, values);
  }
  return adapter;
}

Adapter load_adapter(Device& device, const std::string& path, const LoadedModel& model) {
  SafetensorsFile file(path);
  ModelConfig config = check_adapter(file, base_of(model));
  if (const ParameterInfo* info = replaced(file, model))
    fail("{} has a {} of its own, so it cannot share the weights of {} with others: merge it (longhand merge)", path,
         info->name, model.path);
  return adapter_of(device, file, config, model);
}

void add_adapter(Device& device, const std::string& path, LoadedModel& model) {
  SafetensorsFile file(path);
  ModelConfig config = check_adapter(file, base_of(model));
  replace_weights(device, file, model);
  model.adapters.push_back(adapter_of(device, file, config, model));
  model.checksum += "+" + model.adapters.back().checksum;
}

LoadedModel load_model(Device& device, const std::string& path, Dtype type, const std::vector<std::string>& adapters) {
  SafetensorsFile file(path);
  if (!file.has("embedding.weight"))
    fail("{} holds no model: it has no tensor embedding.weight (longhand info {} shows what it is)", path, path);
  ModelConfig config = read_config(file).without_lora();
  Base base{path, base_checksum(file), file.metadata().contains("longhand.quantization"), config};
  std::vector<SafetensorsFile> files;
  std::string bottleneck;  // the file that brings adapters
  for (const std::string& adapter : adapters) files.push_back(open_adapter(adapter, base, config, bottleneck));
  LoadedModel model{.config = config,
                    .weights = ParameterSet("weights", config, read_formats(file, config, type)),
                    .checksum = checksum_of(file),
                    .path = path,
                    .base = base.checksum,
                    .quantized = base.quantized};
  model.weights.commit(device);
  load_parameters(device, model.weights, file);
  apply_lora(device, file, model);  // of a checkpoint of low-rank training
  for (const SafetensorsFile& adapter : files) merge_adapter(device, adapter, model);
  model.tokenizer = bytes_of(file, "tokenizer.model"), model.words = bytes_of(file, "tokenizer.words");
  return model;
}

}  // namespace longhand
