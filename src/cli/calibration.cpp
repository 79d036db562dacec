#include "src/cli/calibration.h"

#include "longhand/calibrate.h"
#include "longhand/text.h"
#include "src/cli/options.h"

namespace longhand::cli {

std::vector<int32_t> calibration_tokens(const TokenStream& stream) {
  int64_t length = std::min(calibration_length, stream.size());
  int64_t count = length > 0 ? std::min(calibration_stretches, stream.size() / length) : 0;
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) {
    int64_t first = count > 1 ? i * (stream.size() - length) / (count - 1) : 0;
    for (int64_t t = 0; t < length; ++t) tokens.push_back(stream.at(first + t));
  }
  return tokens;
}

std::vector<int32_t> read_calibration(const std::string& path, const std::string& model) {
  SafetensorsFile file(model);
  ModelConfig config = read_config(file);
  std::string tokenizer;
  if (file.has("tokenizer.model")) {
    ConstTensor bytes = file.tensor("tokenizer.model");
    tokenizer.assign(static_cast<const char*>(bytes.data()), bytes.bytes());
  }
  if (path.ends_with(".safetensors")) {
    TokenFile data(path);
    bool other = !tokenizer.empty() && !data.tokenizer_model().empty() && tokenizer != data.tokenizer_model();
    if (other || data.vocab_size() > config.vocab_size)
      fail("{} was made with another vocabulary than {}", path, model);
    return calibration_tokens(data.train());
  }
  std::string text = read_text(path);
  return tokenizer.empty() ? parse_ids(text, config.vocab_size) : Tokenizer(tokenizer).encode(text);
}

}  // namespace longhand::cli
