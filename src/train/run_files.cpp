#include "src/train/run_files.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <system_error>

namespace longhand {
namespace {

namespace fs = std::filesystem;
constexpr std::string_view suffix = ".safetensors", prefix = "checkpoint-";

struct Found {
  int64_t step;
  std::string path;
};

/// Checkpoints of a directory, newest first.
std::vector<Found> checkpoints(const std::string& directory) {
  std::vector<Found> found;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error)) {
    std::string name = entry.path().filename().string();
    if (name.size() <= prefix.size() + suffix.size() || name.compare(0, prefix.size(), prefix) != 0) continue;
    if (name.compare(name.size() - suffix.size(), suffix.size(), suffix) != 0) continue;
    const char *begin = name.data() + prefix.size(), *end = name.data() + name.size() - suffix.size();
    int64_t step = 0;
    auto [stop, bad] = std::from_chars(begin, end, step);
    if (bad == std::errc() && stop == end) found.push_back({step, entry.path().string()});
  }
  std::sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.step > b.step; });
  return found;
}

void check_tokens(const TokenStream& stream, int64_t vocab_size, const std::string& path) {
  for (int64_t i = 0; i < stream.size(); ++i)
    if (int32_t token = stream.at(i); token < 0 || token >= vocab_size)
      fail_usage(
          "{}: token {} of {} is {}, the model's vocabulary has {}: give --vocab-size, or a model made for this "
          "data",
          path, i, stream.name, token, vocab_size);
}

}  // namespace

RunFiles::RunFiles(const std::string& output, bool adapter) : directory_(run_directory(output)), adapter_(adapter) {
  if (directory_ != output) weights_ = output;
}

std::string RunFiles::name(const std::string& path) { return fs::path(path).filename().string(); }

void RunFiles::rotate(int64_t keep) const {
  std::vector<Found> found = checkpoints(directory_);
  for (size_t i = keep; i < found.size(); ++i) {
    std::error_code error;
    fs::remove(found[i].path, error);
  }
}

std::string run_directory(const std::string& output) {
  bool file = output.size() > suffix.size() &&
              output.compare(output.size() - suffix.size(), suffix.size(), suffix) == 0 && !fs::is_directory(output);
  return file ? output.substr(0, output.size() - suffix.size()) : output;
}

std::string newest_checkpoint(const std::string& directory, std::string* damage) {
  std::string first;
  for (const Found& found : checkpoints(directory)) {
    try {
      SafetensorsFile(found.path).verify();
      if (damage) *damage = first;
      return found.path;
    } catch (const Error& error) {
      if (first.empty()) first = error.what();
    }
  }
  if (!first.empty()) fail("{}: no checkpoint is whole: {}", directory, first);
  return "";
}

void prepare_directory(const std::string& directory, const RunOptions& run) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (!fs::is_directory(directory)) fail("--output {}: the directory cannot be made: {}", directory, error.message());
  std::vector<Found> found = checkpoints(directory);
  if (!run.resume && !run.overwrite && !found.empty())
    fail_usage("--output {}: a run with {} is already there: continue it with --resume, replace it with --overwrite",
               directory, RunFiles::name(found[0].path));
  if (run.overwrite && !run.resume)
    for (const Found& old : found) fs::remove(old.path, error);
  for (const fs::directory_entry& entry : fs::directory_iterator(directory, error))
    if (entry.path().extension() == ".part") fs::remove(entry.path(), error);  // of a run that was killed
}

void check_vocabulary(const ModelConfig& config, const TokenFile& data, const std::string& path) {
  if (data.vocab_size() > config.vocab_size)
    fail_usage(
        "{} was made with a vocabulary of {}, the model has {}: give --vocab-size {} or more, or prepare the "
        "text with the model's tokenizer",
        path, data.vocab_size(), config.vocab_size, data.vocab_size());
  if (data.vocab_size() == 0) check_tokens(data.train(), config.vocab_size, path);  // otherwise the file was checked
}

}  // namespace longhand
