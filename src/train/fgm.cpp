#include "src/train/fgm.h"

namespace longhand {

AdversarialStep::AdversarialStep(const ModelConfig& config, Dtype type, float epsilon)
    : shape_{config.vocab_size, config.d_model}, type_(type), epsilon_(epsilon) {
  lay_out();
}

void AdversarialStep::lay_out() {
  kept_ = arena_.take(type_, shape_);
  norm_ = arena_.take(Dtype::fp32, {1});
}

void AdversarialStep::commit(Device& device) {
  device_ = &device;
  arena_.commit(device);
  lay_out();
}

void AdversarialStep::up(const Tensor& embedding, const ConstTensor& gradient) {
  device_->copy(kept_, embedding);
  const ConstTensor tensors[] = {gradient};
  device_->global_norm({.norm = norm_, .tensors = tensors});
  device_->fgm_step({.x = embedding, .gradient = gradient, .norm = norm_, .epsilon = epsilon_});
}

void AdversarialStep::down(const Tensor& embedding) { device_->copy(embedding, kept_); }

}  // namespace longhand
