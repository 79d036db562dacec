// safetensors files: the one format of everything the engine writes (weights, checkpoints, token files).
// 8 bytes header length (little endian), a JSON header of at most 100 MB, then the data. Reading enforces the format's
// rules: string metadata, no duplicate keys, known types, sizes that match shapes, offsets without holes or overlap.
// Writing orders the tensors and pads the header so that data lie 64-byte aligned (where their sizes allow).
// Source: the format's description in the safetensors repository (README, "Format").
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/tensor.h"

namespace longhand {

/// A file mapped read-only. Tensors point into the mapping and live as long as the object.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(std::string path);
  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::string& path() const;
  const std::map<std::string, std::string>& metadata() const;
  std::vector<std::string> names() const;  // in the order of the data
  bool has(std::string_view name) const;
  ConstTensor tensor(std::string_view name) const;  // fails with the file and the nearest name when it is absent
  /// The tensor's pages need not stay in memory: what walks through a large file asks for each once.
  void forget(std::string_view name) const;
  std::vector<int64_t> full_shape(std::string_view name) const;  // files of others may hold more than four dimensions

  /// Compares every checksum that the metadata carry (`checksum.<name>`, CRC-32C in hexadecimal) with the data; fails
  /// with the first tensor that differs. Returns how many were compared.
  int64_t verify() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct NamedTensor {
  std::string name;
  ConstTensor tensor;  // host memory, contiguous
};

/// Writes beside the target (`<path>.part`), syncs, then renames: the file is the old one or the new one, never half.
/// Adds `checksum.<name>` to the metadata. Same content, same bytes.
void write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                       std::map<std::string, std::string> metadata);

/// CRC-32C of the data; `seed` is the checksum of what came before (0 at the beginning).
uint32_t crc32c(const void* data, int64_t bytes, uint32_t seed = 0);
uint32_t crc32c_by_tables(const void* data, int64_t bytes, uint32_t seed = 0);  // what processors without SSE4.2 run

}  // namespace longhand
