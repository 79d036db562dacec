// longhand serve: models behind OpenAI's HTTP API, until SIGINT or SIGTERM.
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "longhand/files.h"
#include "src/cli/options.h"
#include "src/serve/server.h"

namespace longhand::cli {
namespace {

namespace fs = std::filesystem;

struct ServeFlags {
  ModelFlags model;
  DecoderFlags decoder;
  std::string folder, key_file;
  std::vector<std::string> adapters, variants;
  serve::ServerOptions options;
  int64_t read_timeout = 10, timeout = 300, grace = 30;  // seconds
};

// The weight files of a folder, by name.
std::vector<std::string> weight_files(const std::string& folder) {
  std::error_code error;
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
  if (error) fail("--models {}: {}", folder, error.message());
  if (files.empty()) fail("--models {}: no *.safetensors lies there", folder);
  std::sort(files.begin(), files.end());
  return files;
}

// An adapter's file under the name that requests give.
struct NamedFile {
  std::string name, path;
};

NamedFile parse_adapter(const std::string& text) {
  size_t equals = text.find('=');
  if (equals == text.npos || equals == 0 || equals + 1 == text.size())
    fail_usage("--adapter {}: a name and a file are needed: NAME=FILE", text);
  return {text.substr(0, equals), text.substr(equals + 1)};
}

bool holds_adapter(const std::string& path) {
  SafetensorsFile file(path);
  auto kind = file.metadata().find("longhand.kind");
  return kind != file.metadata().end() && kind->second == "adapter";
}

std::string stem(const std::string& path) { return fs::path(path).stem().string(); }

/// A model under way to being served: adapters find their weights before the engine is made.
struct Opened {
  std::unique_ptr<Device> device;
  OpenModel open;
  std::vector<serve::ServedAdapter> adapters;
};

Opened open_served(const ServeFlags& flags, const Common& common, const std::string& path) {
  ModelFlags model_flags = flags.model;
  model_flags.path = path;
  auto device = common.make();
  OpenModel open = open_model(*device, model_flags);
  if (!open.tokenizer) fail_usage("{} has no tokenizer, and a server needs one", open.path);
  return {std::move(device), std::move(open), {}};
}

// Beside the first of the models that it was made for.
void place_adapter(const NamedFile& file, std::vector<Opened>& models) {
  std::string why;
  for (Opened& model : models) try {
      model.adapters.push_back({file.name, load_adapter(*model.device, file.path, model.open.model)});
      return;
    } catch (const Error& error) {
      why = error.what();
    }
  if (models.size() == 1) fail("{}", why);
  fail("adapter {} was made for none of the models: {}", file.name, why);
}

std::vector<std::unique_ptr<serve::ServedModel>> open_all(const ServeFlags& flags, const Common& common) {
  std::vector<NamedFile> adapters;
  for (const std::string& adapter : flags.adapters) adapters.push_back(parse_adapter(adapter));
  std::vector<Opened> opened;
  if (flags.folder.empty()) {
    opened.push_back(open_served(flags, common, flags.model.path));
  } else {
    for (const std::string& file : weight_files(flags.folder))
      if (holds_adapter(file))
        adapters.push_back({stem(file), file});
      else
        opened.push_back(open_served(flags, common, file));
    if (opened.empty()) fail("--models {}: there are adapters and no weights", flags.folder);
  }
  for (const NamedFile& adapter : adapters) place_adapter(adapter, opened);
  std::vector<std::unique_ptr<serve::ServedModel>> models;
  for (Opened& one : opened)
    models.push_back(std::make_unique<serve::ServedModel>(stem(one.open.path), std::move(one.device),
                                                          std::move(one.open.model), std::move(*one.open.tokenizer),
                                                          std::move(one.adapters), flags.options.engine));
  return models;
}

// Keys never stand on a command line, where every process can read them.
std::vector<std::string> read_keys(const std::string& file) {
  std::vector<std::string> keys;
  auto add = [&](std::string key) {
    while (!key.empty() && std::isspace(static_cast<unsigned char>(key.back()))) key.pop_back();
    if (!key.empty()) keys.push_back(std::move(key));
  };
  if (const char* key = std::getenv("LONGHAND_API_KEY")) add(key);
  if (file.empty()) return keys;
  std::istringstream lines(read_file(file));
  for (std::string line; std::getline(lines, line);) add(line);
  if (keys.empty()) fail("--api-key-file {}: it holds no key", file);
  return keys;
}

// "calm,model=small,share=0.8,temperature=0.7"
serve::Variant parse_variant(const std::string& text) {
  serve::Variant variant;
  auto number = [&](const std::string& name, const std::string& value, double low, double high) {
    char* end = nullptr;
    double x = std::strtod(value.c_str(), &end);
    if (value.empty() || *end || !(x >= low && x <= high))
      fail_usage("--variant {}: {} is a number between {} and {}, not \"{}\"", text, name, low, high, value);
    return static_cast<float>(x);
  };
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    size_t equals = part.find('=');
    std::string name = part.substr(0, equals), value = equals == part.npos ? "" : part.substr(equals + 1);
    if (variant.name.empty() && equals == part.npos)
      variant.name = name;
    else if (name == "model")
      variant.model = value;
    else if (name == "share")
      variant.share = number(name, value, 1e-6, 1e6);
    else if (name == "temperature")
      variant.temperature = number(name, value, 0, 100);
    else if (name == "top-p")
      variant.top_p = number(name, value, 1e-6, 1);
    else if (name == "min-p")
      variant.min_p = number(name, value, 0, 1);
    else if (name == "top-k")
      variant.top_k = static_cast<int32_t>(number(name, value, 0, 1e6));
    else if (name == "repetition-penalty")
      variant.repetition_penalty = number(name, value, 0.01, 100);
    else
      fail_usage("--variant {}: {}; it takes model, share, temperature, top-p, min-p, top-k, repetition-penalty", text,
                 name);
  }
  if (variant.name.empty() || variant.model.empty())
    fail_usage("--variant {}: a name and a model are needed: NAME,model=MODEL,share=0.5", text);
  return variant;
}

void check(const ServeFlags& flags) {
  const serve::ServerOptions& options = flags.options;
  if (!flags.folder.empty() && !flags.model.path.empty()) fail_usage("give one of --model and --models");
  auto positive = [](const char* name, int64_t value) {
    if (value < 1) fail_usage("{} {}: it is 1 or more", name, value);
  };
  positive("--batch", options.engine.sequences), positive("--chunk", options.engine.chunk);
  positive("--queue", options.engine.queue), positive("--client-queue", options.engine.per_client);
  positive("--connections", options.connections.connections), positive("--max-body", options.connections.body);
  positive("--max-tokens", options.request.tokens), positive("--max-prompt", options.context);
  positive("--timeout", flags.timeout), positive("--read-timeout", flags.read_timeout);
  if (options.connections.connections > 4096)
    fail_usage("--connections {}: 4096 at most", options.connections.connections);
  if (options.engine.window < 0) fail_usage("--window {}: it is 0 or more", options.engine.window);
  if (options.port < 0 || options.port > 65535) fail_usage("--port {}: it is between 0 and 65535", options.port);
  if (flags.grace < 0) fail_usage("--grace {}: it is 0 or more", flags.grace);
}

void announce(const serve::ServerOptions& options, int port, const std::vector<std::string>& names, bool json) {
  std::string url = options.host.find(':') == std::string::npos ? fmt::format("http://{}:{}", options.host, port)
                                                                : fmt::format("http://[{}]:{}", options.host, port);
  if (json)
    fmt::print("{}\n", nlohmann::ordered_json{{"url", url}, {"models", names}}.dump());
  else
    fmt::print("serving {} at {}\n", fmt::join(names, ", "), url);
  std::fflush(stdout);
}

bool signalled(const sigset_t& signals, int milliseconds) {
  timespec wait{milliseconds / 1000, milliseconds % 1000 * 1000000};
  return sigtimedwait(&signals, nullptr, &wait) > 0;
}

void run_serve(ServeFlags flags, const Common& common) {
  if (const char* folder = std::getenv("MODEL_PATH"); folder && flags.folder.empty() && flags.model.path.empty())
    flags.folder = folder;
  check(flags);
  serve::ServerOptions& options = flags.options;
  speculation(options.engine.speculate);
  DecoderShape shape;
  flags.decoder.apply(shape);
  options.engine.ring = shape.ring, options.engine.choice = shape.choice;
  options.timeout = std::chrono::seconds(flags.timeout);
  options.connections.read = std::chrono::seconds(flags.read_timeout);
  options.request.choices = static_cast<int32_t>(options.engine.sequences);
  options.keys = read_keys(flags.key_file);
  for (const std::string& variant : flags.variants) options.variants.push_back(parse_variant(variant));

  // Blocked before any thread is started, so that every signal waits for sigtimedwait.
  sigset_t signals;
  sigemptyset(&signals), sigaddset(&signals, SIGINT), sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  std::vector<std::unique_ptr<serve::ServedModel>> models = open_all(flags, common);
  std::vector<std::string> names;
  for (auto& model : models)
    for (const std::string& name : model->names()) names.push_back(name);
  serve::Server server(options, std::move(models));
  announce(options, server.start(), names, common.json);

  while (!signalled(signals, 1000)) continue;
  server.drain();
  auto deadline = serve::Clock::now() + std::chrono::seconds(flags.grace);
  bool hurried = false;
  while (!server.finished()) {
    hurried = signalled(signals, 20) || hurried;
    if (hurried || serve::Clock::now() >= deadline) server.cancel_all();
  }
}

}  // namespace

void add_serve(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "serve", "answer HTTP requests in OpenAI's format; a chat page at /");
  auto flags = std::make_shared<ServeFlags>();
  serve::ServerOptions& options = flags->options;
  auto add = [&](const char* group, const char* name, auto& value, const char* meaning, const char* type) {
    command->add_option(name, value, meaning)->type_name(type)->group(group);
  };
  add_weight_flags(*command, flags->model);
  command
      ->add_option("--adapter", flags->adapters,
                   "a fine-tuned adapter beside the weights, a model of its own name; may be repeated")
      ->type_name("NAME=FILE")
      ->allow_extra_args(false)
      ->group("Model");
  add("Model", "--models", flags->folder,
      "folder whose *.safetensors are all served, by their names; MODEL_PATH holds one too", "DIR");
  add("Model", "--window", options.engine.window,
      "keys that a token sees; 0 = segment + memory of the model's training", "N");
  add_decoder_flags(*command, flags->decoder, "Model");
  add("Model", "--sessions", options.sessions, "folder that texts are kept in which requests name by \"session\"",
      "DIR");
  add("Address", "--host", options.host, "address to listen on; 0.0.0.0 = every one", "ADDRESS");
  add("Address", "--port", options.port, "port; 0 = any free one", "N");
  add("Address", "--api-key-file", flags->key_file, "file with a key a line; LONGHAND_API_KEY holds one too", "FILE");
  command
      ->add_option("--cors-origin", options.cors_origins, "origin of web pages that may call; may be repeated; * = all")
      ->type_name("URL")
      ->allow_extra_args(false)
      ->group("Address");
  command
      ->add_option("--variant", flags->variants,
                   "part of an experiment: NAME,model=MODEL,share=0.5,temperature=0.7,…; may be repeated")
      ->type_name("VARIANT")
      ->allow_extra_args(false)
      ->group("Experiment");
  add("Experiment", "--experiment", options.experiment, "name that requests give as their model to take part", "NAME");
  add_speculate_flag(*command, options.engine.speculate, "Model");
  add("Limits", "--batch", options.engine.sequences, "texts written side by side", "N");
  add("Limits", "--chunk", options.engine.chunk, "prompt tokens read between two steps of the batch", "N");
  add("Limits", "--max-tokens", options.request.tokens, "of a request's max_tokens", "N");
  add("Limits", "--max-prompt", options.context, "tokens of a prompt; more is answered with 413", "N");
  add("Limits", "--max-body", options.connections.body, "bytes of a request; more is answered with 413", "N");
  add("Limits", "--queue", options.engine.queue, "prompts that wait; more is answered with 503", "N");
  add("Limits", "--client-queue", options.engine.per_client, "prompts of one client that wait; more: 429", "N");
  add("Limits", "--connections", options.connections.connections, "connections; one more is answered with 503", "N");
  add("Limits", "--read-timeout", flags->read_timeout, "seconds for a request to arrive; more is answered with 408",
      "S");
  add("Limits", "--timeout", flags->timeout, "seconds for an answer, waiting included; more is answered with 408", "S");
  add("Limits", "--grace", flags->grace, "seconds that a shutdown lets answers under way come to their end", "S");
  command->callback([flags, &common] { common.run = [flags, &common] { run_serve(*flags, common); }; });
}

}  // namespace longhand::cli
