#include "src/cli/options.h"

#include <filesystem>
#include <iostream>
#include <iterator>

#include "longhand/data.h"
#include "longhand/files.h"

namespace longhand::cli {
namespace {

std::string shipped_weights() {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::path program = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (const fs::path& folder : {program, program / "..", fs::path(".")}) {
    fs::path path = folder / "weights" / "tiny.safetensors";
    if (fs::exists(path, error)) return path.lexically_normal().string();
  }
  fail_usage("--model FILE is missing, and no weights/tiny.safetensors lies beside the program or here");
}

}  // namespace

void add_weight_flags(CLI::App& command, ModelFlags& flags) {
  command.add_option("--model,--init", flags.path, "weights; without it those that come with the program")
      ->type_name("FILE")
      ->group("Model");
  command.add_option("--dtype", flags.dtype, "type in which the weights are held: fp32 or bf16")
      ->type_name("TYPE")
      ->group("Model");
  command
      .add_option("--activations", flags.activations,
                  "floats, or int8: rounded for products with int8 weights, which reads prompts faster")
      ->type_name("TYPE")
      ->group("Model");
}

void add_model_flags(CLI::App& command, ModelFlags& flags) {
  add_weight_flags(command, flags);
  command.add_option("--adapter", flags.adapters, "adapter file for the weights; may be repeated")
      ->type_name("FILE")
      ->allow_extra_args(false)
      ->group("Model");
}

OpenModel open_model(Device& device, const ModelFlags& flags, AdapterUse use) {
  std::string path = flags.path.empty() ? shipped_weights() : flags.path;
  std::vector<std::string> merged, beside;
  (use == AdapterUse::merged ? merged : beside) = flags.adapters;
  OpenModel open{path, load_model(device, path, parse_dtype(flags.dtype), merged), {}};
  for (const std::string& adapter : beside) add_adapter(device, adapter, open.model);
  open.model.weights.interleave(device);
  apply_activations(flags.activations, open.model.weights, path);
  if (!open.model.tokenizer.empty()) open.tokenizer.emplace(open.model.tokenizer);
  if (!open.model.words.empty()) open.tokenizer = Tokenizer::of_words(open.model.words);
  return open;
}

void apply_activations(const std::string& activations, ParameterSet& weights, const std::string& whose) {
  if (activations == "floats") return;
  if (activations != "int8") fail_usage("--activations {}: it takes floats or int8", activations);
  if (weights.quantize_activations() == 0)
    fail_usage("--activations int8: {} holds no int8 weights with a scale a row (longhand quantize --type int8)",
               whose);
}

Dtype parse_dtype(const std::string& name) {
  if (name == "fp32") return Dtype::fp32;
  if (name == "bf16") return Dtype::bf16;
  fail_usage("--dtype {}: it takes fp32 or bf16", name);
}

std::string read_text(const std::string& path) {
  std::string text = path == "-" ? std::string(std::istreambuf_iterator<char>(std::cin), {}) : read_file(path);
  check_utf8(text, path == "-" ? "standard input" : path);
  return text;
}

void check_utf8(const std::string& text, const std::string& where) {
  int64_t byte = find_invalid_utf8(text);
  if (byte >= 0) fail("{}: byte {} is not valid UTF-8", where, byte);
}

std::vector<int32_t> parse_ids(const std::string& text, int64_t vocab_size) {
  std::vector<uint32_t> parsed;
  try {
    parsed = parse_token_ids(text, "--ids");
  } catch (const Error& error) {
    throw UsageError(error.what());
  }
  for (uint32_t id : parsed)
    if (id >= vocab_size) fail_usage("--ids: token {} is outside the model's vocabulary of {}", id, vocab_size);
  return {parsed.begin(), parsed.end()};
}

void add_sampling_flags(CLI::App& command, SamplingFlags& flags) {
  const char* group = "Writing";
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type) {
    command.add_option(name, value, meaning)->type_name(type)->group(group);
  };
  add("--tokens,--max-tokens", flags.tokens, "new tokens at most", "N");
  add("--temperature", flags.temperature, "divides the logits; 0 takes the likeliest token", "X");
  add("--top-k", flags.top_k, "draw among the K likeliest tokens; 0 = off", "K");
  add("--top-p", flags.top_p, "draw among the likeliest tokens that reach this probability together; 1 = off", "P");
  add("--min-p", flags.min_p, "leave out tokens below this share of the likeliest one's probability; 0 = off", "P");
  add("--repetition-penalty", flags.repetition_penalty, "makes tokens of the window less likely; 1 = off", "X");
  add("--window", flags.window, "keys that a token sees; 0 = segment + memory of the model's training", "N");
  add_speculate_flag(command, flags.speculate, group);
  command.add_option("--stop", flags.stop, "end before this text; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false)
      ->group(group);
  command.add_flag("--ignore-end", flags.ignore_end, "write on past the end of a document")->group(group);
}

void add_speculate_flag(CLI::App& command, int64_t& speculate, const char* group) {
  command
      .add_option("--speculate", speculate,
                  "tokens that are foretold from repetitions and read at once, at most; the text is the same; 0 = off")
      ->type_name("K")
      ->group(group);
}

Speculation speculation(int64_t speculate) {
  if (speculate < 0 || speculate > Speculation::limit)
    fail_usage("--speculate {}: it is between 0 and {}", speculate, Speculation::limit);
  return {.most = speculate};
}

void add_decoder_flags(CLI::App& command, DecoderFlags& flags, const char* group) {
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type) {
    command.add_option(name, value, meaning)->type_name(type)->group(group);
  };
  add("--ring", flags.ring, "type of the keys and values that are kept: fp32, bf16 or int8 (default: --dtype)", "TYPE");
  add("--attention", flags.attention, "dense, topk (--keys) or pages (--pages); default: as the model was trained",
      "NAME");
  add("--keys", flags.keys, "keys that a token attends to, the best (with --attention topk)", "N");
  add("--pages", flags.pages, "pages of 64 keys that a token attends to, the best (with --attention pages)", "N");
}

void DecoderFlags::apply(DecoderShape& shape) const {
  if (ring == "int8")
    shape.ring = Dtype::i8;
  else if (ring == "fp32" || ring == "bf16")
    shape.ring = ring == "fp32" ? Dtype::fp32 : Dtype::bf16;
  else if (!ring.empty())
    fail_usage("--ring {}: it takes fp32, bf16 or int8", ring);
  if (!attention.empty() && attention != "dense" && attention != "topk" && attention != "pages")
    fail_usage("--attention {}: it takes dense, topk or pages", attention);
  if (keys != 0 && attention != "topk") fail_usage("--keys goes with --attention topk");
  if (pages != 0 && attention != "pages") fail_usage("--pages goes with --attention pages");
  if (attention == "topk" && keys < 1) fail_usage("--attention topk needs --keys N, 1 or more");
  if (attention == "pages" && pages < 2) fail_usage("--attention pages needs --pages N, 2 or more: the newest two");
  if (attention == "dense") shape.choice = KeyChoice{};
  if (attention == "topk") shape.choice = KeyChoice{keys, TopkMode::exact};
  if (attention == "pages") shape.choice = KeyChoice{64 * pages, TopkMode::block};
}

SamplingParameters SamplingFlags::rules(uint64_t seed, uint64_t sample) const {
  if (!(temperature >= 0)) fail_usage("--temperature {}: it is 0 or more", temperature);
  if (!(top_p > 0 && top_p <= 1)) fail_usage("--top-p {}: it is above 0 and at most 1", top_p);
  if (!(min_p >= 0 && min_p <= 1)) fail_usage("--min-p {}: it is between 0 and 1", min_p);
  if (!(repetition_penalty > 0)) fail_usage("--repetition-penalty {}: it is above 0", repetition_penalty);
  if (top_k < 0) fail_usage("--top-k {}: it is 0 or more", top_k);
  if (tokens < 0) fail_usage("--tokens {}: it is 0 or more", tokens);
  if (window < 0) fail_usage("--window {}: it is 0 or more", window);
  SamplingParameters rules;
  rules.temperature = static_cast<float>(temperature), rules.top_p = static_cast<float>(top_p);
  rules.min_p = static_cast<float>(min_p), rules.repetition_penalty = static_cast<float>(repetition_penalty);
  rules.top_k = top_k;
  rules.stream = {seed, sample, RandomUse::sampling, 0};
  return rules;
}

}  // namespace longhand::cli
