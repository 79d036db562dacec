#include "src/data/corpus/encode.h"

#include <exception>

#include "longhand/error.h"

namespace longhand {
namespace {

using Ids = std::vector<uint32_t>;

// Long documents are tokenized in parts that end at line breaks; the tokenizer's pieces never cross one.
struct Part {
  size_t document;
  std::string_view text;
};

std::vector<Part> cut(const std::vector<const Document*>& documents, bool at_line_breaks) {
  constexpr size_t about = 1 << 20;
  std::vector<Part> parts;
  for (size_t d = 0; d < documents.size(); ++d) {
    std::string_view text = documents[d]->text;
    while (at_line_breaks && text.size() > about) {
      size_t end = text.find('\n', about);
      if (end == std::string_view::npos) break;
      parts.push_back({d, text.substr(0, end + 1)});
      text.remove_prefix(end + 1);
    }
    parts.push_back({d, text});
  }
  return parts;
}

// Parts that are tokenized together: enough for every thread, few enough that holding their ids twice costs little.
size_t block_size(const std::vector<Part>& parts, size_t first) {
  constexpr size_t about = 32 << 20;
  size_t last = first;
  for (size_t bytes = 0; last < parts.size() && bytes < about; ++last) bytes += parts[last].text.size() + 1;
  return last - first;
}

std::vector<Ids> encode_parts(const Tokenizer& tokenizer, ThreadPool& pool, const Part* parts, size_t count) {
  std::vector<Ids> ids(count);
  std::vector<std::exception_ptr> errors(count);
  pool.parallel_for(static_cast<int64_t>(count), [&](int64_t i, int) {
    try {
      auto encoded = tokenizer.encode(parts[i].text);
      ids[i].assign(encoded.begin(), encoded.end());
    } catch (...) {
      errors[i] = std::current_exception();
    }
  });
  for (auto& error : errors)
    if (error) std::rethrow_exception(error);
  return ids;
}

}  // namespace

ConstTensor EncodedStream::tokens() const {
  if (wide.empty()) return {narrow.data(), Dtype::u16, {static_cast<int64_t>(narrow.size())}};
  return {wide.data(), Dtype::u32, {static_cast<int64_t>(wide.size())}};
}

ConstTensor EncodedStream::documents() const {
  return {starts.data(), Dtype::i64, {static_cast<int64_t>(starts.size())}};
}

EncodedStream encode_documents(const Tokenizer& tokenizer, ThreadPool& pool,
                               const std::vector<const Document*>& documents) {
  int32_t end_of_document = tokenizer.end_of_document();
  if (end_of_document < 0) fail("the tokenizer has no </s>, which ends a document in a token file");
  std::vector<Part> parts = cut(documents, tokenizer.symbol("\n") >= 0);
  EncodedStream stream;
  bool narrow = tokenizer.vocab_size() <= 65536;
  auto append = [&](const Ids& ids) {
    if (narrow)
      stream.narrow.insert(stream.narrow.end(), ids.begin(), ids.end());
    else
      stream.wide.insert(stream.wide.end(), ids.begin(), ids.end());
  };
  for (size_t first = 0, count; first < parts.size(); first += count) {
    count = block_size(parts, first);
    std::vector<Ids> ids = encode_parts(tokenizer, pool, &parts[first], count);
    for (size_t i = 0; i < count; ++i) {
      size_t p = first + i;
      if (p == 0 || parts[p - 1].document != parts[p].document) stream.starts.push_back(stream.size());
      append(ids[i]);
      if (p + 1 == parts.size() || parts[p + 1].document != parts[p].document)
        append({static_cast<uint32_t>(end_of_document)});
    }
  }
  for (const Document* d : documents) stream.bytes += static_cast<int64_t>(d->text.size());
  return stream;
}

}  // namespace longhand
