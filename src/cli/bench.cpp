// longhand bench: speed beside the machine's limits, and what fewer bits cost.
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "longhand/bench.h"
#include "longhand/files.h"
#include "src/cli/bench_attention.h"
#include "src/cli/bench_load.h"
#include "src/cli/bench_speculation.h"
#include "src/cli/calibration.h"
#include "src/cli/options.h"

namespace longhand::cli {
namespace {

using Json = nlohmann::ordered_json;

struct BenchFlags {
  std::string task, preset = "base", types, dtype = "fp32", activations = "floats", group, model, data;
  int64_t tokens = 0, sequences = 1, window = 0, rounds = 0;
  DecoderFlags decoder;
  int64_t text_tokens = 60000;
  bool calibrate = false;
  ChoiceTask choices;
  serve::LoadOptions load;
  SpeculationFlags speculation;
};

/// A preset by its name, or a configuration by its file.
ModelConfig config_of(const std::string& preset_or_file) {
  if (!preset_or_file.ends_with(".json")) return preset(preset_or_file);
  return parse_config(read_file(preset_or_file), preset_or_file);
}

std::vector<QuantizeOptions> types_of(const BenchFlags& flags, const std::string& otherwise) {
  std::vector<QuantizeOptions> list;
  std::istringstream names(flags.types.empty() ? otherwise : flags.types);
  for (std::string name; std::getline(names, name, ',');) {
    list.push_back(QuantizeOptions::of(parse_weight_type(name, "--types")));
    if (!flags.group.empty() && flags.group != "row" && flags.group != "64")
      fail_usage("--group {}: it takes row or 64", flags.group);
    if (!flags.group.empty()) list.back().grouped = flags.group == "64";
  }
  return list;
}

std::string gigabytes(int64_t bytes) { return fmt::format("{:.2f}", static_cast<double>(bytes) / 1e9); }

Json json_of(const Speed& speed) {
  return {{"tokens_per_s", speed.tokens_per_s},
          {"bytes_read", speed.bytes},
          {"bytes_per_s", speed.bytes / speed.seconds},
          {"operations_per_s", speed.operations / speed.seconds},
          {"weight_bytes", speed.weight_bytes},
          {"decoder_bytes", speed.decoder_bytes},
          {"read_rate", speed.read_rate},
          {"read_share", speed.read_share}};
}

void print_machine(const Ceilings& limit) {
  fmt::print("{}, {} threads: reads {:.1f} GB/s, fp32 {:.1f} GFLOP/s\n\n", limit.processor, limit.threads,
             limit.read_bytes / 1e9, limit.fma_fp32 / 1e9);
}

/// A line for every type of weights; `measure` gives its speed.
template <class Measure>
void run_speed(const BenchFlags& flags, const Common& common, const char* what, const Measure& measure) {
  Dtype type = parse_dtype(flags.dtype);
  ModelConfig config = config_of(flags.preset);
  auto device = common.make();
  Ceilings limit = device->name() == "cpu" ? measure_ceilings(device->threads()) : device->ceilings();
  if (!common.json) {
    print_machine(limit);
    fmt::print(
        "{} parameters, {}\n\n| weights | tokens/s | GB read a call | GB/s | of read | GOP/s | of fp32 | weights, "
        "GB | decoder, GB |\n|---|---|---|---|---|---|---|---|---|\n",
        config.parameters(), what);
  }
  for (const QuantizeOptions& options : types_of(flags, "int8")) {
    ParameterSet weights = random_weights(*device, config, quantized_formats(config, options, type), common.seed);
    apply_activations(flags.activations, weights, flags.preset);
    Speed s = measure(*device, config, weights);
    double read = s.bytes / s.seconds, operations = s.operations / s.seconds;
    double share = s.read_share > 0 ? s.read_share : read / limit.read_bytes;
    if (common.json) {
      Json line = {{"task", flags.task},
                   {"preset", flags.preset},
                   {"parameters", config.parameters()},
                   {"quantization", Json::parse(options.json())},
                   {"activations", flags.activations}};
      line.update(json_of(s));
      line["read_ceiling"] = limit.read_bytes, line["fma_ceiling"] = limit.fma_fp32;
      fmt::print("{}\n", line.dump());
    } else {
      fmt::print("| {}{} | {:.1f} | {:.3f} | {:.1f} | {:.1f}% | {:.1f} | {:.1f}% | {} | {} |\n",
                 weight_type_name(options.type), options.grouped ? ", groups of 64" : "", s.tokens_per_s, s.bytes / 1e9,
                 read / 1e9, 100 * share, operations / 1e9, 100 * operations / limit.fma_fp32,
                 gigabytes(s.weight_bytes), gigabytes(s.decoder_bytes));
    }
    std::fflush(stdout);
  }
}

/// A folder for as long as it lives.
struct Folder {
  std::string path;
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "longhand-bench.XXXXXX").string();
    if (!mkdtemp(pattern.data())) fail("{}: cannot make a folder", pattern);
    path = pattern;
  }
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
};

struct Quality {
  std::string name;
  int64_t file_bytes = 0;
  double bits = 0;
  std::vector<bool> right;
  Speed speed;
  double accuracy() const {
    return static_cast<double>(std::count(right.begin(), right.end(), true)) / static_cast<double>(right.size());
  }
};

/// Weights of one kind, and what becomes of activations before them (apply_activations).
struct Kind {
  QuantizeOptions weights;
  std::string activations = "floats";
};

Quality measure_quality(Device& device, const BenchFlags& flags, const TokenFile& data, const ModelConfig& large,
                        const Kind& kind, const Folder& folder, const Common& common) {
  const QuantizeOptions& options = kind.weights;
  Dtype type = parse_dtype(flags.dtype);
  std::string file = folder.path + "/weights.safetensors";
  quantize_model(device, flags.model, file, options);
  Quality quality{weight_type_name(options.type) + std::string(options.grouped ? ", groups of 64" : "") +
                  (options.calibration.empty() ? "" : ", calibrated") +
                  (kind.activations == "floats" ? "" : ", activations " + kind.activations)};
  quality.file_bytes = static_cast<int64_t>(std::filesystem::file_size(file));
  {
    LoadedModel model = load_model(device, file, type);
    model.weights.interleave(device);
    apply_activations(kind.activations, model.weights, file);
    quality.bits = bits_per_byte(device, model, data, flags.text_tokens);
    quality.right = choose_continuations(device, model, data, flags.choices);
  }
  ParameterSet weights = random_weights(device, large, quantized_formats(large, options, type), common.seed);
  apply_activations(kind.activations, weights, flags.preset);
  quality.speed = measure_decode(device, large, weights, {.window = flags.window}, flags.tokens ? flags.tokens : 16);
  return quality;
}

void print_quality(const Quality& q, const Quality& first, const Common& common) {
  auto percent = [](double a, double b) { return 100 * (a / b - 1); };
  double file = 100.0 * static_cast<double>(q.file_bytes) / static_cast<double>(first.file_bytes);
  if (common.json) {
    Json line = {{"weights", q.name},
                 {"file_bytes", q.file_bytes},
                 {"file_percent", file},
                 {"bits_per_byte", q.bits},
                 {"accuracy", q.accuracy()}};
    line.update(json_of(q.speed));
    line["speed_up"] = q.speed.tokens_per_s / first.speed.tokens_per_s;
    return fmt::print("{}\n", line.dump());
  }
  fmt::print("| {} | {} | {:.1f}% | {:.4f} | {:+.3f}% | {:.1f}% | {:+.2f}% | {} | {:.1f} | {:.2f} |\n", q.name,
             q.file_bytes, file, q.bits, percent(q.bits, first.bits), 100 * q.accuracy(),
             percent(q.accuracy(), first.accuracy()), gigabytes(q.speed.weight_bytes), q.speed.tokens_per_s,
             q.speed.tokens_per_s / first.speed.tokens_per_s);
}

/// int8 with a scale a row comes with rounded activations too; with --calibrate integers come once more, fitted to the
/// training text.
std::vector<Kind> kinds_of(const BenchFlags& flags, const TokenFile& data) {
  std::vector<Kind> list;
  for (const QuantizeOptions& options : types_of(flags, "fp32,bf16,fp16,int8,int4")) {
    list.push_back({options});
    if (options.type == WeightType::int8 && !options.grouped) list.push_back({options, "int8"});
    if (!flags.calibrate || options.type < WeightType::int8) continue;
    list.push_back({options});
    list.back().weights.calibration = calibration_tokens(data.train());
  }
  return list;
}

void run_quantization(const BenchFlags& flags, const Common& common) {
  if (flags.model.empty() || flags.data.empty()) fail_usage("bench quantization needs --model FILE and --data FILE");
  if (flags.choices.items < 1 || flags.choices.context < 2 || flags.choices.length < 1 || flags.text_tokens < 1)
    fail_usage("--items, --length and --text-tokens are 1 or more, --context 2 or more");
  auto device = common.make();
  TokenFile data(flags.data);
  ModelConfig large = config_of(flags.preset);
  Folder folder;
  if (!common.json) {
    print_machine(measure_ceilings(device->threads()));
    fmt::print(
        "quality of {}, {} choices; memory and speed at {} parameters, drawn\n\n| weights | file, bytes | of "
        "fp32 | bits a byte | | choices right | | weights, GB | tokens/s | times fp32 |\n"
        "|---|---|---|---|---|---|---|---|---|---|\n",
        std::filesystem::path(flags.model).filename().string(), flags.choices.items, large.parameters());
  }
  std::optional<Quality> first;
  for (const Kind& kind : kinds_of(flags, data)) {
    Quality quality = measure_quality(*device, flags, data, large, kind, folder, common);
    if (!first) first = quality;
    print_quality(quality, *first, common);
    std::fflush(stdout);
  }
}

void run_bench(const BenchFlags& flags, const Common& common) {
  if (flags.sequences < 1 || flags.tokens < 0 || flags.window < 0 || flags.rounds < 0)
    fail_usage("--sequences is 1 or more, --rounds, --tokens and --window 0 or more");
  DecoderShape ignored;
  flags.decoder.apply(ignored);
  if ((ignored.ring || ignored.choice) && flags.task != "decode")
    fail_usage("--ring and --attention go with bench decode; bench attention compares all of them");
  int64_t tokens = flags.tokens;
  if (flags.task == "decode")
    return run_speed(flags, common, fmt::format("{} text(s), a token a call", flags.sequences).c_str(),
                     [&](Device& device, const ModelConfig& config, const ParameterSet& weights) {
                       DecoderShape shape{.sequences = flags.sequences, .window = flags.window};
                       flags.decoder.apply(shape);
                       return measure_decode(device, config, weights, shape, tokens ? tokens : 32);
                     });
  if (flags.task == "prefill")
    return run_speed(flags, common, fmt::format("a prompt of {} tokens a call", tokens ? tokens : 512).c_str(),
                     [&](Device& device, const ModelConfig& config, const ParameterSet& weights) {
                       return measure_prefill(device, config, weights, tokens ? tokens : 512,
                                              flags.rounds ? flags.rounds : 3);
                     });
  if (flags.task == "quantization") return run_quantization(flags, common);
  if (flags.task == "speculation") {
    SpeculationFlags drafts = flags.speculation;
    drafts.model = flags.model, drafts.tokens = tokens ? tokens : drafts.tokens, drafts.window = flags.window;
    drafts.type = parse_dtype(flags.dtype), drafts.weights = types_of(flags, "int8");
    return run_speculation(drafts, config_of(flags.preset), common);
  }
  if (flags.task == "attention")
    return run_attention({.shape = config_of(flags.preset),
                          .model = flags.model,
                          .data = flags.data,
                          .dtype = parse_dtype(flags.dtype),
                          .window = flags.window ? flags.window : 4096,
                          .rounds = flags.rounds ? flags.rounds : 15,
                          .text_tokens = flags.text_tokens},
                         common);
  if (flags.task == "serve") {
    serve::LoadOptions load = flags.load;
    load.model = flags.model, load.tokens = tokens ? tokens : load.tokens;
    return run_load(load, common);
  }
  fail_usage("bench {}: it takes decode, prefill, attention, speculation, quantization or serve", flags.task);
}

}  // namespace

void add_bench(CLI::App& app, Common& common) {
  CLI::App* command =
      add_command(app, common, "bench", "measure decoding, reading, what fewer bits cost, a server under load");
  auto flags = std::make_shared<BenchFlags>();
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type, const char* group) {
    return command->add_option(name, value, meaning)->type_name(type)->group(group);
  };
  command->add_option("TASK", flags->task, "decode, prefill, attention, speculation, quantization or serve")
      ->required();
  add("--preset", flags->preset, "shape of the drawn weights: a preset, or a configuration's .json file", "NAME",
      "Speed");
  add("--types", flags->types, "types of weights, with commas: fp32, bf16, fp16, int8, int4", "LIST", "Speed");
  add("--group", flags->group, "integers that share a scale: row, or 64 neighbours (default: row; int4: 64)", "N",
      "Speed");
  add("--dtype", flags->dtype, "type of activations and of the ring: fp32 or bf16", "TYPE", "Speed");
  add("--activations", flags->activations, "decode, prefill: floats, or int8: rounded for products with int8 weights",
      "TYPE", "Speed");
  add("--tokens", flags->tokens,
      "tokens timed (default: decode 32, quantization 16, speculation 400), of the prompt (512), or of an answer (64)",
      "N", "Speed");
  add("--sequences", flags->sequences, "texts side by side (decode)", "N", "Speed");
  add("--window", flags->window, "keys that a token sees (decode; 0 = segment + memory; attention: 4096)", "N",
      "Speed");
  add("--rounds", flags->rounds, "prompts timed (prefill: 3), or tokens (attention: 15)", "N", "Speed");
  add_decoder_flags(*command, flags->decoder, "Speed");
  add("--model", flags->model,
      "trained weights (quantization, attention, speculation), or a served model's name (serve)", "FILE", "Quality");
  add("--data", flags->data, "token file with validation text (quantization, attention)", "FILE", "Quality");
  add("--text-tokens", flags->text_tokens, "tokens that bits a byte are measured on", "N", "Quality");
  command->add_flag("--calibrate", flags->calibrate, "int8 and int4 a second time, fitted to the training text")
      ->group("Quality");
  add("--items", flags->choices.items, "choices among four continuations", "N", "Quality");
  add("--context", flags->choices.context, "tokens before a choice", "N", "Quality");
  add("--length", flags->choices.length, "tokens of a continuation", "N", "Quality");
  declare_speculation(*command, flags->speculation);
  declare_load(*command, flags->load);
  command->callback([flags, &common] {
    flags->choices.seed = common.seed;
    common.run = [flags, &common] { run_bench(*flags, common); };
  });
}

}  // namespace longhand::cli
