// longhand info: what a file of the engine holds.
#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "longhand/ceilings.h"
#include "longhand/data.h"
#include "longhand/files.h"
#include "longhand/parameters.h"
#include "longhand/safetensors.h"
#include "src/cli/command.h"

namespace longhand::cli {
namespace {

using Json = nlohmann::ordered_json;

struct TensorRow {
  std::string name, type;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
};

std::vector<TensorRow> tensor_rows(const SafetensorsFile& file) {
  std::vector<TensorRow> rows;
  for (const std::string& name : file.names()) {
    TensorRow row{name, "", file.full_shape(name), 0};
    int64_t elements = 1;
    for (int64_t size : row.shape) elements *= size;
    ConstTensor tensor = file.tensor(name);
    row.type = dtype_name(tensor.type());
    row.bytes = elements * dtype_bytes(tensor.type());
    rows.push_back(std::move(row));
  }
  return rows;
}

std::string kind_of(const SafetensorsFile& file) {
  auto stated = file.metadata().find("longhand.kind");
  if (stated != file.metadata().end()) return stated->second;
  for (const std::string& name : file.names())
    if (name.starts_with("optimizer.")) return "checkpoint";
  return file.has("embedding.weight") ? "weights" : "tensors";
}

bool is_model(const SafetensorsFile& file) {
  return file.has("embedding.weight") && file.metadata().contains("longhand.config");
}

Json streams_of(const std::string& path) {
  TokenFile tokens(path);
  Json streams = Json::array();
  auto add = [&](const TokenStream& stream) {
    streams.push_back({{"name", stream.name},
                       {"tokens", stream.size()},
                       {"documents", stream.documents.elements()},
                       {"bytes", stream.bytes}});
  };
  add(tokens.train());
  for (const TokenStream& stream : tokens.validation()) add(stream);
  return streams;
}

Json describe(const SafetensorsFile& file) {
  Json info;
  info["file"] = file.path();
  info["bytes"] = std::filesystem::file_size(file.path());
  info["kind"] = kind_of(file);
  if (is_model(file)) {
    ModelConfig config = read_config(file);
    info["config"] = Json::parse(config.json());
    info["parameters"] = config.parameters();
    info["matrix_parameters"] = config.matrix_parameters();
  }
  info["tokenizer"] = file.has("tokenizer.model") || file.has("tokenizer.words");
  if (info["kind"] == "tokens") info["streams"] = streams_of(file.path());
  info["tensors"] = Json::array();
  for (const TensorRow& row : tensor_rows(file))
    info["tensors"].push_back({{"name", row.name}, {"type", row.type}, {"shape", row.shape}, {"bytes", row.bytes}});
  info["metadata"] = Json::object();
  for (const auto& [key, value] : file.metadata())
    if (!key.starts_with("checksum.")) info["metadata"][key] = value;
  info["checksums_verified"] = file.verify();
  return info;
}

std::string with_commas(int64_t value) {
  std::string digits = std::to_string(value);
  for (int64_t at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) digits.insert(at, ",");
  return digits;
}

void print_tensors(const Json& tensors) {
  size_t widest = 4;
  for (const Json& row : tensors) widest = std::max(widest, row["name"].get_ref<const std::string&>().size());
  fmt::print("\ntensors\n");
  for (const Json& row : tensors) {
    std::string shape = fmt::format("[{}]", fmt::join(row["shape"].get<std::vector<int64_t>>(), ", "));
    fmt::print("  {:{}}  {:4}  {:<16}  {:>14} bytes\n", row["name"].get<std::string>(), widest,
               row["type"].get<std::string>(), shape, with_commas(row["bytes"]));
  }
}

void print_text(const Json& info) {
  fmt::print("{}: {}, {} bytes in {} tensors\n", info["file"].get<std::string>(), info["kind"].get<std::string>(),
             with_commas(info["bytes"]), info["tensors"].size());
  if (info.contains("config")) {
    fmt::print("\nconfiguration\n");
    for (const auto& [key, value] : info["config"].items())
      fmt::print("  {:16} {}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    fmt::print("\nparameters {}, of these in matrices {}\n", with_commas(info["parameters"]),
               with_commas(info["matrix_parameters"]));
  }
  if (info.contains("streams")) {
    fmt::print("\nstreams\n");
    for (const Json& stream : info["streams"])
      fmt::print("  {:12} {:>14} tokens {:>10} documents {:>14} bytes\n", stream["name"].get<std::string>(),
                 with_commas(stream["tokens"]), with_commas(stream["documents"]), with_commas(stream["bytes"]));
  }
  print_tensors(info["tensors"]);
  if (!info["metadata"].empty()) {
    fmt::print("\nmetadata\n");
    for (const auto& [key, value] : info["metadata"].items())
      fmt::print("  {:24} {}\n", key, printable(value.get<std::string>()));
  }
  int64_t verified = info["checksums_verified"];
  fmt::print("\ntokenizer {}; checksums {}\n", info["tokenizer"].get<bool>() ? "inside" : "absent",
             verified ? fmt::format("of {} tensors verified", verified) : "absent");
}

void print_machine(Device& device, bool as_json) {
  Ceilings c = device.ceilings();
  if (as_json)
    return fmt::print("{}\n", Json({{"processor", c.processor},
                                    {"threads", c.threads},
                                    {"fma_fp32", c.fma_fp32},
                                    {"dot_bf16", c.dot_bf16},
                                    {"read_bytes", c.read_bytes}})
                                  .dump());
  fmt::print(
      "{}, {} threads\n  fp32 multiply-adds  {:7.1f} GFLOP/s\n  bf16 dot products   {:7.1f} GFLOP/s\n"
      "  memory reads        {:7.1f} GB/s\n",
      c.processor, c.threads, c.fma_fp32 / 1e9, c.dot_bf16 / 1e9, c.read_bytes / 1e9);
}

}  // namespace

void add_info(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "info", "show what a file holds, or what this machine can do");
  auto path = std::make_shared<std::string>();
  command->add_option("FILE", *path,
                      "weights, a checkpoint or a token file; without one, the machine's measured ceilings");
  command->callback([path, &common] {
    common.run = [path, &common] {
      if (path->empty()) return print_machine(*common.make(), common.json);
      Json info = describe(SafetensorsFile(*path));
      if (common.json)
        fmt::print("{}\n", info.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
      else
        print_text(info);
    };
  });
}

}  // namespace longhand::cli
