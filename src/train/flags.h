// The flags of training, once: the command line, `plan`, the log and the checkpoint all walk this list.
#pragma once

#include "longhand/train.h"

namespace longhand {

/// What a resumed run may change (it alters what comes, not what was), and which settings of an architecture may differ
/// from those that its weights were made with.
enum class Later : bool { fixed, may_change };

struct TrainFlag {
  const char* names;  // the long name first, then aliases, separated by commas
  const char* help;
  Later later = Later::fixed;
};

/// Calls on(flag, field) for every flag; fields are int64_t, uint64_t, double, float, bool, Dtype, ScheduleKind,
/// Difficulty or Pacing.
template <class Options, class Visitor>
void visit_train_flags(Options& o, Visitor&& on) {
  using F = TrainFlag;
  on(F{"--batch-size,--lanes", "sequences of a step, side by side (default 8)"}, o.lanes);
  on(F{"--micro-batch", "sequences held at a time; the rest follows by accumulation (default: all)"}, o.micro_batch);
  on(F{"--segment,--max-seq-length", "tokens of a segment (default: the preset's)"}, o.segment);
  on(F{"--segment-start", "segments grow from so many tokens to --segment (default 0 = off)"}, o.segment_start);
  on(F{"--segment-steps", "steps until they are whole (default: half of --steps)"}, o.segment_steps);
  on(F{"--pacing", "how segments, or a curriculum's share of the examples, grow: linear (default), root or step"},
     o.pacing);
  on(F{"--steps,--max-steps", "optimizer steps (default: one epoch)", Later::may_change}, o.steps);
  on(F{"--epochs,--num-train-epochs", "times through the data; --steps caps it", Later::may_change}, o.epochs);
  on(F{"--schedule,--lr-scheduler-type", "cosine (default), linear, constant or wsd (warm-up, stable, decay)"},
     o.schedule);
  on(F{"--learning-rate,--lr", "peak learning rate (default: min(1e-3, 0.5 / d_model))"}, o.learning_rate);
  on(F{"--min-lr", "floor of the schedule, reached at the last step"}, o.min_lr);
  on(F{"--min-lr-ratio", "the floor as a part of the peak (default 0.1)"}, o.min_lr_ratio);
  on(F{"--warmup-steps", "steps of warm-up"}, o.warmup_steps);
  on(F{"--warmup-ratio", "warm-up as a part of all steps (default 0.02; constant: none)"}, o.warmup_ratio);
  on(F{"--decay-ratio", "wsd: the decay's part of all steps (default 0.2)"}, o.decay_ratio);
  on(F{"--beta1,--adam-beta1", "AdamW (default 0.9)"}, o.beta1);
  on(F{"--beta2,--adam-beta2", "AdamW (default 0.95)"}, o.beta2);
  on(F{"--eps,--adam-epsilon", "AdamW (default 1e-8)"}, o.eps);
  on(F{"--weight-decay", "AdamW, on matrices alone (default 0.1)"}, o.weight_decay);
  on(F{"--clip,--max-grad-norm", "largest gradient norm (default 1; 0 = off)"}, o.clip);
  on(F{"--dropout-embedding", "after the embedding (default 0)"}, o.dropout.embedding);
  on(F{"--dropout-attention", "of attention probabilities (default 0)"}, o.dropout.attention);
  on(F{"--dropout-residual", "of the attention's output (default 0)"}, o.dropout.residual);
  on(F{"--dropout-activation", "inside the feed-forward layer (default 0)"}, o.dropout.activation);
  on(F{"--dropout-feedforward", "of the feed-forward layer's output (default 0)"}, o.dropout.feedforward);
  on(F{"--train-only",
       "train what matches: *.bias or embedding.*, several with commas; embedding.weight[N:] from row N on"},
     o.train_only);
  on(F{"--freeze", "leave the parameters that match as they are: layers.0.*,*.norm.*"}, o.freeze);
  on(F{"--label-smoothing", "part of the target spread over the vocabulary (default 0)"}, o.label_smoothing);
  on(F{"--focal-gamma", "focal loss: (1 - p)^gamma (default 0)"}, o.focal_gamma);
  on(F{"--fgm", "adversarial training: a second pass with the embedding this far up its gradient (default 0 = off)"},
     o.fgm);
  on(F{"--dtype", "fp32 or bf16: weights, gradients, activations (default fp32)"}, o.type);
  on(F{"--master", "with bf16: fp32 (default) keeps a second copy of the weights, bf16 rounds stochastically"},
     o.master);
  on(F{"--moments", "fp32 (default) or bf16, stochastically rounded: Adam's moments"}, o.moments);
  on(F{"--recompute", "keep only each layer's input and run the layer again in the backward pass"}, o.recompute);
  on(F{"--mask-documents", "no query sees another document"}, o.mask_documents);
  on(F{"--spike", "skip a step whose loss exceeds the running mean by so many nats (default 2; 0 = off)",
       Later::may_change},
     o.spike);
  on(F{"--max-skips", "skipped steps in a row that end the run (default 10)", Later::may_change}, o.max_skips);
}

/// The flags of fine-tuning alone.
template <class Options, class Visitor>
void visit_finetune_flags(Options& o, Visitor&& on) {
  using F = TrainFlag;
  on(F{"--pack", "several examples a row, each seeing itself alone (default); --no-pack: one"}, o.pack);
  on(F{"--lora-rank,--lora", "rank of the low-rank updates; 0 (default) trains the weights themselves"},
     o.config.lora_rank);
  on(F{"--lora-alpha", "updates count alpha / rank (default 32)"}, o.config.lora_alpha);
  on(F{"--lora-sites,--lora-target-modules",
       "matrices with an update: q, k, v, position, output, up, down, separated by commas (default q,v)"},
     o.config.lora_sites);
  on(F{"--lora-dropout", "of what the low-rank updates read (default 0)"}, o.dropout.lora);
  on(F{"--adapters,--adapter-width", "width of the bottleneck adapters behind parts of every layer; 0 (default): none"},
     o.config.adapter_width);
  on(F{"--adapter-sites", "parts with an adapter: attention, feedforward (default: both)"}, o.config.adapter_sites);
  on(F{"--base", "hold the matrices that do not train as int8, int4, fp16 or bf16 (default: as the file has them)"},
     o.base);
  on(F{"--curriculum", "easy examples first: by length, rarity (of their tokens) or loss (default none)"},
     o.curriculum);
  on(F{"--curriculum-start", "share of the examples at the first step, easiest first (default 0.3)"},
     o.curriculum_start);
  on(F{"--curriculum-steps", "steps until all examples take part (default: half of all)"}, o.curriculum_steps);
  on(F{"--task-weight", "what targets of a task count in the loss: de-en=0.5,en-de=2 (default 1)"}, o.task_weight);
  on(F{"--task-temperature", "tasks come in proportion to size^(1 / T): 1 as they are, more evens them out (0 = off)"},
     o.task_temperature);
  on(F{"--augment", "every batch sees its examples in another form: synonyms, insertions, words that change places"},
     o.augment);
  on(F{"--augment-synonyms", "share of the words that a synonym replaces (default 0.2)"}, o.augment_synonyms);
  on(F{"--augment-insertions", "share of the words behind which one is inserted (default 0.1)"}, o.augment_insertions);
  on(F{"--augment-shuffles", "share of the words that change places with the next (default 0.05)"}, o.augment_shuffles);
  on(F{"--augment-answers", "answers too, which are left alone otherwise"}, o.augment_answers);
  on(F{"--state-weight", "what the labels of dialogue states count beside the language (default 0.3; 0 = not learnt)"},
     o.state_weight);
  on(F{"--unfreeze", "epochs 1 and 2 train the top feed-forward layer, then one attention layer an epoch joins"},
     o.unfreeze);
  on(F{"--layer-decay", "learning rate times this for every layer below the top (default 1)"}, o.layer_decay);
  on(F{"--patience", "stop after so many validations without a better loss, and keep the best weights (0 = off)",
       Later::may_change},
     o.patience);
}

/// The flags of the architecture, over a preset's values.
template <class Config, class Visitor>
void visit_config_flags(Config& c, Visitor&& on) {
  using F = TrainFlag;
  on(F{"--vocab-size", "vocabulary (default: the token file's)"}, c.vocab_size);
  on(F{"--d-model", "model width"}, c.d_model);
  on(F{"--n-layer", "layers"}, c.n_layer);
  on(F{"--n-head", "attention heads"}, c.n_head);
  on(F{"--d-head", "width of a head (default: d_model / n_head)"}, c.d_head);
  on(F{"--d-ff", "width inside the feed-forward layer (default: 4 d_model)"}, c.d_ff);
  on(F{"--mem-len", "tokens of memory", Later::may_change}, c.mem_len);
  on(F{"--clamp-len", "distances beyond it count as it (0 = off)", Later::may_change}, c.clamp_len);
  on(F{"--topk", "keys that a query keeps (0 = dense)", Later::may_change}, c.topk);
  on(F{"--topk-mode", "exact or block", Later::may_change}, c.topk_mode);
  on(F{"--same-length", "every query sees mem_len keys", Later::may_change}, c.same_length);
  on(F{"--scale-embedding", "embeddings times sqrt(d_model)"}, c.scale_embedding);
  on(F{"--segments", "XLNet's relative segment term"}, c.segments);
  on(F{"--norm", "pre or post"}, c.norm);
  on(F{"--final-norm", "one more normalisation before the output layer"}, c.final_norm);
  on(F{"--output-bias", "a bias on the logits"}, c.output_bias);
  on(F{"--activation", "gelu or relu"}, c.activation);
  on(F{"--norm-eps", "of layer normalisation", Later::may_change}, c.norm_eps);
}

/// "--batch-size,--lanes" -> "batch-size".
inline std::string_view flag_key(const TrainFlag& flag) {
  std::string_view names = flag.names;
  return names.substr(2, names.find(',') - 2);
}

}  // namespace longhand
