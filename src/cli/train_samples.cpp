#include "src/cli/train_samples.h"

#include <optional>

#include "longhand/generate.h"
#include "longhand/text.h"

namespace longhand::cli {

std::string sample_text(Device& device, const Trainer& trainer, std::string_view model, const std::string& prompt,
                        int64_t length) {
  std::optional<Tokenizer> tokenizer;
  if (!model.empty()) tokenizer.emplace(model);
  WrittenText text;
  if (tokenizer) text.tokens = tokenizer->encode(prompt);
  if (text.tokens.empty()) text.tokens = {tokenizer ? tokenizer->end_of_document() : 0};
  text.rules.temperature = 0.8f, text.rules.top_p = 0.95f;
  text.rules.stream = {
      .seed = trainer.options().seed, .step = static_cast<uint64_t>(trainer.steps_done()), .use = RandomUse::sampling};

  ModelConfig config = trainer.options().config;
  std::optional<ParameterSet> merged;
  if (config.lora_rank > 0) {
    config = config.without_lora();
    merged.emplace("merged", config, trainer.weights().type());
    merged->commit(device);
    for (size_t i = 0; i < merged->list().size(); ++i)
      device.copy(merged->tensors()[i], trainer.weights().tensor(merged->list()[i].name));
    merge_lora(device, trainer.options().config, *merged, trainer.weights());
  }
  Decoder decoder(device, config, merged ? *merged : trainer.weights(), {});
  Writer writer(device, decoder);
  WrittenText* const texts[] = {&text};
  for (int64_t i = 0; i < length; ++i) writer.next(texts);
  if (tokenizer) return tokenizer->decode(text.tokens);
  std::string ids;
  for (int32_t token : text.tokens) ids += fmt::format("{} ", token);
  return ids;
}

}  // namespace longhand::cli
