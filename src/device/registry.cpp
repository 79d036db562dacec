#include "src/device/devices.h"

namespace longhand {

std::unique_ptr<Device> make_device(std::string_view name, const DeviceOptions& options) {
#ifdef LONGHAND_CUDA
  if (name == "cuda" || (name == "auto" && cuda_device_present())) return make_cuda_device(options);
#else
  if (name == "cuda") fail_usage("this build has no cuda device: build it with `make cuda`");
#endif
  if (name == "cpu" || name == "auto") return make_cpu_device(options);
  if (name == "simt") return make_simt_device(options);
  fail_usage("there is no device \"{}\": auto, cpu, simt and cuda are known", name);
}

}  // namespace longhand
