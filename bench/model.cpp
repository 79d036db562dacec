// Training and decoding of a preset on one device, with the core library alone: tokens a second and their share of the
// device's speed of light; with --against, the losses of another device beside.
//
//   model train  --preset base --device cuda --steps 10 [--lanes 4] [--segment 2048] [--memory 2048] [--dtype bf16]
//   model decode --preset base --device cuda --tokens 128 [--sequences 1] [--window 4096] [--dtype bf16]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "longhand/generate.h"
#include "longhand/train.h"

namespace longhand {
namespace {

struct Flags {
  std::string task;
  std::map<std::string, std::string> given = {
      {"preset", "tiny"}, {"device", "auto"}, {"against", ""},  {"dtype", "fp32"}, {"steps", "10"},   {"lanes", "4"},
      {"segment", "0"},   {"memory", "-1"},   {"tokens", "64"}, {"window", "0"},   {"sequences", "1"}};

  Flags(int argc, char** argv) {
    if (argc > 1) task = argv[1];
    if (task != "train" && task != "decode") fail_usage("model train|decode [--FLAG VALUE]...");
    for (int i = 2; i < argc; i += 2) {
      std::string name = argv[i];
      if (!name.starts_with("--") || !given.count(name.substr(2)) || i + 1 == argc)
        fail_usage("{} is unknown or needs a value", name);
      given[name.substr(2)] = argv[i + 1];
    }
  }
  const std::string& text(const char* name) const { return given.at(name); }
  int64_t number(const char* name) const { return std::atoll(text(name).c_str()); }
  Dtype type() const {
    if (text("dtype") != "fp32" && text("dtype") != "bf16") fail_usage("--dtype {}: fp32 or bf16", text("dtype"));
    return text("dtype") == "bf16" ? Dtype::bf16 : Dtype::fp32;
  }
};

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<int64_t>(values.size()) / 2, values.end());
  return values[values.size() / 2];
}

/// A file of token ids for as long as it lives.
class IdsFile {
 public:
  IdsFile(int64_t count, int64_t vocabulary)
      : path_(std::filesystem::temp_directory_path() / fmt::format("longhand-bench-{}.txt", std::random_device{}())) {
    std::ofstream out(path_);
    for (int64_t i = 0; i < count; ++i) out << (i * 7919 + i / 13) % vocabulary << (i % 16 == 15 ? '\n' : ' ');
  }
  ~IdsFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TrainOptions train_options(const Flags& flags) {
  TrainOptions o;
  o.config = preset(flags.text("preset"));
  if (flags.number("memory") >= 0) o.config.mem_len = flags.number("memory");
  o.lanes = flags.number("lanes"), o.segment = flags.number("segment"), o.steps = flags.number("steps");
  o.type = flags.type(), o.seed = 1;
  o.resolve(0);
  return o;
}

std::vector<StepReport> run_steps(const std::string& device_name, const TrainOptions& options, const TokenFile& data) {
  auto device = make_device(device_name);
  Trainer trainer(*device, options, data, 0);
  std::vector<StepReport> reports;
  while (trainer.steps_done() < options.steps) reports.push_back(trainer.step());
  return reports;
}

void train(const Flags& flags) {
  TrainOptions options = train_options(flags);
  IdsFile ids(options.lanes * options.segment * (options.steps + 1) + 1, options.config.vocab_size);
  TokenFile data(ids.path());
  std::vector<StepReport> reports = run_steps(flags.text("device"), options, data);
  std::vector<double> seconds;
  for (size_t i = reports.size() > 2 ? 2 : 0; i < reports.size(); ++i) seconds.push_back(reports[i].seconds);
  double time = median(seconds), flops = reports.back().flops / time;
  auto device = make_device(flags.text("device"));
  Ceilings ceilings = device->ceilings();
  double peak = options.type == Dtype::bf16 ? ceilings.dot_bf16 : ceilings.fma_fp32;
  fmt::print(
      "{{\"task\": \"train\", \"preset\": \"{}\", \"device\": \"{}\", \"dtype\": \"{}\", \"lanes\": {}, \"segment\": "
      "{}, "
      "\"memory\": {}, \"tokens_per_s\": {:.1f}, \"gigaflops\": {:.1f}, \"percent_of_peak\": {:.1f}",
      flags.text("preset"), device->name(), flags.text("dtype"), options.lanes, options.segment, options.config.mem_len,
      static_cast<double>(reports.back().tokens) / time, flops * 1e-9, 100 * flops / peak);
  if (!flags.text("against").empty()) {
    std::vector<StepReport> other = run_steps(flags.text("against"), options, data);
    double worst = 0;
    for (size_t i = 0; i < reports.size(); ++i)
      worst = std::max(worst, std::abs(reports[i].loss - other[i].loss) / other[i].loss);
    fmt::print(", \"against\": \"{}\", \"largest_relative_difference_of_losses\": {:.3g}", flags.text("against"),
               worst);
  }
  fmt::print("}}\n");
}

void decode(const Flags& flags) {
  auto device = make_device(flags.text("device"));
  ModelConfig config = preset(flags.text("preset"));
  ParameterSet weights("weights", config, flags.type());
  weights.commit(*device);
  initialize(*device, weights, 1);
  int64_t sequences = flags.number("sequences");
  Decoder decoder(*device, config, weights, {.sequences = sequences, .window = flags.number("window")});
  Writer writer(*device, decoder);
  std::vector<WrittenText> texts(sequences);
  std::vector<WrittenText*> open;
  for (int64_t i = 0; i < sequences; ++i) {
    texts[i].sequence = static_cast<int32_t>(i), texts[i].tokens = {static_cast<int32_t>(i + 1)};
    texts[i].rules.temperature = 0;
    open.push_back(&texts[i]);
  }
  std::vector<double> seconds;
  for (int64_t i = 0; i < flags.number("tokens") + 4; ++i) {
    auto begin = std::chrono::steady_clock::now();
    writer.next(open);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  seconds.erase(seconds.begin(), seconds.begin() + 4);
  double time = median(seconds), bytes = static_cast<double>(weights.bytes()) / time;
  fmt::print(
      "{{\"task\": \"decode\", \"preset\": \"{}\", \"device\": \"{}\", \"dtype\": \"{}\", \"sequences\": {}, "
      "\"window\": {}, "
      "\"tokens_per_s\": {:.1f}, \"weights_gigabytes_per_s\": {:.1f}, \"percent_of_bandwidth\": {:.1f}}}\n",
      flags.text("preset"), device->name(), flags.text("dtype"), sequences, decoder.window(),
      static_cast<double>(sequences) / time, bytes * 1e-9, 100 * bytes / device->ceilings().read_bytes);
}

}  // namespace
}  // namespace longhand

int main(int argc, char** argv) {
  try {
    longhand::Flags flags(argc, argv);
    flags.task == "train" ? longhand::train(flags) : longhand::decode(flags);
    return 0;
  } catch (const longhand::UsageError& error) {
    fmt::print(stderr, "model: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "model: {}\n", error.what());
    return 1;
  }
}
