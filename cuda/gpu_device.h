// The GPU device. Its sources are built twice: by nvcc into the `cuda` device, and by the host's compiler, on the
// threads of cuda/simt, into the `simt` device. One family of operations a file: device functions, kernels, launcher.
#pragma once

#include <map>
#include <vector>

#include "cuda/fault.h"
#include "cuda/product.h"
#include "cuda/simt/simt.h"
#include "longhand/device.h"

namespace longhand::LONGHAND_GPU {

/// How a kernel is started; `of` is the shape that an error names.
struct Launch {
  const char* operation;
  dim3 grid, block;
  size_t shared = 0;  // dynamic, bytes
  Shape of{};
};

class Transfers;         // cuda/transfers.h
struct Recording;        // cuda/graphs.cu
struct NeedsScratch {};  // thrown where scratch would have to grow while a graph is recorded
struct Attention;        // cuda/attention.h
struct Decode;           // cuda/attention_decode.h
struct MmaBackward;      // cuda/attention_mma_backward.h

class GpuDevice final : public Device {
 public:
  explicit GpuDevice(const DeviceOptions& options);
  ~GpuDevice() override;
  std::string_view name() const override { return SIMT_HOST ? "simt" : "cuda"; }

  void* allocate(int64_t bytes) override;
  void release(void* memory) override;
  int64_t memory_bytes() const override;
  void upload(const Tensor& to, const void* from) override;
  void download(void* to, const ConstTensor& from) override;
  void copy(const Tensor& to, const ConstTensor& from) override;
  void zero(const Tensor& tensor) override;
  void synchronize() override;
  Ceilings ceilings() override;
  void repeat(uint64_t key, uint64_t arguments, const std::function<void()>& work) override;
  void begin_range(const char* name) override;
  void end_range() override;
  void profile(bool on) override;

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
  /// Starts a kernel on the compute stream; fails with the operation and its shape when it does not start.
  template <class... Parameters, class... Arguments>
  void launch(const Launch& how, void (*kernel)(Parameters...), Arguments&&... arguments) {
    if (how.grid.x == 0 || how.grid.y == 0 || how.grid.z == 0) return;
    DeviceRange range(*this, how.operation);
    check(simt::launch(kernel, how.grid, how.block, how.shared, stream_, std::forward<Arguments>(arguments)...), how);
  }
  void check(cudaError_t status, const Launch& how) const;
  void check(cudaError_t status, const char* what) const;

  /// Where a kernel leaves the first row whose data are at fault, for report_fault() (cuda/fault.h). `bound` is what
  /// the message names: the vocabulary or the number of sequences. The host sees it when it next waits for the device.
  unsigned long long* fault(Fault kind, int64_t bound) {
    fault_bounds_[static_cast<int>(kind)] = bound;
    return faults_ + static_cast<int>(kind);
  }
  void fail_found(const unsigned long long (&found)[fault_kinds]);

  /// to [width] += the sum of partials [stripes, width] in a fixed order.
  void add_partials(const Tensor& to, const float* partials, int64_t stripes, const char* operation);

  /// Device memory for one operation, contents undefined, valid until the operation's end: `count` elements of T,
  /// 256-byte aligned. The pieces of an operation lie one behind the other.
  template <class T>
  T* scratch(int64_t count) {
    return static_cast<T*>(scratch_bytes(count * static_cast<int64_t>(sizeof(T))));
  }
  void* scratch_bytes(int64_t bytes);
  std::string card_name() const;
  void upload_bytes(void* to, const void* from, int64_t bytes);
  /// A table of what kernels are to work on, in scratch. The host's copy may go once this returns.
  template <class Entry>
  const Entry* upload_table(const std::vector<Entry>& table) {
    Entry* there = scratch<Entry>(static_cast<int64_t>(table.size()));
    upload_bytes(there, table.data(), static_cast<int64_t>(table.size() * sizeof(Entry)));
    return there;
  }

  /// Records `work` into the graph of a recording, or runs it where it cannot be recorded now.
  void record(Recording& recording, const std::function<void()>& work);
  void forget_recordings();

  /// Opened by every operation that takes scratch: gives it back at the end.
  struct Operation {
    explicit Operation(GpuDevice& on) : device(on), mark(on.scratch_used_) {}
    ~Operation() { device.release_scratch(mark); }
    Operation(const Operation&) = delete;
    GpuDevice& device;
    int64_t mark;
  };
  void release_scratch(int64_t mark);

  // Ways of quantized_matmul: integer activations; weights that have no scales.
  void matmul_s8(const QuantizedMatmul& op);
  void unquantized_matmul(const QuantizedMatmul& op);

  // Attention's two ways, and the steps that they share. Scratch of a step lives as long as the caller's Operation.
  void attention_forward_general(const Attention& a);
  void attention_forward_mma(const Attention& a);
  void attention_backward_general(const Attention& a, const AttentionBackward& call);
  void attention_backward_mma(const Attention& a, const AttentionBackward& call);
  void attention_backward_mma_keys(const MmaBackward& b, const AttentionBackward& call);
  void attention_backward_mma_queries(const MmaBackward& b, const AttentionBackward& call);
  void attention_backward_mma_distances(const MmaBackward& b, const AttentionBackward& call);
  /// Fills d.runs with the pages that each of n queries keeps; takes the scratch for it.
  void decode_choose_pages(Decode& d, int64_t n);
  /// Fills `selected` with every tile's best pages.
  void attention_choose_pages(const Attention& a);
  /// Query tiles [first, first + count), numbered (lane * heads + head) * tiles + tile: from their scores, rows of
  /// `keys` floats, 64 rows a tile, valid where the key is visible, to selected, lse and out.
  void attention_select_keys(const Attention& a, const float* scores, int64_t first, int64_t count);
  /// Segment terms (q_i + bias) . table[e], unscaled: float2 [lanes, heads, queries]; null when there are none.
  float2* attention_segment_terms(const Attention& a);
  /// sum of d_out . out of every query: [lanes, heads, queries].
  float* attention_deltas(const Attention& a);
  /// to [rows, heads, width] = (or +=) the sum over n, in order, of partials [count, given, heads, width]; rows of the
  /// partials beyond the last add into it. An empty `to` is not wanted; [heads, width] is one row.
  void attention_sum(const Tensor& to, const float* partials, int64_t count, int64_t given, bool add);

  cudaStream_t stream_ = nullptr;  // every operation runs here; transfers have a stream of their own
  std::unique_ptr<Transfers> transfers_;
  unsigned long long* faults_ = nullptr;
  int64_t fault_bounds_[fault_kinds] = {};
  std::unique_ptr<Product> product_;
  std::map<uint64_t, std::shared_ptr<Recording>> recordings_;
  bool recording_ = false, profiled_ = false;
  char* scratch_ = nullptr;
  int64_t scratch_size_ = 0, scratch_used_ = 0;
  std::vector<char*> outgrown_;  // smaller scratch that running kernels may still use
};

}  // namespace longhand::LONGHAND_GPU
