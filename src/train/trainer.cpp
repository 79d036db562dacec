#include <chrono>
#include <cstring>

#include "src/train/trainer_state.h"

namespace longhand {
namespace {

/// Lanes [first, first + count) of a batch, packed.
class Columns {
 public:
  Columns(const Batch& whole, int64_t first, int64_t count) : first_(first), count_(count) {
    part_.tokens = take(whole.tokens), part_.targets = take(whole.targets), part_.weights = take(whole.weights);
    part_.document_start = take(whole.document_start), part_.segment_ids = take(whole.segment_ids);
    for (HeadTarget target : whole.heads)
      if (int64_t lane = target.lane - first; lane >= 0 && lane < count)
        target.lane = static_cast<int32_t>(lane), heads_.push_back(target);
    part_.heads = heads_;
  }
  const Batch& batch() const { return part_; }

 private:
  ConstTensor take(const ConstTensor& whole) {
    if (whole.empty() || count_ == whole.size(1)) return whole;
    int64_t width = dtype_bytes(whole.type()), rows = whole.size(0);
    std::vector<char>& bytes = storage_.emplace_back(rows * count_ * width);
    for (int64_t i = 0; i < rows; ++i)
      std::memcpy(bytes.data() + i * count_ * width,
                  static_cast<const char*>(whole.data()) + (i * whole.size(1) + first_) * width, count_ * width);
    return ConstTensor(bytes.data(), whole.type(), {rows, count_});
  }

  int64_t first_, count_;
  std::vector<std::vector<char>> storage_;
  std::vector<HeadTarget> heads_;
  Batch part_;
};

/// How much there is to learn from a step.
struct Targets {
  int64_t tokens = 0;
  std::vector<int64_t> labels;  // of each head
  double mean(double sum, size_t head) const { return sum / static_cast<double>(std::max<int64_t>(1, labels[head])); }
};

int64_t count_targets(const ConstTensor& targets) {
  const int32_t* target = targets.as<int32_t>();
  int64_t count = 0;
  for (int64_t i = 0; i < targets.elements(); ++i) count += target[i] >= 0;
  return count;
}

Targets count(const Batch& batch, const ModelConfig& config) {
  Targets targets{count_targets(batch.targets), std::vector<int64_t>(config.heads.size())};
  for (const HeadTarget& target : batch.heads) ++targets.labels[target.head];
  return targets;
}

ParameterSet::Wanted trained(const TrainOptions& options) {
  return [options](const std::string& name) { return options.trains(name); };
}

}  // namespace

Trainer::State::State(Device& on, const TrainOptions& o, const TokenFile& file)
    : device(on),
      options(o),
      data(file),
      schedule(o.make_schedule()),
      loader(make_loader(o, file.train())),
      weights("weights", o.config, o.formats()),
      gradients("gradients", o.config, o.type, [o](const std::string& name) { return o.has_gradient(name); }),
      m("moments", o.config, o.moments, trained(o)),
      v("moments", o.config, o.moments, trained(o)),
      memory(o.config, o.pass_shape(), o.micro_batches(), o.type, o.fgm > 0),
      unfreezing(o) {
  if (o.has_master()) master.emplace("master", o.config, o.master, trained(o));
  weights.commit(device), gradients.commit(device), m.commit(device), v.commit(device);
  if (master) master->commit(device);
  show_gradients();
  pass.emplace(device, options.config, weights, &gradients, o.pass_shape(), o.type);
  if (!o.heads.empty())
    heads.emplace(device, o.config, weights, &gradients, o.pass_shape().lanes * o.pass_shape().segment, o.type);
  memory.commit(device, *pass);
  if (o.fgm > 0) adversarial.emplace(o.config, o.type, static_cast<float>(o.fgm)).commit(device);
  norm = scratch.take(Dtype::fp32, {1});
  scratch.commit(device);
  norm = scratch.take(Dtype::fp32, {1});
}

void Trainer::State::show_gradients() {
  gradients.show([this](const std::string& name) {
    int64_t stage = options.stage(name);
    return (stage >= 0 && stage < unfreezing.stages()) || (options.fgm > 0 && name == "embedding.weight");
  });
}

Tensor Trainer::State::trained_rows(const Tensor& whole, size_t parameter) const {
  int64_t first = options.first_row(weights.list()[parameter].name);
  return first == 0 ? whole : whole.rows(first, whole.size(0) - first);
}

void Trainer::State::round_master() {
  if (!master) return;
  for (size_t i = 0; i < weights.tensors().size(); ++i)
    if (master->tensors()[i]) device.cast({.out = weights.tensors()[i], .x = master->tensors()[i], .stream = {}});
}

Trainer::Trainer(Device& device, const TrainOptions& options, const TokenFile& data, int64_t validate_tokens,
                 const SafetensorsFile* from)
    : state_(std::make_shared<State>(device, options, data)) {
  auto drawn = [&](const std::string& name) { return !from || !from->has(name); };
  initialize(device, state_->weights, options.seed, drawn);
  if (state_->master) initialize(device, *state_->master, options.seed, drawn);
  state_->round_master();
  if (!data.validation().empty() && validate_tokens > 0)
    state_->validator.emplace(device, options, state_->weights, validate_tokens);
}

void Trainer::load_weights(const SafetensorsFile& file) {
  State& s = *state_;
  load_parameters(s.device, s.weights, file, "master.", true);
  if (s.master) load_parameters(s.device, *s.master, file, "master.", true);
  s.round_master();
  s.base = base_checksum(file);
}

int64_t Trainer::steps_done() const { return state_->step; }
std::string_view Trainer::device_name() const { return state_->device.name(); }
const TrainOptions& Trainer::options() const { return state_->options; }
const ParameterSet& Trainer::weights() const { return state_->weights; }

std::vector<ValidationRow> Trainer::validate() {
  if (!state_->validator) return {};
  return state_->validator->run(state_->data.validation());
}

bool Trainer::judge(double nats) {
  bool better = nats < state_->best;
  state_->since_best = better ? 0 : state_->since_best + 1;
  if (better) state_->best = nats;
  return better;
}

int64_t Trainer::validations_without_gain() const { return state_->since_best; }

namespace {

/// The parts of a step's loss: sums of the language's and of each head's.
struct LossSums {
  double language = 0;
  std::vector<double> heads;

  /// Means, weighted.
  double total(const TrainOptions& o, const Targets& targets) const {
    double sum = language / static_cast<double>(std::max<int64_t>(1, targets.tokens));
    for (size_t h = 0; h < heads.size(); ++h) sum += o.head_weight(o.config.heads[h]) * targets.mean(heads[h], h);
    return sum;
  }
  std::vector<LossPart> parts(const TrainOptions& o, const Targets& targets) const {
    std::vector<LossPart> parts;
    if (targets.tokens > 0) parts.push_back({"language", language / static_cast<double>(targets.tokens)});
    for (size_t h = 0; h < heads.size(); ++h)
      if (targets.labels[h] > 0) parts.push_back({o.config.heads[h].name, targets.mean(heads[h], h)});
    return o.heads.empty() ? std::vector<LossPart>{} : parts;
  }
};

/// Adds the heads' losses of a micro-batch, and their gradients to the heads and the hidden states.
void learn_heads(Trainer::State& s, const Batch& part, const Targets& targets, LossOptions loss, LossSums& sums) {
  for (size_t h = 0; h < sums.heads.size(); ++h) {
    double weight = s.options.head_weight(s.options.config.heads[h]);
    loss.scale = static_cast<float>(targets.mean(weight, h));
    sums.heads[h] += s.heads->loss(h, s.pass->hidden(), s.pass->d_hidden(), part.heads, loss);
  }
}

/// Adds the gradients of every micro-batch. What is not finite ends it early. The memory goes on from a first pass
/// alone.
LossSums add_gradients(Trainer::State& s, const Batch& whole, const Targets& targets, bool first) {
  const TrainOptions& o = s.options;
  LossOptions loss{.smoothing = static_cast<float>(o.label_smoothing),
                   .gamma = static_cast<float>(o.focal_gamma),
                   .scale = 1.0f / static_cast<float>(std::max<int64_t>(1, targets.tokens))};
  LossSums sums;
  if (s.heads) sums.heads.resize(o.config.heads.size());
  for (int64_t group = 0; group < o.micro_batches(); ++group) {
    Columns part(whole, group * o.micro_batch, o.micro_batch);
    uint64_t key = static_cast<uint64_t>(s.step * o.micro_batches() + group);
    s.memory.to_pass(group);
    sums.language += s.pass->forward(part.batch(), loss, o.dropout, o.seed, key);
    learn_heads(s, part.batch(), targets, loss, sums);
    if (!std::isfinite(sums.total(o, targets))) break;
    s.pass->backward();
    if (first) s.memory.from_pass(group);
  }
  return sums;
}

/// Gradients of a step, its mean loss and the parts of it.
void accumulate(Trainer::State& s, const Batch& batch, const Targets& targets, StepReport& report) {
  for (const Tensor& gradient : s.gradients.tensors())
    if (gradient) s.device.zero(gradient);
  LossSums sums = add_gradients(s, batch, targets, true);
  report.loss = sums.total(s.options, targets), report.parts = sums.parts(s.options, targets);
  if (s.adversarial && std::isfinite(report.loss)) {
    s.adversarial->up(s.weights.embedding, s.gradients.embedding);
    double second = add_gradients(s, batch, targets, false).total(s.options, targets);
    s.adversarial->down(s.weights.embedding);
    if (!std::isfinite(second)) report.loss = second;
  }
  s.memory.step_done();
}

float gradient_norm(Trainer::State& s) {
  std::vector<ConstTensor> gradients;
  for (size_t i = 0; i < s.gradients.tensors().size(); ++i)
    if (s.unfreezing.trains(i)) gradients.push_back(s.trained_rows(s.gradients.tensors()[i], i));
  s.device.global_norm({.norm = s.norm, .tensors = gradients});
  float norm;
  s.device.download(&norm, s.norm);
  return norm;
}

std::vector<AdamWParameter> optimizer_list(const Trainer::State& s, int64_t stage) {
  std::vector<AdamWParameter> list;
  for (size_t i = 0; i < s.weights.list().size(); ++i) {
    if (s.unfreezing.stage(i) != stage) continue;
    AdamWParameter p;
    p.weight = s.trained_rows(s.weights.tensors()[i], i);
    p.m = s.trained_rows(s.m.tensors()[i], i), p.v = s.trained_rows(s.v.tensors()[i], i);
    if (s.master) p.master = s.trained_rows(s.master->tensors()[i], i);
    p.gradient = s.trained_rows(s.gradients.tensors()[i], i);
    p.weight_decay = s.weights.list()[i].matrix ? static_cast<float>(s.options.weight_decay) : 0;
    p.index = static_cast<uint32_t>(i);
    p.learning_rate_scale = layer_rate(s.options.config, s.options.layer_decay, s.weights.list()[i].name);
    list.push_back(p);
  }
  return list;
}

void update(Trainer::State& s, double rate, double norm) {
  DeviceRange range(s.device, "optimizer");
  const TrainOptions& o = s.options;
  double scale = o.clip > 0 && norm > o.clip ? o.clip / norm : 1;
  ++s.updates;
  for (int64_t stage = 0; stage < s.unfreezing.stages(); ++stage) {
    std::vector<AdamWParameter> list = optimizer_list(s, stage);
    if (list.empty()) continue;
    s.device.adamw(
        {.parameters = list,
         .learning_rate = static_cast<float>(rate),
         .beta1 = static_cast<float>(o.beta1),
         .beta2 = static_cast<float>(o.beta2),
         .eps = static_cast<float>(o.eps),
         .gradient_scale = static_cast<float>(scale),
         .step = s.updates - s.unfreezing.since(stage),
         .rounding = {.seed = o.seed, .step = static_cast<uint64_t>(s.step), .use = RandomUse::stochastic_rounding}});
  }
  s.device.synchronize();
}

}  // namespace

StepReport Trainer::step() {
  State& s = *state_;
  auto start = std::chrono::steady_clock::now();
  StepReport report;
  report.step = s.step, report.learning_rate = s.schedule.rate(s.step);

  report.thawed = s.unfreezing.advance(s.loader->state().epoch, s.updates);
  if (!report.thawed.empty()) s.show_gradients();

  if (s.loader->needs_losses()) s.loader->take_losses(example_losses(s));
  bool fresh = s.loader->next_is_fresh();
  if (fresh) s.memory.clear();
  Batch batch = s.loader->next(s.memory.length(), fresh);
  Targets targets = count(batch, s.options.config);
  if (s.heads && targets.tokens == 0) batch.targets = {};  // nothing to learn from the language
  report.tokens = batch.tokens.elements(), report.segment = s.options.segment_start > 0 ? batch.tokens.size(0) : 0;
  report.flops = static_cast<double>(report.tokens) * training_flops_per_token(s.options.config, s.options.micro_batch,
                                                                               batch.tokens.size(0), s.memory.length());
  if (s.adversarial) report.flops *= 2;

  accumulate(s, batch, targets, report);
  report.grad_norm = std::isfinite(report.loss) ? gradient_norm(s) : report.loss;
  report.skipped = s.guard.judge(report.loss, report.grad_norm, s.options.spike);
  if (report.skipped.empty()) {
    update(s, report.learning_rate, report.grad_norm);
    s.guard.accept(report.loss);
  } else {
    ++s.guard.skipped;
    if (!std::isfinite(report.loss)) s.memory.clear();  // what is not finite must not live on in the memory
  }
  report.skipped_in_a_row = s.guard.skipped;
  ++s.step;
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace longhand
