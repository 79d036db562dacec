#include <algorithm>
#include <charconv>
#include <cstring>
#include <fstream>
#include <optional>

#include "longhand/data.h"
#include "longhand/files.h"

namespace longhand {
namespace {

constexpr int64_t largest_id = 0x7fffffff;

bool is_separator(char c) {
  return c == ' ' || c == ',' || c == '\n' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

std::string shown(char c) {
  auto byte = static_cast<unsigned char>(c);
  return byte > 0x20 && byte < 0x7f ? fmt::format("'{}'", c) : fmt::format("byte 0x{:02x}", byte);
}

// A safetensors file starts with the length of its header, whose first byte is a brace; a text of ids has no brace.
bool is_safetensors(const std::string& path) {
  if (path.ends_with(".safetensors")) return true;
  char head[9] = {};
  std::ifstream(path, std::ios::binary).read(head, sizeof head);
  return head[8] == '{';
}

int64_t metadata_number(const SafetensorsFile& file, const std::string& key) {
  auto found = file.metadata().find(key);
  if (found == file.metadata().end()) return 0;
  const std::string& text = found->second;
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0)
    fail("{}: metadata {} is \"{}\", a count was expected", file.path(), key, text);
  return value;
}

template <class T>
void check_ids(const std::string& path, const std::string& name, const T* ids, int64_t count, int64_t limit) {
  for (int64_t i = 0; i < count; ++i)
    if (static_cast<int64_t>(ids[i]) >= limit)
      fail("{}: {} holds id {} at position {}, the vocabulary has {}", path, name, ids[i], i, limit);
}

void check_documents(const std::string& path, const std::string& name, const ConstTensor& documents, int64_t tokens) {
  const int64_t* start = documents.as<const int64_t>();
  for (int64_t d = 0; d < documents.elements(); ++d) {
    int64_t least = d == 0 ? 0 : start[d - 1] + 1;
    if (start[d] < least || start[d] >= tokens || (d == 0 && start[d] != 0))
      fail("{}: {} has {} at position {}; document starts ascend from 0 and stay below {}", path, name, start[d], d,
           tokens);
  }
}

}  // namespace

int32_t TokenStream::at(int64_t index) const {
  return tokens.type() == Dtype::u16 ? tokens.as<const uint16_t>()[index]
                                     : static_cast<int32_t>(tokens.as<const uint32_t>()[index]);
}

std::vector<uint32_t> parse_token_ids(std::string_view text, const std::string& name) {
  std::vector<uint32_t> ids;
  int64_t line = 1;
  for (size_t i = 0; i < text.size();) {
    if (is_separator(text[i])) {
      line += text[i++] == '\n';
      continue;
    }
    size_t first = i;
    int64_t value = 0;
    for (; i < text.size() && text[i] >= '0' && text[i] <= '9'; ++i)
      value = std::min(value * 10 + (text[i] - '0'), largest_id + 1);
    if (i < text.size() && !is_separator(text[i]))
      fail("{}: {} at byte {} (line {}); expected token ids separated by blanks or commas", name, shown(text[i]), i,
           line);
    if (value > largest_id) fail("{}: the id at byte {} (line {}) is above {}", name, first, line, largest_id);
    ids.push_back(static_cast<uint32_t>(value));
  }
  return ids;
}

struct TokenFile::State {
  std::optional<SafetensorsFile> file;
  std::vector<uint32_t> ids;           // of a text file
  std::vector<TokenContent> contents;  // of streams that came from no file
  std::string tokenizer_bytes;
  std::vector<std::unique_ptr<int64_t[]>> copies;  // of tensors that lie unaligned in their file
  TokenStream train;
  std::vector<TokenStream> validation;
  int64_t vocab_size = 0;
  std::string_view tokenizer_model;

  ConstTensor vector(const std::string& name) {
    ConstTensor tensor = file->tensor(name);
    if (tensor.rank() != 1)
      fail("{}: {} has shape {}, one axis was expected", file->path(), name, tensor.shape().text());
    if (reinterpret_cast<uintptr_t>(tensor.data()) % dtype_bytes(tensor.type()) == 0) return tensor;
    auto& copy = copies.emplace_back(new int64_t[tensor.bytes() / 8 + 1]);
    std::memcpy(copy.get(), tensor.data(), tensor.bytes());
    return {copy.get(), tensor.type(), tensor.shape()};
  }

  TokenStream stream(const std::string& name, const std::string& prefix) {
    const std::string& path = file->path();
    TokenStream s{.name = name, .tokens = vector(prefix + ".tokens"), .documents = {}, .bytes = 0};
    if (s.tokens.elements() == 0) fail("{}: {}.tokens is empty", path, prefix);
    int64_t limit = vocab_size ? vocab_size : largest_id + 1;
    if (s.tokens.type() == Dtype::u16)
      check_ids(path, prefix + ".tokens", s.tokens.as<const uint16_t>(), s.size(), limit);
    else if (s.tokens.type() == Dtype::u32)
      check_ids(path, prefix + ".tokens", s.tokens.as<const uint32_t>(), s.size(), limit);
    else
      fail("{}: {}.tokens is {}, u16 or u32 was expected", path, prefix, dtype_name(s.tokens.type()));
    if (std::string documents = prefix + ".documents"; file->has(documents)) {
      s.documents = vector(documents);
      if (s.documents.type() != Dtype::i64)
        fail("{}: {} is {}, i64 was expected", path, documents, dtype_name(s.documents.type()));
      check_documents(path, documents, s.documents, s.size());
    }
    s.bytes = metadata_number(*file, prefix + ".bytes");
    return s;
  }

  void read_safetensors(const std::string& path) {
    file.emplace(path);
    if (!file->has("train.tokens"))
      fail("{}: not a token file, it has no train.tokens; `longhand prepare` makes one", path);
    vocab_size = metadata_number(*file, "vocab_size");
    if (vocab_size > largest_id) fail("{}: vocab_size {} is above {}", path, vocab_size, largest_id);
    train = stream("train", "train");
    constexpr std::string_view before = "validation.", after = ".tokens";
    for (const std::string& name : file->names()) {
      if (!name.starts_with(before) || !name.ends_with(after) || name.size() <= before.size() + after.size()) continue;
      std::string prefix = name.substr(0, name.size() - after.size());
      validation.push_back(stream(prefix.substr(before.size()), prefix));
    }
    std::sort(validation.begin(), validation.end(), [](auto& a, auto& b) { return a.name < b.name; });
    if (file->has("tokenizer.model")) {
      ConstTensor model = file->tensor("tokenizer.model");
      if (model.type() != Dtype::u8) fail("{}: tokenizer.model is {}, u8 was expected", path, dtype_name(model.type()));
      tokenizer_model = {static_cast<const char*>(model.data()), static_cast<size_t>(model.bytes())};
    }
  }

  void read_text(const std::string& path) {
    ids = parse_token_ids(read_file(path), path);
    if (ids.empty()) fail("{}: holds no token ids", path);
    train.name = "train";
    train.tokens = ConstTensor(ids.data(), Dtype::u32, {static_cast<int64_t>(ids.size())});
  }
};

TokenFile::TokenFile(const std::string& path) : state_(std::make_shared<State>()) {
  if (is_safetensors(path))
    state_->read_safetensors(path);
  else
    state_->read_text(path);
}

TokenFile::TokenFile(std::vector<TokenContent> streams, int64_t vocab_size, std::string tokenizer_model)
    : state_(std::make_shared<State>()) {
  State& s = *state_;
  s.contents = std::move(streams), s.vocab_size = vocab_size;
  s.tokenizer_bytes = std::move(tokenizer_model), s.tokenizer_model = s.tokenizer_bytes;
  for (const TokenContent& c : s.contents) {
    auto size = [](const auto& list) { return Shape{static_cast<int64_t>(list.size())}; };
    TokenStream stream{.name = c.name, .tokens = ConstTensor(c.tokens.data(), Dtype::u32, size(c.tokens))};
    if (!c.documents.empty()) stream.documents = ConstTensor(c.documents.data(), Dtype::i64, size(c.documents));
    if (!c.answers.empty()) stream.answers = ConstTensor(c.answers.data(), Dtype::u8, size(c.answers));
    if (!c.tasks.empty()) stream.tasks = ConstTensor(c.tasks.data(), Dtype::i32, size(c.tasks));
    stream.task_names = c.task_names, stream.variants = c.variants;
    stream.bytes = c.bytes;
    if (!c.labels.empty()) stream.labels = &c.labels;
    check_ids("data", c.name, c.tokens.data(), stream.size(), vocab_size);
    if (&c == s.contents.data())
      s.train = stream;
    else
      s.validation.push_back(stream);
  }
}

const TokenStream& TokenFile::train() const { return state_->train; }
const std::vector<TokenStream>& TokenFile::validation() const { return state_->validation; }
int64_t TokenFile::vocab_size() const { return state_->vocab_size; }
std::string_view TokenFile::tokenizer_model() const { return state_->tokenizer_model; }

}  // namespace longhand
