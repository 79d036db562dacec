// What the branch still lacks.
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

void GpuDevice::sample(const Sample&) { fail("{}: sample is missing", name()); }

}  // namespace longhand::LONGHAND_GPU
