#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "longhand/files.h"
#include "longhand/safetensors.h"
#include "safetensors_header.h"

namespace longhand {
namespace {

const std::string kChecksum = "checksum.";
constexpr int64_t kAlignment = 64;

// The largest power of two that divides the size, 64 at most.
int64_t alignment_of(int64_t bytes) { return bytes == 0 ? kAlignment : std::min(bytes & -bytes, kAlignment); }

// Data follow one another without holes, so a tensor whose size is no multiple of 64 shifts those behind it. With the
// sizes in descending order of the power of two that divides them, every tensor begins at a multiple of its own power:
// those of 64 at 64, and any at least at a multiple of its type's size. Equal ones keep their order.
std::vector<const NamedTensor*> data_order(const std::string& path, std::span<const NamedTensor> tensors) {
  std::vector<const NamedTensor*> order;
  std::map<std::string_view, int> seen;
  for (const auto& [name, tensor] : tensors) {
    if (name.empty() || name == "__metadata__") fail("{}: a tensor cannot be named '{}'", path, name);
    if (seen[name]++) fail("{}: two tensors are named {}", path, printable(name));
    if (tensor.empty()) fail("{}: tensor {} has no shape", path, printable(name));
    if (!tensor.contiguous()) fail("{}: tensor {} is not contiguous", path, printable(name));
  }
  for (const auto& named : tensors) order.push_back(&named);
  std::stable_sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return alignment_of(a->tensor.bytes()) > alignment_of(b->tensor.bytes());
  });
  return order;
}

std::string quoted(const std::string& path, const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const std::exception&) {
    fail("{}: {} is not valid UTF-8 and cannot stand in the header", path, printable(text));
  }
}

std::string header_json(const std::string& path, const std::vector<const NamedTensor*>& order,
                        const std::map<std::string, std::string>& metadata) {
  std::string json = "{";
  const char* comma = "";
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      json += fmt::format("{}{}:{}", comma, quoted(path, key), quoted(path, value));
      comma = ",";
    }
    json += "}";
  }
  int64_t begin = 0;
  for (const NamedTensor* named : order) {
    const ConstTensor& tensor = named->tensor;
    std::string sizes;
    for (int axis = 0; axis < tensor.rank(); ++axis) sizes += fmt::format("{}{}", axis ? "," : "", tensor.size(axis));
    int64_t end = begin + tensor.bytes();
    json += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", comma,
                        quoted(path, named->name), safetensors_type_name(tensor.type()), sizes, begin, end);
    comma = ",";
    begin = end;
  }
  json += "}";
  // Spaces behind the JSON bring the data, which follow 8 + header bytes, to a multiple of 64.
  json.resize((json.size() + 8 + kAlignment - 1) / kAlignment * kAlignment - 8, ' ');
  return json;
}

}  // namespace

void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       std::map<std::string, std::string> metadata) {
  // Metadata taken over from another file carry that file's checksums.
  std::erase_if(metadata, [](const auto& entry) { return entry.first.starts_with(kChecksum); });
  std::vector<const NamedTensor*> order = data_order(path, tensors);
  for (const auto& [name, tensor] : tensors)
    metadata[kChecksum + name] = fmt::format("{:08x}", crc32c(tensor.data(), tensor.bytes()));
  std::string json = header_json(path, order, metadata);
  if (static_cast<int64_t>(json.size()) > kSafetensorsHeaderLimit)
    fail("{}: a header of {} bytes is more than the {} that the format allows: fewer tensors or shorter metadata", path,
         json.size(), kSafetensorsHeaderLimit);
  uint64_t length = json.size();
  FileWriter writer(path);
  writer.write(&length, 8);
  writer.write(json);
  for (const NamedTensor* named : order) writer.write(named->tensor.data(), named->tensor.bytes());
  writer.commit();
}

}  // namespace longhand
