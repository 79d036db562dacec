// Flags that several commands share: which model, which text, how to draw.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "longhand/generate.h"
#include "longhand/text.h"
#include "src/cli/command.h"

namespace longhand::cli {

struct ModelFlags {
  std::string path, dtype = "fp32", activations = "floats";
  std::vector<std::string> adapters;
};
void add_weight_flags(CLI::App& command, ModelFlags& flags);  // but for --adapter
void add_model_flags(CLI::App& command, ModelFlags& flags);

/// A model with its tokenizer, where the file has one.
struct OpenModel {
  std::string path;
  LoadedModel model;
  std::optional<Tokenizer> tokenizer;
};
/// What becomes of --adapter: added to the weights, or held beside them, as the server does, so that texts are the
/// same.
enum class AdapterUse : uint8_t { merged, beside };
/// Without a path the weights that come with the program: weights/tiny.safetensors beside the program, in its parent
/// folder or in the current one.
OpenModel open_model(Device& device, const ModelFlags& flags, AdapterUse use = AdapterUse::merged);

Dtype parse_dtype(const std::string& name);  // fp32 | bf16
/// --activations floats | int8: with int8, products with the int8 weights round them; fails where `whose` has none.
void apply_activations(const std::string& activations, ParameterSet& weights, const std::string& whose);

/// The text of a file, "-" = standard input; checked to be UTF-8.
std::string read_text(const std::string& path);
/// Fails with the byte at which `text` stops being UTF-8.
void check_utf8(const std::string& text, const std::string& where);

/// "1,2,3" or "1 2 3": token ids, each below `vocab_size`.
std::vector<int32_t> parse_ids(const std::string& text, int64_t vocab_size);

struct SamplingFlags {
  double temperature = 0.8, top_p = 0.95, min_p = 0, repetition_penalty = 1;
  int32_t top_k = 0;
  std::vector<std::string> stop;
  int64_t tokens = 256, window = 0, speculate = 0;
  bool ignore_end = false;

  SamplingParameters rules(uint64_t seed, uint64_t sample) const;  // checked
};
void add_sampling_flags(CLI::App& command, SamplingFlags& flags);
/// --speculate, of a command that writes; checked by speculation().
void add_speculate_flag(CLI::App& command, int64_t& speculate, const char* group);
Speculation speculation(int64_t speculate);

/// What a decoder holds its keys in, and which of them a token attends to.
struct DecoderFlags {
  std::string ring, attention;
  int64_t pages = 0, keys = 0;

  void apply(DecoderShape& shape) const;  // checked
};
void add_decoder_flags(CLI::App& command, DecoderFlags& flags, const char* group);

}  // namespace longhand::cli
