// Checkpoints: one safetensors file with weights, master weights, moments, the memory of every lane, and in its
// metadata where the loader and the guards stand. Random numbers need no state: they are keyed by (seed, step).
#include <cstring>
#include <nlohmann/json.hpp>

#include "src/base/json.h"
#include "src/train/flags.h"
#include "src/train/trainer_state.h"

namespace longhand {
namespace {

using Json = nlohmann::ordered_json;
constexpr const char* training_key = "longhand.training";

/// Names the data without its path: a resumed run must read the same tokens.
Json data_identity(const TokenStream& train) {
  uint32_t sum = crc32c(train.tokens.data(), train.tokens.bytes());
  for (const ConstTensor& marks : {train.answers, train.tasks})
    if (marks) sum = crc32c(marks.data(), marks.bytes(), sum);
  if (train.labels)
    for (const std::vector<ExampleLabel>& labels : *train.labels)
      sum = crc32c(labels.data(), static_cast<int64_t>(labels.size() * sizeof(ExampleLabel)), sum);
  if (train.variants) {
    uint32_t made_by = train.variants->checksum();
    sum = crc32c(&made_by, sizeof made_by, sum);
  }
  return {{"tokens", train.size()}, {"checksum", fmt::format("{:08x}", sum)}};
}

Json training_state(const Trainer::State& s) {
  LoaderState loader = s.loader->state();
  return {{"step", s.step},
          {"updates", s.updates},
          {"loader", {{"step", loader.step}, {"epoch", loader.epoch}}},
          {"memory", {{"length", s.memory.length()}, {"first_position", s.memory.first_position()}}},
          {"guard", {{"mean", s.guard.mean}, {"accepted", s.guard.accepted}, {"skipped", s.guard.skipped}}},
          {"best", s.best < std::numeric_limits<double>::max() ? Json(s.best) : Json()},
          {"since_best", s.since_best},
          {"thawed", s.unfreezing.state()},
          {"base", s.base},
          {"threads", s.device.threads()},
          {"data", data_identity(s.data.train())},
          {"flags", Json::parse(s.options.json())}};
}

Json read_state(const SafetensorsFile& file) {
  auto entry = file.metadata().find(training_key);
  if (entry == file.metadata().end())
    fail_usage("{} holds weights but no training state: start from it with --init, not --resume", file.path());
  Json state = parse_json<Json>(entry->second);
  if (!state.is_object()) fail("{}: its training state is not a JSON object", file.path());
  return state;
}

std::string memory_name(const ModelConfig& config, size_t piece) {
  return piece < static_cast<size_t>(config.n_layer) ? fmt::format("memory.{}", piece) : "memory.segment_ids";
}

Shape memory_shape(const Trainer::State& s, size_t piece, int64_t length) {
  if (piece < static_cast<size_t>(s.options.config.n_layer)) return {length, s.options.lanes, s.options.config.d_model};
  return {length, s.options.lanes};
}

Dtype memory_type(const Trainer::State& s, size_t piece) {
  return piece < static_cast<size_t>(s.options.config.n_layer) ? s.options.type : Dtype::u8;
}

void add(std::vector<NamedTensor>& to, std::vector<NamedTensor> more) {
  for (NamedTensor& tensor : more) to.push_back(std::move(tensor));
}

void add_tokenizer(std::vector<NamedTensor>& to, std::string_view model) {
  if (!model.empty())
    to.push_back({"tokenizer.model", ConstTensor(model.data(), Dtype::u8, {static_cast<int64_t>(model.size())})});
}

/// Of a file with weights; one with packed matrices says so as a quantised file does.
std::map<std::string, std::string> metadata_of(const Trainer::State& s, const char* kind) {
  std::map<std::string, std::string> metadata{{"longhand.kind", kind}, {"longhand.config", s.options.config.json()}};
  if (!s.options.held.empty()) metadata["longhand.quantization"] = Json{{"type", s.options.base}}.dump();
  return metadata;
}

/// Fails with the first setting in which two runs differ.
void must_agree(const Json& then, const Json& now, const std::string& where, const std::string& prefix) {
  for (const auto& [key, value] : now.items()) {
    Json before = then.contains(key) ? then[key] : Json();
    if (before != value)
      fail_usage(
          "{} was made with {}{} {}, this run has {}: give the same to --resume, or start a new run from its "
          "weights with --init {}",
          where, prefix, key, before.dump(), value.dump(), where);
  }
}

void check_agreement(const Trainer::State& s, const Json& state, const SafetensorsFile& file) {
  must_agree(Json::parse(read_config(file).json()), Json::parse(s.options.config.json()), file.path(), "");
  Json flags = Json::parse(s.options.json());
  auto forget = [&](const TrainFlag& flag, const auto&) {
    if (flag.later == Later::may_change) flags.erase(std::string(flag_key(flag)));
  };
  visit_train_flags(s.options, forget), visit_finetune_flags(s.options, forget);
  must_agree(state.at("flags"), flags, file.path(), "--");
  if (state.at("data") != data_identity(s.data.train()))
    fail_usage(
        "{} was made from other data ({} tokens, checksum {}) than --tokens holds ({} tokens): give the same "
        "file to --resume",
        file.path(), state.at("data").at("tokens").get<int64_t>(), state.at("data").at("checksum").get<std::string>(),
        s.data.train().size());
}

void restore_memory(Trainer::State& s, const SafetensorsFile& file, int64_t length, int64_t first_position) {
  if (length < 0 || length > s.options.config.mem_len)
    fail("{}: a memory of {} rows where the model has {}", file.path(), length, s.options.config.mem_len);
  std::vector<ConstTensor> pieces;
  size_t count = length > 0 ? s.options.config.n_layer + (s.options.config.segments ? 1 : 0) : 0;
  for (size_t i = 0; i < count; ++i) {
    std::string name = memory_name(s.options.config, i);
    ConstTensor tensor = file.tensor(name);
    Shape wanted = memory_shape(s, i, length);
    if (tensor.shape() != wanted || tensor.type() != memory_type(s, i))
      fail("{}: tensor {} is {} {}, this run needs {} {}", file.path(), name, dtype_name(tensor.type()),
           tensor.shape().text(), dtype_name(memory_type(s, i)), wanted.text());
    pieces.push_back(tensor);
  }
  s.memory.restore(pieces, length, first_position);
}

}  // namespace

TrainOptions read_train_options(const SafetensorsFile& file) {
  Json state = read_state(file);
  return parse_train_options(state.contains("flags") ? state["flags"].dump() : "", read_config(file), file.path());
}

void Trainer::save_checkpoint(const std::string& path, std::string_view tokenizer_model) {
  State& s = *state_;
  std::vector<std::vector<char>> storage;
  std::vector<NamedTensor> tensors = host_tensors(s.device, s.weights, "", storage);
  if (s.master) add(tensors, host_tensors(s.device, *s.master, "master.", storage));
  add(tensors, host_tensors(s.device, s.m, "optimizer.m.", storage));
  add(tensors, host_tensors(s.device, s.v, "optimizer.v.", storage));
  std::vector<std::vector<char>> memory = s.memory.save();
  for (size_t i = 0; i < memory.size(); ++i)
    tensors.push_back({memory_name(s.options.config, i),
                       ConstTensor(memory[i].data(), memory_type(s, i), memory_shape(s, i, s.memory.length()))});
  std::vector<float> losses = s.loader->losses();
  if (!losses.empty())
    tensors.push_back(
        {"curriculum.losses", ConstTensor(losses.data(), Dtype::fp32, {static_cast<int64_t>(losses.size())})});
  add_tokenizer(tensors, tokenizer_model);
  std::map<std::string, std::string> metadata = metadata_of(s, "checkpoint");
  metadata[training_key] = training_state(s).dump();
  write_safetensors(path, tensors, metadata);
}

void Trainer::save_weights(const std::string& path, std::string_view tokenizer_model) {
  State& s = *state_;
  std::vector<std::vector<char>> storage;
  std::vector<NamedTensor> tensors = host_tensors(s.device, s.weights, "", storage);
  if (s.options.config.extended()) {
    std::erase_if(tensors, [&](const NamedTensor& tensor) { return !s.options.trains(tensor.name); });
    std::map<std::string, std::string> metadata{{"longhand.kind", "adapter"},
                                                {"longhand.config", s.options.config.json()}};
    if (!s.base.empty()) metadata["longhand.base"] = s.base;
    write_safetensors(path, tensors, metadata);
    return;
  }
  add_tokenizer(tensors, tokenizer_model);
  write_safetensors(path, tensors, metadata_of(s, "weights"));
}

std::string Trainer::restore(const SafetensorsFile& file) {
  State& s = *state_;
  Json state = read_state(file);
  try {
    check_agreement(s, state, file);
    load_parameters(s.device, s.weights, file);
    if (s.master) load_parameters(s.device, *s.master, file, "master.");
    load_parameters(s.device, s.m, file, "optimizer.m."), load_parameters(s.device, s.v, file, "optimizer.v.");
    restore_memory(s, file, state.at("memory").at("length").get<int64_t>(),
                   state.at("memory").at("first_position").get<int64_t>());
    if (file.has("curriculum.losses")) {
      ConstTensor losses = file.tensor("curriculum.losses");
      if (losses.type() != Dtype::fp32) fail("{}: tensor curriculum.losses is not fp32", file.path());
      std::vector<float> values(losses.elements());
      std::memcpy(values.data(), losses.data(), losses.bytes());
      s.loader->take_losses(std::move(values));
    }
    s.loader->restore(
        {.step = state.at("loader").at("step").get<int64_t>(), .epoch = state.at("loader").at("epoch").get<int64_t>()});
    const Json& guard = state.at("guard");
    s.guard = {guard.at("mean").get<double>(), guard.at("accepted").get<int64_t>(), guard.at("skipped").get<int64_t>()};
    if (state.contains("best") && state["best"].is_number()) s.best = state["best"].get<double>();
    s.base = state.value("base", "");
    s.unfreezing.restore(state.value("thawed", std::vector<int64_t>{0}));
    s.show_gradients();
    s.since_best = state.value("since_best", int64_t{0});
    s.step = state.at("step").get<int64_t>(), s.updates = state.at("updates").get<int64_t>();
  } catch (const Json::exception& error) {
    fail("{}: its training state cannot be read: {}", file.path(), error.what());
  }
  int threads = state.value("threads", s.device.threads());
  if (threads == s.device.threads()) return "";
  return fmt::format("the checkpoint was made with --threads {}, this run has {}: last bits may differ", threads,
                     s.device.threads());
}

}  // namespace longhand
