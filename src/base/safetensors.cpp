#include "longhand/safetensors.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "longhand/files.h"
#include "longhand/nearest.h"
#include "safetensors_header.h"

namespace longhand {
namespace {

const std::string kChecksum = "checksum.";

// What the file is instead, where its first bytes tell.
const char* other_format(const char* data, int64_t size) {
  auto starts = [&](std::string_view magic) {
    return size >= static_cast<int64_t>(magic.size()) && std::memcmp(data, magic.data(), magic.size()) == 0;
  };
  if (starts("version https://git-lfs")) return ": it is a Git LFS pointer; fetch the file itself with git lfs pull";
  if (starts("PK\x03\x04") || starts("\x80\x02"))
    return ": it looks like a PyTorch file; convert it with scripts/convert_checkpoint.py";
  if (starts("GGUF")) return ": it is a GGUF file";
  return "; check that it is the right file and complete";
}

std::string_view header_of(const MappedFile& file, const std::string& path) {
  if (file.size() < 8) fail("{}: {} bytes are too few for a safetensors file: truncated?", path, file.size());
  uint64_t length;
  std::memcpy(&length, file.data(), 8);
  uint64_t behind = static_cast<uint64_t>(file.size()) - 8;
  if (length > static_cast<uint64_t>(kSafetensorsHeaderLimit))
    fail("{}: not a safetensors file: header of {} bytes, the format allows {}{}", path, length,
         kSafetensorsHeaderLimit, other_format(file.data(), file.size()));
  if (length > behind)
    fail("{}: truncated: its header has {} bytes, {} are there; copy or download it again", path, length, behind);
  return {file.data() + 8, static_cast<size_t>(length)};
}

// Four dimensions at most: the outermost ones are joined where a file has more; a scalar has one entry.
Shape engine_shape(const std::vector<int64_t>& sizes) {
  Shape shape;
  size_t joined = sizes.size() > 4 ? sizes.size() - 3 : 1;
  int64_t first = 1;
  for (size_t axis = 0; axis < std::min(joined, sizes.size()); ++axis) first *= sizes[axis];
  shape.size[shape.rank++] = first;
  for (size_t axis = joined; axis < sizes.size(); ++axis) shape.size[shape.rank++] = sizes[axis];
  return shape;
}

}  // namespace

struct SafetensorsFile::State {
  std::string path;
  MappedFile file;
  int64_t data_at;
  SafetensorsHeader header;
  std::map<std::string, const SafetensorsEntry*, std::less<>> by_name;
  // Writers of others do not align their data: such a tensor is copied to where its type may be read.
  std::mutex mutex;
  std::map<const SafetensorsEntry*, std::vector<uint64_t>> aligned;

  explicit State(std::string name) : path(std::move(name)), file(path) {
    std::string_view json = header_of(file, path);
    data_at = 8 + static_cast<int64_t>(json.size());
    header = parse_safetensors_header(json, file.size() - data_at, path);
    for (const auto& entry : header.entries) by_name.emplace(entry.name, &entry);
  }

  const SafetensorsEntry& find(std::string_view name) const {
    auto found = by_name.find(name);
    if (found != by_name.end()) return *found->second;
    std::vector<std::string> names;
    for (const auto& [known, entry] : by_name) names.push_back(printable(known));
    fail("{}: no tensor {}{}", path, printable(name), printable(did_you_mean(name, names)));
  }

  const char* data(const SafetensorsEntry& entry) const { return file.data() + data_at + entry.begin; }
};

SafetensorsFile::SafetensorsFile(std::string path) : state_(std::make_unique<State>(std::move(path))) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

const std::string& SafetensorsFile::path() const { return state_->path; }
const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return state_->header.metadata; }
bool SafetensorsFile::has(std::string_view name) const { return state_->by_name.contains(name); }

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> names;
  for (const auto& entry : state_->header.entries) names.push_back(entry.name);
  return names;
}

ConstTensor SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorsEntry& entry = state_->find(name);
  const char* data = state_->data(entry);
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(dtype_bytes(entry.type)) != 0) {
    std::lock_guard lock(state_->mutex);
    auto [copy, fresh] = state_->aligned.try_emplace(&entry);
    if (fresh) {
      int64_t bytes = entry.end - entry.begin;
      copy->second.resize(static_cast<size_t>(bytes / 8 + 1));
      std::memcpy(copy->second.data(), data, static_cast<size_t>(bytes));
    }
    data = reinterpret_cast<const char*>(copy->second.data());
  }
  return {data, entry.type, engine_shape(entry.shape)};
}

void SafetensorsFile::forget(std::string_view name) const {
  const SafetensorsEntry& entry = state_->find(name);
  state_->file.forget(state_->data_at + entry.begin, entry.end - entry.begin);
}

std::vector<int64_t> SafetensorsFile::full_shape(std::string_view name) const { return state_->find(name).shape; }

int64_t SafetensorsFile::verify() const {
  int64_t compared = 0;
  for (const auto& [key, expected] : state_->header.metadata) {
    if (!key.starts_with(kChecksum)) continue;
    std::string name = key.substr(kChecksum.size());
    if (!has(name)) fail("{}: has a checksum of {}, which it does not hold: damaged", path(), printable(name));
    const SafetensorsEntry& entry = state_->find(name);
    std::string found = fmt::format("{:08x}", crc32c(state_->data(entry), entry.end - entry.begin));
    if (found != expected)
      fail("{}: tensor {} is damaged: its checksum is {}, {} was written; restore the file from a good copy", path(),
           printable(name), found, printable(expected));
    forget(name);
    ++compared;
  }
  return compared;
}

}  // namespace longhand
