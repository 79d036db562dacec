// Samples during training: what the model writes so far.
#pragma once

#include <string>
#include <string_view>

#include "longhand/train.h"

namespace longhand::cli {

/// `length` tokens after the prompt, as text where there is a tokenizer, otherwise as ids. An empty prompt stands for
/// the end of a document (id 0 without a tokenizer).
std::string sample_text(Device& device, const Trainer& trainer, std::string_view tokenizer, const std::string& prompt,
                        int64_t length);

}  // namespace longhand::cli
