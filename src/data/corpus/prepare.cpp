#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iterator>
#include <map>

#include "longhand/corpus.h"
#include "longhand/data.h"
#include "longhand/error.h"
#include "longhand/files.h"
#include "longhand/random.h"
#include "longhand/safetensors.h"
#include "longhand/text.h"
#include "longhand/threads.h"
#include "src/data/corpus/encode.h"

namespace longhand {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Sources of one name are one corpus; corpora stand in the order in which their names were first given.
std::vector<Corpus> read_sources(const std::vector<PrepareOptions::Source>& sources, bool split_lines) {
  std::vector<std::string> names;
  std::map<std::string, std::vector<std::string>> paths;
  for (auto& source : sources) {
    if (paths[source.language].empty()) names.push_back(source.language);
    paths[source.language].push_back(source.path);
  }
  std::vector<Corpus> corpora;
  for (const std::string& name : names) corpora.push_back(read_text_corpus(name, paths[name], split_lines));
  for (const Corpus& corpus : corpora)
    if (corpus.bytes() == 0) fail("corpus {}: there is no text in it", corpus.language);
  return corpora;
}

std::vector<Corpus> read_corpora(const PrepareOptions& options) {
  if (options.help_directory.empty() == options.texts.empty())
    fail_usage("prepare reads either the corpus or texts of your own");
  if (!options.texts.empty()) return read_sources(options.texts, options.split_lines);
  return read_help_corpora(options.help_directory, options.languages.empty() ? help_languages() : options.languages);
}

// Texts that were given for validation join the stream of their name, or make one.
void add_validation(std::vector<SplitCorpus>& splits, std::vector<Corpus> corpora) {
  for (Corpus& corpus : corpora) {
    auto same = [&](const SplitCorpus& split) { return split.train.language == corpus.language; };
    auto split = std::find_if(splits.begin(), splits.end(), same);
    if (split == splits.end())
      split = splits.insert(split, SplitCorpus{{corpus.language, {}}, {corpus.language, {}}, 0});
    split->documents += static_cast<int64_t>(corpus.documents.size());
    std::move(corpus.documents.begin(), corpus.documents.end(), std::back_inserter(split->validation.documents));
  }
}

// Before the work of minutes, not after it.
void make_room_for(const std::string& path) {
  std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) fail("{}: the folder cannot be made: {}", path, error.message());
  if (std::filesystem::is_directory(path)) fail("{}: is a folder; --output names the file to write", path);
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

PrepareReport::Row row_of(const SplitCorpus& split, const EncodedStream& validation) {
  PrepareReport::Row row{.language = split.train.language};
  row.validation_documents = static_cast<int64_t>(validation.starts.size());
  row.validation_bytes = validation.bytes;
  row.validation_tokens = validation.size();
  row.documents = split.documents;
  row.bytes = split.train.bytes() + row.validation_bytes;
  row.tokens = row.validation_tokens;
  return row;
}

void write(const std::string& path, const Tokenizer& tokenizer, const EncodedStream& train,
           const std::map<std::string, EncodedStream>& validation) {
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
  std::vector<SplitCorpus> splits = split_corpora(read_corpora(options), options.split);
  add_validation(splits, read_sources(options.validation_texts, options.split_lines));
  auto vocabulary_start = std::chrono::steady_clock::now();
  Tokenizer tokenizer(make_model(splits, options));
  PrepareReport report;
  report.vocab_size = tokenizer.vocab_size();
  report.vocabulary_seconds = seconds_since(vocabulary_start);

  ThreadPool pool(options.threads);
  std::map<std::string, EncodedStream> validation;
  for (const SplitCorpus& split : splits) {
    EncodedStream stream = encode_documents(tokenizer, pool, pointers(split.validation));
    report.rows.push_back(row_of(split, stream));
    if (stream.size()) validation[split.train.language] = std::move(stream);
  }
  std::vector<size_t> language;
  EncodedStream train = encode_documents(tokenizer, pool, shuffled_training_documents(splits, options.seed, language));
  for (size_t d = 0; d < language.size(); ++d) {
    int64_t end = d + 1 < language.size() ? train.starts[d + 1] : train.size();
    report.rows[language[d]].tokens += end - train.starts[d];
  }
  write(options.output, tokenizer, train, validation);
  report.seconds = seconds_since(start);
  return report;
}

}  // namespace longhand
