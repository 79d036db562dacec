// The commands of the program. One file a command: it declares its flags and says what to run with them.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "longhand/device.h"

namespace longhand::cli {

/// Flags that every command takes.
struct Common {
  std::string device = "auto", config;
  uint64_t seed = 0;
  int threads = 0;  // 0 = every core
  bool json = false;
  std::function<void()> run;  // set by the command that was chosen

  std::unique_ptr<Device> make() const { return make_device(device, {.threads = threads}); }
};

/// A subcommand with the common flags (--config, --device, --threads, --seed, --json) already on it.
CLI::App* add_command(CLI::App& app, Common& common, const std::string& name, const std::string& summary);

void add_prepare(CLI::App& app, Common& common);
void add_train(CLI::App& app, Common& common);
void add_finetune(CLI::App& app, Common& common);
void add_data(CLI::App& app, Common& common);
void add_lexicon(CLI::App& app, Common& common);
void add_merge(CLI::App& app, Common& common);
void add_generate(CLI::App& app, Common& common);
void add_chat(CLI::App& app, Common& common);
void add_serve(CLI::App& app, Common& common);
void add_bench(CLI::App& app, Common& common);
void add_score(CLI::App& app, Common& common);
void add_compare(CLI::App& app, Common& common);
void add_eval(CLI::App& app, Common& common);
void add_extract(CLI::App& app, Common& common);
void add_info(CLI::App& app, Common& common);
void add_plan(CLI::App& app, Common& common);
void add_import(CLI::App& app, Common& common);
void add_export(CLI::App& app, Common& common);
void add_report(CLI::App& app, Common& common);
void add_quantize(CLI::App& app, Common& common);
void add_bench(CLI::App& app, Common& common);

}  // namespace longhand::cli
