// The JSON header of a safetensors file, read strictly.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/tensor.h"

namespace longhand {

constexpr int64_t kSafetensorsHeaderLimit = 100'000'000;  // the format's own

struct SafetensorsEntry {
  std::string name;
  Dtype type = Dtype::fp32;
  std::vector<int64_t> shape;
  int64_t begin = 0, end = 0;  // bytes, counted from the end of the header
};

struct SafetensorsHeader {
  std::map<std::string, std::string> metadata;
  std::vector<SafetensorsEntry> entries;  // in the order of their data
};

/// Parses `json` and checks it against `data_bytes`, the bytes behind the header. `path` is for messages.
SafetensorsHeader parse_safetensors_header(std::string_view json, int64_t data_bytes, const std::string& path);

/// "F32", "BF16", ... as the format writes them.
const char* safetensors_type_name(Dtype type);

}  // namespace longhand
