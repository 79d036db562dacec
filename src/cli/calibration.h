// What `quantize --calibrate` and `bench quantization --calibrate` read.
#pragma once

#include <string>
#include <vector>

#include "longhand/data.h"

namespace longhand::cli {

/// Stretches of a stream, evenly spaced, as many as calibration reads, one behind the other.
std::vector<int32_t> calibration_tokens(const TokenStream& stream);

/// The training text of a token file (.safetensors), or a text by the model's tokenizer; without one, a text of ids.
std::vector<int32_t> read_calibration(const std::string& path, const std::string& model);

}  // namespace longhand::cli
