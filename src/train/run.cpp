// A run in its directory: start or resume, steps, validation, checkpoints, log.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <optional>

#include "longhand/files.h"
#include "src/train/run_files.h"
#include "src/train/run_log.h"
#include "src/train/step_printer.h"

namespace longhand {
namespace {

void check_run(const RunOptions& run) {
  if (run.tokens.empty()) fail_usage("--tokens is missing: give a token file (`longhand prepare` makes one)");
  if (run.resume && run.output.empty()) fail_usage("--resume needs --output, the directory of the run to continue");
  auto at_least = [](const char* flag, int64_t value, int64_t least) {
    if (value < least) fail_usage("{} {}: at least {}", flag, value, least);
  };
  at_least("--log-every", run.log_every, 1), at_least("--validate-every", run.validate_every, 0);
  at_least("--validate-tokens", run.validate_tokens, 0), at_least("--checkpoint-every", run.checkpoint_every, 0);
  at_least("--keep", run.keep, 1), at_least("--sample-every", run.sample_every, 0);
}

/// The steps that a profiler records, the last included; none by default.
struct ProfiledSteps {
  int64_t first = -1, last = -1;

  explicit ProfiledSteps(const std::string& text) {
    if (text.empty()) return;
    auto number = [&](std::string_view digits) {
      int64_t value = -1;
      auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
      if (error != std::errc() || end != digits.data() + digits.size() || value < 0)
        fail_usage("--profile-steps {}: give a step, or the first and the last as 10-12", text);
      return value;
    };
    size_t dash = text.find('-');
    first = number(std::string_view(text).substr(0, dash));
    last = dash == std::string::npos ? first : number(std::string_view(text).substr(dash + 1));
    if (last < first) fail_usage("--profile-steps {}: the last step comes before the first", text);
  }
};

bool validates(const RunOptions& run, const TokenFile& data) {
  return !data.validation().empty() && run.validate_tokens > 0;
}

void check_fits(const TrainOptions& options, bool validation, int64_t limit) {
  MemoryPlan plan = plan_memory(options, validation);
  if (plan.total() <= limit) return;
  std::string flags = flags_that_fit(options, validation, limit);
  fail_usage("the run needs {}, there are {}: {}", human_bytes(static_cast<double>(plan.total())),
             human_bytes(static_cast<double>(limit)),
             flags.empty() ? "no choice of types, recomputation or micro-batch makes it fit; take a smaller model"
                           : "it fits with " + flags);
}

/// The stretch of a run between start or resume and its end.
class Run {
 public:
  Run(Device& device, const TrainOptions& options, const RunOptions& run, const RunCallbacks& callbacks,
      const TokenFile& data)
      : device_(device),
        options_(options),
        run_(run),
        profiled_(run.profile_steps),
        callbacks_(callbacks),
        data_(data),
        files_(run.output, options.config.extended()),
        validation_(validates(run, data)),
        plan_(plan_memory(options, validation_)),
        ceiling_(callbacks.ceiling && (files_.wanted() || !run.json) ? callbacks.ceiling() : 0),
        printer_({.json = run.json, .log_every = run.log_every, .steps = options.steps, .ceiling = ceiling_}),
        threads_(device.threads()) {
    introduce();
    start(device);
  }

  RunEnd go() {
    auto begin = std::chrono::steady_clock::now();
    bool stopped = false;
    if ((options_.examples || !run_.init.empty()) && trainer_->steps_done() == 0) validate();
    while (trainer_->steps_done() < options_.steps && !stopped && !out_of_patience()) {
      one_step();
      stopped = callbacks_.stop && callbacks_.stop();
    }
    std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    stopped = stopped && trainer_->steps_done() < options_.steps && !out_of_patience();
    finish(stopped, elapsed.count());
    return stopped ? RunEnd::stopped : RunEnd::finished;
  }

 private:
  void introduce() {
    std::string growth = options_.segment_start > 0 ? fmt::format("{} to ", options_.segment_start) : "";
    printer_.say(fmt::format("{} parameters{}, {} steps of {} x {}{} tokens, memory {}, {} on {} thread{}\n{}",
                             plan_.parameters,
                             plan_.trained < plan_.parameters ? fmt::format(" ({} trained)", plan_.trained) : "",
                             options_.steps, options_.lanes, growth, options_.segment, options_.pass_shape().memory,
                             dtype_name(options_.type), threads_, threads_ == 1 ? "" : "s", plan_.table()));
  }

  void start(Device& device) {
    std::string damage, note;
    std::string checkpoint = run_.resume ? newest_checkpoint(files_.directory(), &damage) : "";
    std::string source = checkpoint.empty() ? run_.init : checkpoint;
    std::optional<SafetensorsFile> file;
    if (!source.empty()) file.emplace(source);
    if (checkpoint.empty() && file) file->verify();
    trainer_.emplace(device, options_, data_, validation_ ? run_.validate_tokens : 0, file ? &*file : nullptr);
    tokenizer_ = std::string(data_.tokenizer_model());
    if (!checkpoint.empty())
      note = trainer_->restore(*file);
    else if (file)
      trainer_->load_weights(*file);
    if (file) take_tokenizer(*file);
    int64_t step = trainer_->steps_done();
    if (files_.wanted()) log_ = RunLog(files_.log(), step);
    if (!log_.continued()) log_.meta(*trainer_, plan_, run_.command, threads_);
    if (!checkpoint.empty()) event("resumed", fmt::format("from {} after {} steps", files_.name(checkpoint), step));
    if (checkpoint.empty() && run_.resume) event("started", "there is no checkpoint yet: the run starts anew");
    for (const std::string& words : {damage, note})
      if (!words.empty()) event("note", words);
  }

  void take_tokenizer(const SafetensorsFile& file) {
    if (!file.has("tokenizer.model")) return;
    ConstTensor model = file.tensor("tokenizer.model");
    std::string_view bytes(static_cast<const char*>(model.data()), model.bytes());
    if (!tokenizer_.empty() && tokenizer_ != bytes)
      fail_usage("{} has another tokenizer than {}: prepare the text with the model's (`longhand prepare --tokenizer`)",
                 file.path(), run_.tokens);
    tokenizer_ = std::string(bytes);
  }

  void one_step() {
    if (trainer_->steps_done() == profiled_.first) device_.profile(true);
    StepReport report = trainer_->step();
    if (report.step == profiled_.last) device_.profile(false);
    rates_.push_back(static_cast<double>(report.tokens) / std::max(report.seconds, 1e-9));
    printer_.step(report);
    log_.step(report, ceiling_);
    if (!report.thawed.empty()) {
      printer_.say(fmt::format("step {}: {} trains from here on", report.step, report.thawed));
      log_.event(report.step, "thawed", report.thawed + " trains from here on");
    }
    if (!report.skipped.empty()) log_.event(report.step, "skipped", report.skipped);
    if (report.skipped_in_a_row >= options_.max_skips)
      fail(
          "step {}: {} steps in a row were skipped, the last because {}: lower --learning-rate or look at the data; "
          "the last checkpoint stands",
          report.step, report.skipped_in_a_row, report.skipped);
    int64_t done = trainer_->steps_done();
    if (done == options_.steps) return;
    if (done % every(run_.validate_every) == 0) validate();
    if (run_.sample_every > 0 && done % run_.sample_every == 0 && callbacks_.sample)
      event("sample", callbacks_.sample(*trainer_, tokenizer_));
    if (done % every(run_.checkpoint_every) == 0) checkpoint();
  }

  int64_t every(int64_t asked) const { return asked > 0 ? asked : std::max<int64_t>(1, (options_.steps + 9) / 10); }

  void validate() {
    std::vector<ValidationRow> rows = trainer_->validate();
    printer_.validation(trainer_->steps_done(), rows);
    log_.validation(trainer_->steps_done(), rows);
    if (options_.patience > 0 && trainer_->judge(mean_of(rows).nats)) trainer_->save_weights(files_.best(), tokenizer_);
  }

  bool out_of_patience() const {
    return options_.patience > 0 && trainer_->validations_without_gain() >= options_.patience;
  }

  void checkpoint() {
    if (!files_.wanted()) return;
    std::string path = files_.checkpoint(trainer_->steps_done());
    trainer_->save_checkpoint(path, tokenizer_);
    files_.rotate(run_.keep);
  }

  void finish(bool stopped, double seconds) {
    int64_t done = trainer_->steps_done();
    if (!stopped && done == options_.steps) validate();
    if (!stopped && done < options_.steps)
      event("early stop", fmt::format("after {} steps: {} validations without a better loss", done,
                                      trainer_->validations_without_gain()));
    checkpoint();
    if (stopped) {
      event("stopped", files_.wanted() ? fmt::format("after {} steps; --resume continues", done)
                                       : fmt::format("after {} steps; without --output nothing is kept", done));
    } else if (files_.wanted()) {
      for (const std::string& path : {files_.model(), files_.weights()}) {
        if (path.empty()) continue;
        if (options_.patience > 0)
          write_file(path, read_file(files_.best()));
        else
          trainer_->save_weights(path, tokenizer_);
      }
    }
    double median = 0;
    if (!rates_.empty()) {
      std::nth_element(rates_.begin(), rates_.begin() + rates_.size() / 2, rates_.end());
      median = rates_[rates_.size() / 2];
    }
    log_.end(done, seconds, median);
    printer_.say(fmt::format("{} steps, {:.1f} s, median {:.0f} tokens/s, peak memory {}{}", done, seconds, median,
                             human_bytes(static_cast<double>(peak_memory_bytes())),
                             files_.wanted() && !stopped ? ", " + files_.model() : ""));
  }

  void event(const std::string& what, const std::string& text) {
    printer_.say(what + ": " + text);
    log_.event(trainer_->steps_done(), what, text);
  }

  Device& device_;
  TrainOptions options_;
  RunOptions run_;
  ProfiledSteps profiled_;
  RunCallbacks callbacks_;
  TokenFile data_;
  RunFiles files_;
  bool validation_;
  MemoryPlan plan_;
  double ceiling_;
  StepPrinter printer_;
  int threads_;
  std::optional<Trainer> trainer_;
  RunLog log_;
  std::string tokenizer_;
  std::vector<double> rates_;
};

}  // namespace

RunEnd run_training(Device& device, TrainOptions options, const RunOptions& run, const RunCallbacks& callbacks) {
  check_run(run);
  return run_training(device, std::move(options), run, callbacks, TokenFile(run.tokens));
}

RunEnd run_training(Device& device, TrainOptions options, const RunOptions& run, const RunCallbacks& callbacks,
                    const TokenFile& data) {
  check_run(run);
  if (options.patience > 0 && (run.output.empty() || !validates(run, data)))
    fail_usage("--patience needs --output, where the best weights are kept, and validation data");
  if (run.vocabulary_from_data && data.vocab_size() > 0) options.config.vocab_size = data.vocab_size();
  check_vocabulary(options.config, data, run.tokens);
  options.resolve(0);
  check_fits(options, validates(run, data), run.memory_limit > 0 ? run.memory_limit : device.memory_bytes());
  options.resolve(make_loader(options, data.train())->batches_in(options.epochs > 0 ? options.epochs : 1));
  if (!run.output.empty()) prepare_directory(run_directory(run.output), run);
  return Run(device, options, run, callbacks, data).go();
}

}  // namespace longhand
