#include "src/device/cpu/cpu_device.h"

namespace longhand {

std::unique_ptr<Device> make_device(std::string_view name, const DeviceOptions& options) {
  if (name == "cpu" || name == "auto") return std::make_unique<cpu::CpuDevice>(options);
  fail_usage("there is no device \"{}\" in this build: it has cpu", name);
}

}  // namespace longhand
