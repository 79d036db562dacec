// On the host the CPU's matrix product answers for cuBLASLt.
#include "cuda/product.h"
#include "cuda/simt/host/device_memory.h"
#include "cuda/simt/host/streams.h"
#include "src/device/devices.h"

namespace longhand::LONGHAND_GPU {
namespace {

class HostProduct final : public Product {
 public:
  explicit HostProduct(const DeviceOptions& options) : cpu_(make_cpu_device(options)) {}
  void run(const Matmul& a, cudaStream_t stream) override {
    static const char kind = 0;
    cudaError_t status = simt::put(stream, {&kind, [a, cpu = cpu_.get()] {
                                              simt::Accessible memory;
                                              cpu->matmul(a);
                                              simt::host_wrote(a.out.data(), span(a.out));
                                              return cudaSuccess;
                                            }});
    if (status != cudaSuccess) fail("simt: matmul: {}", cudaGetErrorString(status));
  }

 private:
  /// Bytes from the first element to the last.
  static size_t span(const Tensor& t) {
    int64_t last = 0;
    for (int axis = 0; axis < t.rank(); ++axis) last += (t.size(axis) - 1) * t.stride(axis);
    return t.elements() == 0 ? 0 : (last + 1) * dtype_bytes(t.type());
  }

  std::unique_ptr<Device> cpu_;
};

}  // namespace

std::unique_ptr<Product> make_product(const DeviceOptions& options) { return std::make_unique<HostProduct>(options); }

}  // namespace longhand::LONGHAND_GPU
