#include "longhand/generate.h"

namespace longhand {

static std::string bytes_of(const SafetensorsFile& file, const std::string& name) {
  if (!file.has(name)) return {};
  ConstTensor bytes = file.tensor(name);
  if (bytes.type() != Dtype::u8) fail("{}: {} holds {}, not bytes", file.path(), name, dtype_name(bytes.type()));
  return {static_cast<const char*>(bytes.data()), static_cast<size_t>(bytes.bytes())};
}

LoadedModel load_model(Device& device, const std::string& path, Dtype type) {
  SafetensorsFile file(path);
  if (!file.has("embedding.weight"))
    fail("{} holds no model: it has no tensor embedding.weight (longhand info {} shows what it is)", path, path);
  ModelConfig config = read_config(file);
  LoadedModel model{config, ParameterSet("weights", config, read_formats(file, config, type)), {}, {}};
  model.weights.commit(device);
  load_parameters(device, model.weights, file);
  model.tokenizer = bytes_of(file, "tokenizer.model"), model.words = bytes_of(file, "tokenizer.words");
  return model;
}

}  // namespace longhand
