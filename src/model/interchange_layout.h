// How a foreign checkpoint's tensors lie in Longhand's: one list for each format, read in both directions.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "longhand/config.h"
#include "longhand/interchange.h"
#include "longhand/safetensors.h"

namespace longhand::interchange {

using Json = nlohmann::ordered_json;

/// A foreign tensor and the rows of ours that it fills. Ours is a matrix [.., columns] however many axes it has.
struct Piece {
  std::string theirs;
  std::vector<int64_t> shape;
  std::string ours;  // empty: export writes `constant`, import leaves the tensor out
  int64_t first = 0, rows = 0, columns = 0;
  bool transposed = false;  // theirs is [columns, rows]
  std::vector<float> constant = {};
  std::string tied = {};  // stands for theirs in a checkpoint that holds shared tensors once
  std::string projection =
      {};  // ours is theirs [rows, e] times the transpose of this [columns, e], e as the file has it
};

/// A format: its settings and its pieces.
struct Format {
  const char* name;
  /// Settings of a config.json; fails with what cannot be expressed.
  ModelConfig (*read_settings)(const Json& settings, const std::string& where, const ImportOptions& options);
  /// The reason why a model cannot be written in this format, or nothing.
  std::string (*obstacle)(const ModelConfig& config);
  Json (*write_settings)(const ModelConfig& config);
  std::vector<Piece> (*pieces)(const ModelConfig& config);
  /// The name of a plain output layer's own matrix, which must be the embedding where it is there at all.
  const char* tied;
  const char* embedding;
};

extern const Format transfo_xl, xlnet;

/// A setting of config.json, or its default where the file leaves it out (files are written without what is default).
template <class T>
T setting(const Json& settings, const std::string& where, const char* key, const T& otherwise) {
  auto found = settings.find(key);
  if (found == settings.end()) return otherwise;
  try {
    return found->get<T>();
  } catch (const Json::exception&) {
    fail("{}: \"{}\" is {}, which is of the wrong type", where, key, found->dump());
  }
}

}  // namespace longhand::interchange
