// The devices that the registry can make; each is defined beside its device.
#pragma once

#include <memory>

#include "longhand/device.h"

namespace longhand {

std::unique_ptr<Device> make_cpu_device(const DeviceOptions& options);
std::unique_ptr<Device> make_simt_device(const DeviceOptions& options);
std::unique_ptr<Device> make_cuda_device(const DeviceOptions& options);  // built with LONGHAND_CUDA

/// Whether this machine has a card that the cuda device can use.
bool cuda_device_present();

}  // namespace longhand
