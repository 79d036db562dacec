// The CPU device. One family of operations a file: the launcher in src/device/cpu/<family>.cpp checks shapes and
// divides the work among threads, the inner loops stand in kernels/<family>.cpp, built once for each instruction set.
#pragma once

#include <memory>
#include <vector>

#include "longhand/device.h"
#include "longhand/threads.h"

namespace longhand::cpu {

struct MatmulBlocks;  // matmul.cpp

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const DeviceOptions& options);
  ~CpuDevice() override;
  std::string_view name() const override { return "cpu"; }
  int threads() const override { return pool_.size(); }

  void* allocate(int64_t bytes) override;
  void release(void* memory) override;
  int64_t memory_bytes() const override;
  Interleaving interleaving(Dtype weights, Dtype activations) const override;
  void upload(const Tensor& to, const void* from) override;
  void download(void* to, const ConstTensor& from) override;
  void copy(const Tensor& to, const ConstTensor& from) override;
  void zero(const Tensor& tensor) override;
  Ceilings ceilings() override { return cached_ceilings(pool_.size()); }
  double read_rate() override;

  void matmul(const Matmul&) override;
  void quantize(const Quantize&) override;
  void dequantize(const Dequantize&) override;
  void quantized_matmul(const QuantizedMatmul&) override;
  void activation_forward(const ActivationForward&) override;
  void activation_backward(const ActivationBackward&) override;
  void bias_backward(const BiasBackward&) override;
  void embedding_forward(const EmbeddingForward&) override;
  void embedding_backward(const EmbeddingBackward&) override;
  void layernorm_forward(const LayerNormForward&) override;
  void layernorm_backward(const LayerNormBackward&) override;
  void position_encoding(const PositionEncoding&) override;
  void attention_forward(const AttentionForward&) override;
  void attention_backward(const AttentionBackward&) override;
  void attention_decode(const AttentionDecode&) override;
  void ring_store(const RingStore&) override;
  void page_bounds(const PageBounds&) override;
  void cross_entropy(const CrossEntropy&) override;
  void log_probability(const LogProbability&) override;
  void crf_loss(const CrfLoss&) override;
  void crf_decode(const CrfDecode&) override;
  void adamw(const AdamW&) override;
  void global_norm(const GlobalNorm&) override;
  void fgm_step(const FgmStep&) override;
  void cast(const Cast&) override;
  void add(const Add&) override;
  void memory_roll(const MemoryRoll&) override;
  void sample(const Sample&) override;

 private:
  /// Scratch of one thread (thread < size()) or of the whole call (thread = size()), grown when it is too small.
  /// 64-byte aligned, contents undefined, valid until the next request for the same thread.
  void* scratch(int thread, int64_t bytes);

  void multiply(const Matmul&, const Interleaving& b_order);
  static Interleaving float_interleaving(Dtype weights, Dtype activations);
  void multiply_few(MatmulBlocks&);
  void multiply_many(MatmulBlocks&);

  ThreadPool pool_;
  std::vector<std::pair<void*, int64_t>> scratch_;
  std::unique_ptr<ReadProbe> probe_;  // once asked for
};

}  // namespace longhand::cpu
