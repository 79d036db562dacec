#include <algorithm>
#include <chrono>
#include <exception>
#include <filesystem>
#include <map>

#include "longhand/corpus.h"
#include "longhand/data.h"
#include "longhand/error.h"
#include "longhand/files.h"
#include "longhand/random.h"
#include "longhand/safetensors.h"
#include "longhand/text.h"
#include "longhand/threads.h"

namespace longhand {
namespace {

using Ids = std::vector<uint32_t>;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<Corpus> read_corpora(const PrepareOptions& options) {
  if (options.help_directory.empty() == options.texts.empty())
    fail_usage("prepare reads either --corpus or --text and --language");
  if (!options.help_directory.empty())
    return read_help_corpora(options.help_directory, options.languages.empty() ? help_languages() : options.languages);
  std::vector<std::string> names;
  std::map<std::string, std::vector<std::string>> paths;
  for (auto& source : options.texts) {
    if (paths[source.language].empty()) names.push_back(source.language);
    paths[source.language].push_back(source.path);
  }
  std::vector<Corpus> corpora;
  for (const std::string& name : names) corpora.push_back(read_text_corpus(name, paths[name], options.split_lines));
  return corpora;
}

// Before the work of minutes, not after it.
void make_room_for(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) fail("{}: the folder cannot be made: {}", path, error.message());
  if (std::filesystem::is_directory(path)) fail("{}: is a folder; --output names the file to write", path);
}

void check_not_empty(const std::vector<Corpus>& corpora) {
  for (const Corpus& corpus : corpora)
    if (corpus.bytes() == 0) fail("corpus {}: there is no text in it", corpus.language);
}

std::string take_model(const std::string& path) {
  if (!path.ends_with(".safetensors")) return read_file(path);
  SafetensorsFile file(path);
  if (!file.has("tokenizer.model")) fail("{}: holds no tokenizer.model", path);
  ConstTensor model = file.tensor("tokenizer.model");
  return std::string(static_cast<const char*>(model.data()), static_cast<size_t>(model.bytes()));
}

std::string make_model(const std::vector<SplitCorpus>& splits, const PrepareOptions& options) {
  if (!options.tokenizer.empty()) return take_model(options.tokenizer);
  std::vector<const Corpus*> train;
  for (const SplitCorpus& split : splits) train.push_back(&split.train);
  return train_vocabulary(train, options.vocabulary);
}

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

/// The tokens of some documents, each followed by the end of document, one after another.
struct Stream {
  std::vector<uint16_t> narrow;
  Ids wide;
  std::vector<int64_t> starts;
  int64_t bytes = 0;

  ConstTensor tokens() const {
    if (wide.empty()) return {narrow.data(), Dtype::u16, {static_cast<int64_t>(narrow.size())}};
    return {wide.data(), Dtype::u32, {static_cast<int64_t>(wide.size())}};
  }
  ConstTensor documents() const { return {starts.data(), Dtype::i64, {static_cast<int64_t>(starts.size())}}; }
  int64_t size() const { return static_cast<int64_t>(narrow.size() + wide.size()); }
};

class Encoder {
 public:
  Encoder(const Tokenizer& tokenizer, int threads) : tokenizer_(tokenizer), pool_(threads) {
    if (tokenizer.end_of_document() < 0) fail("the tokenizer has no </s>, which ends a document in a token file");
  }

  Stream encode(const std::vector<const Document*>& documents) {
    std::vector<Part> parts = cut(documents, tokenizer_.symbol("\n") >= 0);
    Stream stream;
    // A block at a time, so that no more ids than that are held twice.
    constexpr size_t block = 4096;
    for (size_t first = 0; first < parts.size(); first += block) {
      size_t count = std::min(block, parts.size() - first);
      std::vector<Ids> ids = encode_block(parts, first, count);
      for (size_t i = 0; i < count; ++i) {
        size_t p = first + i;
        if (p == 0 || parts[p - 1].document != parts[p].document) stream.starts.push_back(stream.size());
        append(stream, ids[i]);
        if (p + 1 == parts.size() || parts[p + 1].document != parts[p].document)
          append(stream, {static_cast<uint32_t>(tokenizer_.end_of_document())});
      }
    }
    for (const Document* d : documents) stream.bytes += static_cast<int64_t>(d->text.size());
    return stream;
  }

 private:
  std::vector<Ids> encode_block(const std::vector<Part>& parts, size_t first, size_t count) {
    std::vector<Ids> ids(count);
    std::vector<std::exception_ptr> errors(count);
    pool_.parallel_for(static_cast<int64_t>(count), [&](int64_t i, int) {
      try {
        auto encoded = tokenizer_.encode(parts[first + i].text);
        ids[i].assign(encoded.begin(), encoded.end());
      } catch (...) {
        errors[i] = std::current_exception();
      }
    });
    for (auto& error : errors)
      if (error) std::rethrow_exception(error);
    return ids;
  }

  void append(Stream& stream, const Ids& ids) const {
    if (tokenizer_.vocab_size() <= 65536)
      stream.narrow.insert(stream.narrow.end(), ids.begin(), ids.end());
    else
      stream.wide.insert(stream.wide.end(), ids.begin(), ids.end());
  }

  const Tokenizer& tokenizer_;
  ThreadPool pool_;
};

// Every stretch of the training stream is to hold every language, so documents are dealt in random order.
std::vector<const Document*> shuffled_training_documents(const std::vector<SplitCorpus>& splits, uint64_t seed,
                                                         std::vector<size_t>& language) {
  std::vector<std::pair<const Document*, size_t>> order;
  for (size_t s = 0; s < splits.size(); ++s)
    for (const Document& d : splits[s].train.documents) order.emplace_back(&d, s);
  RandomStream random{.seed = seed, .step = 1, .use = RandomUse::shuffle};
  for (size_t i = order.size(); i > 1; --i) {
    uint64_t wide = static_cast<uint64_t>(random.bits(2 * i)) << 32 | random.bits(2 * i + 1);
    std::swap(order[i - 1], order[wide % i]);
  }
  std::vector<const Document*> documents;
  for (auto& [document, s] : order) documents.push_back(document), language.push_back(s);
  return documents;
}

std::vector<const Document*> pointers(const Corpus& corpus) {
  std::vector<const Document*> documents;
  for (const Document& d : corpus.documents) documents.push_back(&d);
  return documents;
}

PrepareReport::Row row_of(const SplitCorpus& split, const Stream& validation, int64_t documents) {
  PrepareReport::Row row{.language = split.train.language};
  row.validation_documents = static_cast<int64_t>(validation.starts.size());
  row.validation_bytes = validation.bytes;
  row.validation_tokens = validation.size();
  row.documents = documents;
  row.bytes = split.train.bytes() + row.validation_bytes;
  row.tokens = row.validation_tokens;
  return row;
}

void write(const std::string& path, const Tokenizer& tokenizer, const Stream& train,
           const std::map<std::string, Stream>& validation) {
  std::map<std::string, std::string> metadata = {{"longhand.kind", "tokens"},
                                                 {"vocab_size", std::to_string(tokenizer.vocab_size())},
                                                 {"train.bytes", std::to_string(train.bytes)}};
  std::vector<NamedTensor> tensors = {{"train.tokens", train.tokens()}, {"train.documents", train.documents()}};
  for (auto& [name, stream] : validation) {
    tensors.push_back({"validation." + name + ".tokens", stream.tokens()});
    tensors.push_back({"validation." + name + ".documents", stream.documents()});
    metadata["validation." + name + ".bytes"] = std::to_string(stream.bytes);
  }
  std::string_view model = tokenizer.model();
  tensors.push_back({"tokenizer.model", ConstTensor(model.data(), Dtype::u8, {static_cast<int64_t>(model.size())})});
  write_safetensors(path, tensors, metadata);
}

}  // namespace

PrepareReport prepare(const PrepareOptions& options) {
  auto start = std::chrono::steady_clock::now();
  make_room_for(options.output);
  std::vector<Corpus> corpora = read_corpora(options);
  check_not_empty(corpora);
  std::vector<int64_t> documents;
  for (const Corpus& corpus : corpora) documents.push_back(static_cast<int64_t>(corpus.documents.size()));
  std::vector<SplitCorpus> splits = split_corpora(std::move(corpora), options.split);
  auto vocabulary_start = std::chrono::steady_clock::now();
  Tokenizer tokenizer(make_model(splits, options));
  PrepareReport report;
  report.vocab_size = tokenizer.vocab_size();
  report.vocabulary_seconds = seconds_since(vocabulary_start);

  Encoder encoder(tokenizer, options.threads);
  std::map<std::string, Stream> validation;
  for (const SplitCorpus& split : splits) {
    Stream stream = encoder.encode(pointers(split.validation));
    report.rows.push_back(row_of(split, stream, documents[report.rows.size()]));
    if (stream.size()) validation[split.train.language] = std::move(stream);
  }
  std::vector<size_t> language;
  Stream train = encoder.encode(shuffled_training_documents(splits, options.seed, language));
  for (size_t d = 0; d < language.size(); ++d) {
    int64_t end = d + 1 < language.size() ? train.starts[d + 1] : train.size();
    report.rows[language[d]].tokens += end - train.starts[d];
  }
  write(options.output, tokenizer, train, validation);
  report.seconds = seconds_since(start);
  return report;
}

}  // namespace longhand
