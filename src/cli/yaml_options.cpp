#include "src/cli/yaml_options.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "longhand/error.h"
#include "longhand/files.h"

namespace longhand::cli {
namespace {

constexpr size_t largest_text = 1 << 20;
constexpr size_t deepest_group = 16;

// Reads the parser's events, so that no tree is built: what a hostile file can cost is bounded by its length.
class Reader final : public YAML::EventHandler {
 public:
  explicit Reader(std::string_view where) : where_(where) {}

  std::vector<YamlOption> take() { return std::move(options_); }

  template <class... Args>
  [[noreturn]] void refuse(const YAML::Mark& mark, fmt::format_string<Args...> format, Args&&... args) {
    std::string what = fmt::format(format, std::forward<Args>(args)...);
    if (mark.is_null()) fail_usage("{}: {}", where_, what);
    fail_usage("{}:{}: {}", where_, mark.line + 1, what);
  }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++) refuse(mark, "a second document begins here; a configuration file holds one");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    if (depth_ == 0) return;  // an empty file
    if (in_list_) refuse(mark, "the list of \"{}\" has an empty entry", key_name());
    if (!has_key_) refuse(mark, "a key is missing before the colon");
    fail_usage("{}:{}: \"{}\" has no value", where_, key_line_, key_name());  // the mark is where the next key begins
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse(mark, "aliases (*name) are not read here"); }
  void OnAnchor(const YAML::Mark& mark, const std::string&) override {
    refuse(mark, "anchors (&name) are not read here");
  }

  void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t, const std::string& value) override {
    if (depth_ == 0) refuse(mark, "lines \"flag: value\" are expected, not \"{}\"", printable(value));
    if (in_list_) {
      options_.back().values.push_back(value);
    } else if (!has_key_) {
      if (value.empty()) refuse(mark, "a key is missing before the colon");
      key_ = value, key_line_ = mark.line + 1, has_key_ = true;
    } else {
      begin_option(mark, false);
      options_.back().values.push_back(value);
    }
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    if (depth_ == 0) refuse(mark, "lines \"flag: value\" are expected, not a list");
    if (!has_key_ && !in_list_) refuse(mark, "a list cannot be a key");
    if (in_list_) refuse(mark, "the list of \"{}\" holds a list; it takes plain values", key_name());
    begin_option(mark, true);
    in_list_ = true;
  }
  void OnSequenceEnd() override { in_list_ = false; }

  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {
    if (in_list_) refuse(mark, "the list of \"{}\" holds a group; it takes plain values", key_name());
    if (depth_ > 0 && !has_key_) refuse(mark, "a group cannot be a key");
    if (depth_ == deepest_group) refuse(mark, "groups are nested more than {} deep", deepest_group);
    has_key_ = false;
    ++depth_;
  }
  void OnMapEnd() override { --depth_; }

 private:
  std::string key_name() const { return printable(key_); }

  void begin_option(const YAML::Mark& mark, bool list) {
    std::string flag = key_;
    std::replace(flag.begin(), flag.end(), '_', '-');
    auto [earlier, fresh] = lines_.emplace(flag, key_line_);
    if (!fresh) refuse(mark, "\"{}\" was given before, in line {}", key_name(), earlier->second);
    options_.push_back({flag, {}, list, key_line_});
    has_key_ = false;
  }

  std::string_view where_;
  std::vector<YamlOption> options_;
  std::map<std::string, int> lines_;
  std::string key_;
  int key_line_ = 0;
  bool has_key_ = false, in_list_ = false;
  size_t depth_ = 0;
  int documents_ = 0;
};

}  // namespace

std::vector<YamlOption> read_yaml_options(std::string_view text, std::string_view where) {
  if (text.size() > largest_text)
    fail_usage("{}: {} bytes are more than a configuration file may have ({})", where, text.size(), largest_text);
  Reader reader(where);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(reader)) continue;
  } catch (const YAML::Exception& error) {
    reader.refuse(error.mark, "this is not YAML: {}", printable(error.msg));
  }
  return reader.take();
}

}  // namespace longhand::cli
