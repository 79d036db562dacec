// Weights of fewer bits: which matrix is held how, and weight files written so (docs/QUANTISATION.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/calibrate.h"

namespace longhand {

enum class WeightType : uint8_t { fp32, bf16, fp16, int8, int4 };

const char* weight_type_name(WeightType type);
/// Fails with the names there are; `flag` is what the user wrote it for.
WeightType parse_weight_type(std::string_view name, std::string_view flag);

struct QuantizeOptions {
  WeightType type = WeightType::int8;  // of the layers' matrices
  bool grouped = false;                // integers: a scale for every 64 neighbours, not one a row
  WeightType embedding = WeightType::int8, output = WeightType::int8;
  std::vector<int32_t> calibration;  // a text that integers are fitted to (calibrate.h), if any

  /// All matrices of one type, as the command has it when nothing else is asked for: int8 with a scale a row; int4 in
  /// groups, with an embedding and an output layer of int8.
  static QuantizeOptions of(WeightType type);
  std::string json() const;  // what a file's metadata say, `longhand.quantization`
};

/// Where a matrix is too narrow: without multiples of 64 groups become rows; an odd width of int4 becomes int8. An
/// embedding and an output layer of one type are one matrix (but for an adaptive softmax). Everything that is no matrix
/// is held as `type`.
WeightFormats quantized_formats(const ModelConfig& config, const QuantizeOptions& options, Dtype type);

/// Writes the model of a weight file or checkpoint with its matrices so held; configuration and tokenizer go along.
/// With a text to calibrate on everything that is no matrix is written in fp32, and what came of it is returned.
/// Fails, before anything is written, when the file holds no model or a quantised one, or a weight that is not finite
/// or that fp16 cannot hold.
std::vector<MatrixFit> quantize_model(Device& device, const std::string& input, const std::string& output,
                                      const QuantizeOptions& options);

}  // namespace longhand
