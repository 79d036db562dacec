// On the host the CPU's matrix product answers for cuBLASLt.
#include "cuda/product.h"
#include "src/device/devices.h"

namespace longhand::LONGHAND_GPU {
namespace {

class HostProduct final : public Product {
 public:
  explicit HostProduct(const DeviceOptions& options) : cpu_(make_cpu_device(options)) {}
  void run(const Matmul& a, cudaStream_t) override { cpu_->matmul(a); }

 private:
  std::unique_ptr<Device> cpu_;
};

}  // namespace

std::unique_ptr<Product> make_product(const DeviceOptions& options) { return std::make_unique<HostProduct>(options); }

}  // namespace longhand::LONGHAND_GPU
