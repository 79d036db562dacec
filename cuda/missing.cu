// What the branch still lacks.
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

void GpuDevice::attention_decode(const AttentionDecode&) { fail("{}: attention_decode is missing", name()); }
void GpuDevice::sample(const Sample&) { fail("{}: sample is missing", name()); }

}  // namespace longhand::LONGHAND_GPU
