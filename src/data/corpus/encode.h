// Documents to tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "longhand/corpus.h"
#include "longhand/tensor.h"
#include "longhand/text.h"
#include "longhand/threads.h"

namespace longhand {

/// The tokens of some documents one after another, each followed by the end of document. Ids are u16 where the
/// vocabulary allows it, else u32.
struct EncodedStream {
  std::vector<uint16_t> narrow;
  std::vector<uint32_t> wide;
  std::vector<int64_t> starts;  // of the documents
  int64_t bytes = 0;            // of their texts

  ConstTensor tokens() const;
  ConstTensor documents() const;
  int64_t size() const { return static_cast<int64_t>(narrow.size() + wide.size()); }
};

/// The result does not depend on the number of threads. Fails when the tokenizer has no </s>.
EncodedStream encode_documents(const Tokenizer& tokenizer, ThreadPool& pool,
                               const std::vector<const Document*>& documents);

}  // namespace longhand
