#include "safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "longhand/files.h"

namespace longhand {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::pair<const char*, Dtype>, 13> kTypes = {{{"F64", Dtype::fp64},
                                                                   {"F32", Dtype::fp32},
                                                                   {"F16", Dtype::fp16},
                                                                   {"BF16", Dtype::bf16},
                                                                   {"I64", Dtype::i64},
                                                                   {"I32", Dtype::i32},
                                                                   {"I16", Dtype::i16},
                                                                   {"I8", Dtype::i8},
                                                                   {"U64", Dtype::u64},
                                                                   {"U32", Dtype::u32},
                                                                   {"U16", Dtype::u16},
                                                                   {"U8", Dtype::u8},
                                                                   {"BOOL", Dtype::u8}}};
constexpr std::array kTypesOfOthers = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                       "F6_E2M3", "F6_E3M2", "F4",      "C64"};

// Events of the JSON parser, one token at a time: no tree is built, nesting costs nothing, and a key that comes twice
// is seen (a tree would silently keep the last). The header is three levels deep:
//   {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"key": "value"}}
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(const std::string& path, SafetensorsHeader& header) : path_(path), header_(header) {}

  bool start_object(size_t) override {
    if (list_ || depth_ >= 2) misplaced("an object");
    ++depth_;
    if (depth_ == 2) seen_fields_.clear();
    return true;
  }

  bool end_object() override {
    if (depth_ == 2 && !in_metadata_) {
      for (const char* field : {"dtype", "shape", "data_offsets"})
        if (!seen_fields_.contains(field)) damaged("tensor {} has no {}", printable(name_), field);
      header_.entries.push_back(std::move(entry_));
    }
    --depth_;
    return true;
  }

  bool key(std::string& text) override {
    if (depth_ == 1) {
      if (!seen_names_.insert(text).second) damaged("the name {} comes twice", printable(text));
      name_ = text, named_ = true;
      in_metadata_ = text == "__metadata__";
      entry_ = {}, entry_.name = text;
    } else {
      if (!seen_fields_.insert(text).second) damaged("{}: the key {} comes twice", printable(name_), printable(text));
      if (!in_metadata_ && text != "dtype" && text != "shape" && text != "data_offsets")
        damaged("tensor {} has a field {} that the format does not know", printable(name_), printable(text));
      field_ = text;
    }
    return true;
  }

  bool string(std::string& text) override {
    if (depth_ != 2 || list_) misplaced("text");
    if (in_metadata_)
      header_.metadata.emplace(field_, text);
    else if (field_ == "dtype")
      entry_.type = type(text);
    else
      misplaced("text");
    return true;
  }

  bool start_array(size_t) override {
    if (depth_ != 2 || list_ || in_metadata_ || field_ == "dtype") misplaced("a list");
    list_ = true, numbers_.clear();
    return true;
  }

  bool end_array() override {
    list_ = false;
    if (field_ == "shape") {
      entry_.shape = numbers_;
    } else {
      if (numbers_.size() != 2) damaged("tensor {} has {} data_offsets, not 2", printable(name_), numbers_.size());
      entry_.begin = numbers_[0], entry_.end = numbers_[1];
    }
    return true;
  }

  bool number_unsigned(Json::number_unsigned_t value) override {
    if (!list_) misplaced("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      damaged("tensor {}: {} holds {}, beyond any file", printable(name_), field_, value);
    numbers_.push_back(static_cast<int64_t>(value));
    return true;
  }

  bool number_integer(Json::number_integer_t value) override {
    if (!list_) misplaced("a number");
    damaged("tensor {}: {} holds the negative number {}", printable(name_), field_, value);
  }
  bool number_float(Json::number_float_t, const std::string& text) override {
    if (!list_) misplaced("a number");
    damaged("tensor {}: {} holds {}, not a whole number", printable(name_), field_, printable(text));
  }
  bool null() override { misplaced("null"); }
  bool boolean(bool) override { misplaced("a truth value"); }
  bool binary(Json::binary_t&) override { misplaced("binary data"); }
  bool parse_error(size_t position, const std::string&, const Json::exception&) override {
    damaged("its header is no valid JSON at byte {}", position);
  }

 private:
  template <class... Args>
  [[noreturn]] void damaged(fmt::format_string<Args...> format, Args&&... args) {
    fail("{}: not a valid safetensors file: {}; restore it from a good copy", path_,
         fmt::format(format, std::forward<Args>(args)...));
  }
  [[noreturn]] void misplaced(const char* what) {
    if (in_metadata_ && depth_ >= 1)
      damaged("its metadata may hold text alone, {} is {}", depth_ == 2 ? printable(field_) : "__metadata__", what);
    damaged("{} {} where the format has none", named_ ? printable(name_) + " holds" : "its header has", what);
  }
  Dtype type(const std::string& text) {
    for (auto [name, type] : kTypes)
      if (text == name) return type;
    for (const char* name : kTypesOfOthers)
      if (text == name)
        fail("{}: tensor {} is of type {}, which Longhand does not read: convert it to F32 or BF16", path_,
             printable(name_), name);
    damaged("tensor {} is of the unknown type {}", printable(name_), printable(text));
  }

  const std::string& path_;
  SafetensorsHeader& header_;
  int depth_ = 0;
  bool list_ = false, named_ = false, in_metadata_ = false;
  std::string name_, field_;
  std::set<std::string> seen_names_, seen_fields_;
  std::vector<int64_t> numbers_;
  SafetensorsEntry entry_;
};

void check_entry(const SafetensorsEntry& entry, const std::string& path) {
  int64_t bytes = dtype_bytes(entry.type);
  bool none = false;
  for (int64_t size : entry.shape) {
    // A size of zero makes the product zero, the others must be sound all the same: strides are products of them.
    none = none || size == 0;
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(size, 1), &bytes))
      fail("{}: not a valid safetensors file: the shape of tensor {} overflows; restore it from a good copy", path,
           printable(entry.name));
  }
  if (none) bytes = 0;
  if (entry.end < entry.begin || entry.end - entry.begin != bytes)
    fail(
        "{}: not a valid safetensors file: tensor {} has the bytes [{}, {}), its shape needs {}; restore it from a "
        "good copy",
        path, printable(entry.name), entry.begin, entry.end, bytes);
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, int64_t data_bytes, const std::string& path) {
  SafetensorsHeader header;
  HeaderReader reader(path, header);
  // The parser takes a zero byte for the end of the text, so it would not see what stands behind one.
  if (json.empty() || json[0] != '{' || json.find('\0') != json.npos)
    fail("{}: not a safetensors file: its header is no JSON object", path);
  Json::sax_parse(json.begin(), json.end(), &reader);

  auto& entries = header.entries;
  for (const auto& entry : entries) check_entry(entry, path);
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  int64_t end = 0;
  for (const auto& entry : entries) {
    if (entry.begin != end)
      fail(
          "{}: not a valid safetensors file: tensor {} begins at byte {} of the data, the one before ends at {} ({}); "
          "restore it from a good copy",
          path, printable(entry.name), entry.begin, end, entry.begin < end ? "they overlap" : "a hole");
    end = entry.end;
  }
  if (end > data_bytes)
    fail("{}: truncated: its tensors need {} bytes of data, the file has {}; copy or download it again", path, end,
         data_bytes);
  if (end < data_bytes)
    fail("{}: not a valid safetensors file: {} bytes after the last tensor belong to none; restore it from a good copy",
         path, data_bytes - end);
  return header;
}

const char* safetensors_type_name(Dtype type) {
  for (auto [name, known] : kTypes)
    if (known == type) return name;
  fail("no safetensors type for {}", dtype_name(type));
}

}  // namespace longhand
