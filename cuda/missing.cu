// What the branch still lacks.
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

void GpuDevice::attention_forward(const AttentionForward&) { fail("{}: attention_forward is missing", name()); }
void GpuDevice::attention_backward(const AttentionBackward&) { fail("{}: attention_backward is missing", name()); }
void GpuDevice::attention_decode(const AttentionDecode&) { fail("{}: attention_decode is missing", name()); }

}  // namespace longhand::LONGHAND_GPU
