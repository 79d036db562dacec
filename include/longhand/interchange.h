// Interchange with Hugging Face: Transfo-XL (plain softmax) and XLNet (attn_type "uni") checkpoints, both ways;
// Transfo-XL with adaptive input and softmax, the form of the published WikiText-103 model, into Longhand alone.
// A checkpoint is a folder with config.json, model.safetensors and, where the model works on words, vocab.txt (one a
// line); pytorch_model.bin and vocab.bin or vocab.pkl become these through scripts/convert_checkpoint.py. Sources of
// the layouts: TransfoXLLMHeadModel and XLNetLMHeadModel of transformers 4.35.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longhand/config.h"

namespace longhand {

struct ImportOptions {
  int64_t mem_len = -1;   // in place of the checkpoint's; needed where it says null (XLNet: keep everything)
  bool segments = false;  // XLNet: keep the segment term. In a text of one segment it is the same for every key.
};

struct ImportReport {
  ModelConfig config;
  std::string format;                 // "transfo-xl" or "xlnet"
  std::vector<std::string> left_out;  // tensors of the checkpoint that the model has no place for
};

/// Reads the checkpoint `source` (a folder, or its .safetensors file) and writes the weight file `output`, fp32. Fails
/// with the first setting or tensor that Longhand's model cannot express.
ImportReport import_checkpoint(const std::string& source, const std::string& output, const ImportOptions& options);

/// Writes the weight file (or checkpoint) `source` as config.json and model.safetensors into `folder`, fp32. `format`
/// is "transfo-xl", "xlnet" or "auto", which takes the one that can express the model; returns it. Fails with the first
/// setting that it cannot express.
std::string export_checkpoint(const std::string& source, const std::string& folder, const std::string& format);

}  // namespace longhand
