#include "src/cli/training_run.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "longhand/ceilings.h"
#include "src/cli/train_samples.h"

namespace longhand::cli {
namespace {

volatile std::sig_atomic_t caught_signal = 0;

// The first signal lets the step finish and a checkpoint be written; the second one ends the program at once.
void on_signal(int signal) {
  caught_signal = signal;
  std::signal(signal, SIG_DFL);
}

double speed_of_light(Device& device, Dtype type) {
  Ceilings ceilings = device.ceilings();
  return type == Dtype::bf16 ? ceilings.dot_bf16 : ceilings.fma_fp32;
}

}  // namespace

void TrainingRun::declare(CLI::App& command) {
  auto add = [&](const char* name, auto& field, const char* help, const char* type) {
    command.add_option(name, field, help)->default_str("")->type_name(type)->group("Run");
  };
  add("--output", run.output, "run directory, or the name of a weights file", "PATH");
  command.add_flag("--resume", run.resume, "continue the run in --output from its newest checkpoint")->group("Run");
  command.add_flag("--overwrite", run.overwrite, "replace the run that is in --output")->group("Run");
  add("--log-every", run.log_every, "steps between lines (default 10)", "N");
  add("--validate-every", run.validate_every, "steps between validations (default: ten in a run)", "N");
  add("--validate-tokens", run.validate_tokens, "tokens of each validation stream at most (default 16384)", "N");
  add("--checkpoint-every", run.checkpoint_every, "steps between checkpoints (default: ten in a run)", "N");
  add("--keep", run.keep, "checkpoints that stay (default 2)", "N");
  add("--sample-every", run.sample_every, "steps between samples of the model's text (default: none)", "N");
  add("--sample-prompt", sample_prompt, "what the samples go on from (default: the start of a document)", "TEXT");
  add("--profile-steps", run.profile_steps, "steps that a profiler records: one, or the first and the last", "N[-N]");
  add("--memory-gb", memory_gb, "memory that the run may take (default: the device's)", "NUMBER");
}

std::string TrainingRun::checkpoint() const {
  return run.resume && !run.output.empty() ? newest_checkpoint(run_directory(run.output)) : "";
}

void TrainingRun::go(const TrainOptions& options, const Common& common, const TokenFile* data) {
  run.json = common.json, run.command = typed_command();
  run.memory_limit = static_cast<int64_t>(memory_gb * 1e9);
  std::unique_ptr<Device> device = common.make();
  std::signal(SIGINT, on_signal), std::signal(SIGTERM, on_signal);
  RunCallbacks callbacks{.stop = [] { return caught_signal != 0; },
                         .ceiling = [&] { return speed_of_light(*device, options.type); },
                         .sample =
                             [&](const Trainer& trainer, std::string_view tokenizer) {
                               return sample_text(*device, trainer, tokenizer, sample_prompt, 64);
                             }};
  RunEnd end =
      data ? run_training(*device, options, run, callbacks, *data) : run_training(*device, options, run, callbacks);
  if (end == RunEnd::finished) return;
  device.reset();
  std::fflush(nullptr);
  std::exit(128 + caught_signal);  // as a shell reports a program that a signal ended
}

/// The command as it was typed, for the log.
std::string typed_command() {
  std::string words;
  FILE* file = std::fopen("/proc/self/cmdline", "r");
  if (!file) return words;
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) words += c == '\0' ? ' ' : static_cast<char>(c);
  std::fclose(file);
  if (!words.empty()) words.pop_back();
  return words;
}

}  // namespace longhand::cli
