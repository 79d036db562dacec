// Training: one optimizer step at a time (Trainer), a whole run in a directory (run_training), and the memory that it
// takes (plan_memory).
//
//   loss = mean over all targets of a step;  g = its gradient, summed over micro-batches;  norm = ||g||
//   g *= min(1, clip / norm);  AdamW with decay on matrices only;  guards skip what is not finite or leaps
//
// The lanes of a step are split into micro-batches of `micro_batch` lanes, each lane with its own memory, so that a
// step gives the numbers of the undivided step up to rounding (dropout draws other masks).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "longhand/data.h"
#include "longhand/heads.h"
#include "longhand/schedule.h"

namespace longhand {

/// Everything that decides the numbers of a run; a checkpoint carries it and a resumed run must agree.
/// The flags' names and meanings stand in src/train/flags.h.
struct TrainOptions {
  ModelConfig config;
  int64_t lanes = 8, micro_batch = 0;  // micro_batch 0 = all lanes at once
  int64_t segment = 0;                 // 0 = the configuration's, or mem_len, or 256
  int64_t steps = 0;                   // 0 = as many as `epochs` has
  double epochs = 0;                   // 0 = one, or what `steps` has

  ScheduleKind schedule = ScheduleKind::cosine;
  double learning_rate = 0;                     // 0 = min(1e-3, 0.5 / d_model)
  double min_lr = -1, min_lr_ratio = 0.1;       // floor of the schedule; negative = unset
  double warmup_ratio = -1, decay_ratio = 0.2;  // of the steps; unset = 0.02, with `constant` 0
  int64_t warmup_steps = -1;
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1;
  double clip = 1;  // 0 = off

  DropoutRates dropout;
  double label_smoothing = 0, focal_gamma = 0;
  int64_t segment_start = 0, segment_steps = 0;  // growing segments; start 0 = off, steps 0 = half of all
  Dtype type = Dtype::fp32, master = Dtype::fp32, moments = Dtype::fp32;
  bool recompute = false, mask_documents = false;
  bool examples = false;  // rows of whole examples (longhand/data.h), no memory between them
  bool pack = true;       // several examples a row
  std::string base;  // int8, int4, fp16, bf16 or fp32: how matrices that do not train are held; empty: as they come
  std::map<std::string, MatrixFormat> held;  // what that is for each matrix that is not held as `type`; not in json()
  std::string train_only, freeze;            // patterns of parameter names: "*.bias,norm.*,embedding.weight[8192:]"
  bool unfreeze = false;                     // the top feed-forward layer first, then the attention layers from above
  double layer_decay = 1;                    // of the learning rate, a layer
  Difficulty curriculum = Difficulty::none;
  Pacing pacing = Pacing::linear;
  double curriculum_start = 0.3;                  // share of the examples, easiest first
  int64_t curriculum_steps = 0;                   // until all take part; 0 = half of the steps
  double task_temperature = 0;                    // of the tasks' shares, n^(1 / temperature); 0 = as they stand
  std::string task_weight;                        // "de-en=0.5,en-de=2"
  bool augment = false, augment_answers = false;  // longhand/augment.h
  double augment_synonyms = 0.2, augment_insertions = 0.1, augment_shuffles = 0.05;
  std::string heads;          // names of the heads that the data teach, separated by commas
  double state_weight = 0.3;  // of the loss of dialogue states
  double fgm = 0;             // epsilon of adversarial training on the embedding; 0 = off
  int64_t patience = 0;       // validations without a better loss that end the run; 0 = off
  double spike = 2;           // a step whose loss exceeds the running mean by so many nats is skipped; 0 = off
  int64_t max_skips = 10;     // so many skipped in a row end the run
  uint64_t seed = 0;

  /// Fills what 0 stands for, fails with the first impossible setting. `batches` are those of the epochs asked for, or
  /// of one; 0 leaves steps alone.
  void resolve(int64_t batches);
  Schedule make_schedule() const;
  bool has_master() const { return type == Dtype::bf16 && master == Dtype::fp32; }
  int64_t micro_batches() const { return lanes / micro_batch; }
  /// Whether the data teach a head, and what its mean nat counts in the loss.
  bool teaches(std::string_view head) const;
  double head_weight(const HeadConfig& head) const { return head.kind == HeadKind::state ? state_weight : 1; }
  /// Whether a parameter is trained: it matches a pattern of train_only (empty: any; with low-rank updates, adapters or
  /// `unfreeze` these decide, and train_only adds to them), and none of freeze. In a pattern * stands for any
  /// characters; behind a pattern of train_only [N:] leaves the rows before N as they are. A head trains where the data
  /// teach it, unless freeze matches.
  bool trains(std::string_view name) const { return stage(name) >= 0; }
  /// When a parameter begins to train: 0 = at once, k = in stage k of `unfreeze`, -1 = never.
  int64_t stage(std::string_view name) const;
  /// The first row that is trained, of a parameter that is; how many entries are.
  int64_t first_row(std::string_view name) const;
  int64_t trained_elements(const ParameterInfo& info) const;
  /// What is trained, and what FGM climbs by.
  bool has_gradient(std::string_view name) const { return trains(name) || (fgm > 0 && name == "embedding.weight"); }
  WeightFormats formats() const { return {type, held}; }
  SegmentGrowth segments() const {
    return {.start = segment_start, .full = segment, .steps = segment_steps, .pacing = pacing};
  }
  PassShape pass_shape() const;
  PassShape validation_shape() const;

  /// {"batch-size": 8, ...}: every flag but the architecture's, which `config` holds.
  std::string json() const;
};

/// What gives out the batches of a run: examples in rows where the stream has answers, lanes otherwise.
std::unique_ptr<Loader> make_loader(const TrainOptions& options, const TokenStream& train);

/// The reverse of json(); absent flags keep their defaults.
TrainOptions parse_train_options(std::string_view json, const ModelConfig& config, std::string_view where);

/// The options that a checkpoint was made with.
TrainOptions read_train_options(const SafetensorsFile& file);

/// Bytes of every arena of a run, in order: weights, gradients, master, moments, activations, memory, scratch, with FGM
/// adversarial, validation.
struct MemoryPlan {
  struct Row {
    std::string name;
    int64_t bytes = 0;
  };
  std::vector<Row> rows;
  int64_t parameters = 0, trained = 0;

  int64_t total() const;
  int64_t bytes(std::string_view name) const;
  /// Bytes that grow with the number of parameters alone, for each of them.
  double bytes_per_parameter() const;
  /// The table as people read it: name, bytes, share; with `other`, its bytes beside.
  std::string table(const MemoryPlan* other = nullptr, std::string_view other_title = "") const;
};
MemoryPlan plan_memory(const TrainOptions& options, bool validation);

/// The smallest change of flags that brings the plan within `limit` bytes: "--recompute --micro-batch 2"; empty when
/// none does.
std::string flags_that_fit(const TrainOptions& options, bool validation, int64_t limit);

std::string human_bytes(double bytes);  // "14.0 GB", powers of ten

/// A part of the loss, before its weight: mean nats of the language ("language") or of a head.
struct LossPart {
  std::string name;
  double nats = 0;
};

struct StepReport {
  int64_t step = 0;      // from 0
  double loss = 0;       // mean nats a target, weights before the update
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t tokens = 0;   // targets of the step
  int64_t segment = 0;  // of every lane, where segments grow; 0 otherwise
  double seconds = 0;
  double flops = 0;     // as training_flops_per_token counts them
  std::string skipped;  // why no update was made; empty when one was
  int64_t skipped_in_a_row = 0;
  std::vector<LossPart> parts;  // where there are several
  std::string thawed;           // what began to train with this step: "layers.3.attention"
};

struct ValidationRow {
  std::string name;          // of the stream: a language
  double nats = 0;           // mean a token; of examples that only heads learn from, a label
  double bits_per_byte = 0;  // nats / ln 2 times tokens a byte of the whole stream; 0 when its bytes are unknown
  int64_t tokens = 0;
  std::vector<HeadScore> heads = {};
};

/// Means over the streams, "mean"; bits a byte over those that know their bytes.
ValidationRow mean_of(const std::vector<ValidationRow>& rows);

class Trainer {
 public:
  /// `options` are resolved. Allocates every arena; the weights are those of `options.seed` until others are loaded.
  /// What `weights` holds is not drawn: load_weights or restore will take it from there.
  Trainer(Device& device, const TrainOptions& options, const TokenFile& data, int64_t validate_tokens,
          const SafetensorsFile* weights = nullptr);

  /// Weights from a weights file or a checkpoint (its master weights where it has them).
  void load_weights(const SafetensorsFile& file);

  /// One optimizer step, made or skipped.
  StepReport step();
  int64_t steps_done() const;
  /// Every validation stream with carried memory, at most `validate_tokens` tokens of each.
  std::vector<ValidationRow> validate();
  /// Counts a validation for early stopping: whether its loss is the best so far. Kept in checkpoints.
  bool judge(double nats);
  int64_t validations_without_gain() const;
  std::string_view device_name() const;
  const TrainOptions& options() const;
  const ParameterSet& weights() const;

  /// Writes the whole state; the file is a usable weights file as well. See weights/README.md.
  void save_checkpoint(const std::string& path, std::string_view tokenizer_model);
  /// Weights alone, with configuration and tokenizer. With low-rank updates or adapters: those, and what else was
  /// trained, as an adapter file (weights/README.md).
  void save_weights(const std::string& path, std::string_view tokenizer_model);
  /// Takes the state of a checkpoint; fails when its configuration, flags or data are others. Returns what the user
  /// should know, or "".
  std::string restore(const SafetensorsFile& file);

  struct State;

 private:
  std::shared_ptr<State> state_;
};

/// A run: where it reads, where it writes, how often.
struct RunOptions {
  std::string tokens;                 // token file, or plain text of ids
  std::string output;                 // run directory, or the name of a weights file, or empty: nothing is written
  std::string init;                   // weights to start from
  bool vocabulary_from_data = false;  // a token file's vocabulary size replaces the configuration's
  bool resume = false, overwrite = false;
  bool json = false;           // one object a step on standard output
  int64_t log_every = 10;      // steps between lines for people
  int64_t validate_every = 0;  // 0 = ten times a run
  int64_t validate_tokens = 16384;
  int64_t checkpoint_every = 0;  // 0 = ten times a run
  int64_t keep = 2;              // checkpoints that stay
  int64_t sample_every = 0;
  std::string profile_steps;  // "FIRST-LAST" or "STEP": the steps that a profiler records
  int64_t memory_limit = 0;   // bytes; 0 = the device's
  std::string command;        // for the log
};

struct RunCallbacks {
  std::function<bool()> stop;       // asked after every step: write a checkpoint and leave
  std::function<double()> ceiling;  // floating-point operations a second this machine can do
  std::function<std::string(const Trainer&, std::string_view tokenizer)> sample;  // text of the model so far
};

enum class RunEnd : uint8_t { finished, stopped };

/// Trains as the options say. RUN/log.jsonl holds one JSON object a line: "type" is meta (first), step, validation,
/// event or end (last). RUN/checkpoint-STEP.safetensors rotate, RUN/model.safetensors stands at the end.
RunEnd run_training(Device& device, TrainOptions options, const RunOptions& run, const RunCallbacks& callbacks);
/// The same with data that stand in memory; `run.tokens` names them in messages.
RunEnd run_training(Device& device, TrainOptions options, const RunOptions& run, const RunCallbacks& callbacks,
                    const TokenFile& data);

/// The run directory that --output means: the name itself, or for "x.safetensors", "x".
std::string run_directory(const std::string& output);
/// The newest checkpoint of a run directory that is whole (its checksums are compared); empty when there is none.
/// `damage` gets what is wrong with a newer one.
std::string newest_checkpoint(const std::string& directory, std::string* damage = nullptr);

}  // namespace longhand
