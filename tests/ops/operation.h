// The operation table. One short struct (a "row") an operation of device.h: shapes to try, inputs, the reference in
// double, how to run it, its cost. From a row come the checks on every device in fp32 and bf16, finite differences, the
// agreement of devices, the bit equality of repeated runs and the roofline benchmark.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "longhand/device.h"
#include "tests/ops/arrays.h"

/// Every operation of the device: its method and arguments. A method of Device that is missing here leaves
/// CountingDevice abstract, and a line here without its row (`NAME_row`) does not link.
#define LONGHAND_OPERATIONS(X)               \
  X(matmul, Matmul)                          \
  X(quantize, Quantize)                      \
  X(dequantize, Dequantize)                  \
  X(quantized_matmul, QuantizedMatmul)       \
  X(activation_forward, ActivationForward)   \
  X(activation_backward, ActivationBackward) \
  X(bias_backward, BiasBackward)             \
  X(embedding_forward, EmbeddingForward)     \
  X(embedding_backward, EmbeddingBackward)   \
  X(layernorm_forward, LayerNormForward)     \
  X(layernorm_backward, LayerNormBackward)   \
  X(position_encoding, PositionEncoding)     \
  X(attention_forward, AttentionForward)     \
  X(attention_backward, AttentionBackward)   \
  X(attention_decode, AttentionDecode)       \
  X(ring_store, RingStore)                   \
  X(page_bounds, PageBounds)                 \
  X(cross_entropy, CrossEntropy)             \
  X(log_probability, LogProbability)         \
  X(crf_loss, CrfLoss)                       \
  X(crf_decode, CrfDecode)                   \
  X(adamw, AdamW)                            \
  X(global_norm, GlobalNorm)                 \
  X(fgm_step, FgmStep)                       \
  X(cast, Cast)                              \
  X(add, Add)                                \
  X(memory_roll, MemoryRoll)                 \
  X(sample, Sample)

namespace longhand::ops {

/// What an operation moves and computes at least.
struct Cost {
  double bytes = 0, operations = 0;
};

/// Takes what is wrong with a case, one line each: what, the error, its limit.
using Complaint = std::function<void(const std::string& what, double error, double limit)>;

/// An input of the forward operation and the output of this one that is the gradient of objective() to it.
struct Gradient {
  std::string input, gradient;
};

class Operation {
 public:
  virtual ~Operation() = default;

  /// The shapes to try, useful and awkward.
  virtual std::vector<Sizes> shapes() const = 0;
  virtual std::vector<Dtype> types(const Sizes&) const { return {Dtype::fp32, Dtype::bf16}; }
  /// Declares every array of the case and draws the inputs, in ranges that exercise the numerics.
  virtual void inputs(Case& c, Random& random) const = 0;
  /// The equation, in double.
  virtual void reference(const Case& c, Fp64& f) const = 0;
  virtual void run(Device& device, const Case& c, Bound& d) const = 0;
  virtual Cost cost(const Sizes& s, Dtype type) const = 0;

  /// The largest relative error in fp32.
  virtual double limit() const { return 1e-5; }
  /// The result must be the reference rounded to its type, bit for bit.
  virtual bool exact() const { return false; }
  /// Devices need not agree in the named result: it is drawn, or follows from a selection.
  virtual bool comparable(const Case&) const { return true; }
  /// Promises beyond closeness to the reference.
  virtual void check(const Case&, const Arrays& /*result*/, const Fp64& /*reference*/, const Complaint&) const {}
  /// Promises that need further runs on the device; d holds the case as uploaded.
  virtual void check_runs(Device&, const Case&, Bound& /*d*/, const Complaint&) const {}

  /// Backward operations: gradients to hold against finite differences of the objective, a function of the inputs
  /// alone. The selection and the random numbers stay as they are in c.
  virtual std::vector<Gradient> gradients(const Case&) const { return {}; }
  virtual double objective(const Case&) const { return 0; }

  /// Shapes worth timing, and how inputs that inputs() leaves out when timing are derived on the device.
  virtual std::vector<Sizes> timed_shapes() const = 0;
  virtual void derive(Device&, const Case&, Bound&) const {}
};

struct Entry {
  const char* name;
  std::unique_ptr<Operation> row;
};

/// One entry an operation, in the order of device.h.
std::vector<Entry> operation_table();

#define LONGHAND_DECLARE_ROW(method, Arguments) std::unique_ptr<Operation> method##_row();
LONGHAND_OPERATIONS(LONGHAND_DECLARE_ROW)
#undef LONGHAND_DECLARE_ROW

/// A device that counts the calls of each operation and passes them on.
class CountingDevice final : public Device {
 public:
  explicit CountingDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  std::string_view name() const override { return device_->name(); }
  int threads() const override { return device_->threads(); }
  void* allocate(int64_t bytes) override { return device_->allocate(bytes); }
  void release(void* memory) override { device_->release(memory); }
  int64_t memory_bytes() const override { return device_->memory_bytes(); }
  void upload(const Tensor& to, const void* from) override { device_->upload(to, from); }
  void download(void* to, const ConstTensor& from) override { device_->download(to, from); }
  void copy(const Tensor& to, const ConstTensor& from) override { device_->copy(to, from); }
  void zero(const Tensor& tensor) override { device_->zero(tensor); }
  void synchronize() override { device_->synchronize(); }
  void repeat(uint64_t key, uint64_t arguments, const std::function<void()>& work) override {
    device_->repeat(key, arguments, work);
  }
  Interleaving interleaving(Dtype weights, Dtype activations) const override {
    return device_->interleaving(weights, activations);
  }
  Ceilings ceilings() override { return device_->ceilings(); }
  double read_rate() override { return device_->read_rate(); }

#define LONGHAND_COUNT(method, Arguments)    \
  void method(const Arguments& a) override { \
    ++calls[#method];                        \
    device_->method(a);                      \
  }
  LONGHAND_OPERATIONS(LONGHAND_COUNT)
#undef LONGHAND_COUNT

  std::map<std::string, int64_t> calls;

 private:
  std::unique_ptr<Device> device_;
};

}  // namespace longhand::ops
