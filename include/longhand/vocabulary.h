// More words for a model that is there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/safetensors.h"

namespace longhand {

/// Writes a model with more words: row V + i of the embedding, and of an output layer and a bias of its own, is the
/// mean of the rows `pieces[i]`, stored as the file stores them (Hewitt 2021, "Initializing New Word Embeddings for
/// Pretrained Language Models", takes the mean of all rows). All else is copied byte for byte, `tokenizer` in place of
/// the file's. Hidden states and the logits of old words stay as they were; at every position the log-probabilities
/// of old words fall by one amount, log(1 + sum of exp over new logits / sum over old ones). Fails on files that hold
/// no weights (checkpoints and adapters among them) and on an adaptive softmax.
void extend_vocabulary(const SafetensorsFile& file, const std::string& output,
                       const std::vector<std::vector<int32_t>>& pieces, std::string_view tokenizer);

}  // namespace longhand
