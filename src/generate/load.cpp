#include "longhand/generate.h"

namespace longhand {

LoadedModel load_model(Device& device, const std::string& path, Dtype type) {
  SafetensorsFile file(path);
  if (!file.has("embedding.weight"))
    fail("{} holds no model: it has no tensor embedding.weight (longhand info {} shows what it is)", path, path);
  ModelConfig config = read_config(file);
  LoadedModel model{config, ParameterSet("weights", config, type), {}};
  model.weights.commit(device);
  load_parameters(device, model.weights, file);
  if (file.has("tokenizer.model")) {
    ConstTensor bytes = file.tensor("tokenizer.model");
    if (bytes.type() != Dtype::u8) fail("{}: tokenizer.model holds {}, not bytes", path, dtype_name(bytes.type()));
    model.tokenizer.assign(static_cast<const char*>(bytes.data()), bytes.bytes());
  }
  return model;
}

}  // namespace longhand
