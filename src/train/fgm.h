// FGM, the fast gradient method (Miyato et al. 2017, "Adversarial Training Methods for Semi-Supervised Text
// Classification"), on the embedding matrix E, which is the output layer too:
//
//   r = epsilon * dL/dE / ||dL/dE||;   gradient = dL(E) + dL(E + r), r taken as a constant
//
// Both passes see one batch, the same dropout masks and the same memory; what the second one writes into the memory is
// dropped.
#pragma once

#include "longhand/parameters.h"

namespace longhand {

class AdversarialStep {
 public:
  /// Counts its bytes; commit() takes them.
  AdversarialStep(const ModelConfig& config, Dtype type, float epsilon);
  void commit(Device& device);
  int64_t bytes() const { return arena_.bytes(); }

  /// embedding += epsilon * gradient / norm.
  void up(const Tensor& embedding, const ConstTensor& gradient);
  /// The embedding as it was, every bit.
  void down(const Tensor& embedding);

 private:
  void lay_out();
  Shape shape_;
  Dtype type_;
  float epsilon_;
  Arena arena_{"adversarial"};
  Device* device_ = nullptr;
  Tensor kept_, norm_;
};

}  // namespace longhand
