// Relative attention on tensor cores.
#include "cuda/attention.h"
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

bool attention_mma_takes(const Attention&) { return false; }
void GpuDevice::attention_forward_mma(const Attention&) { fail("{}: attention on tensor cores is missing", name()); }
void GpuDevice::attention_backward_mma(const Attention&, const AttentionBackward&) {
  fail("{}: attention on tensor cores is missing", name());
}

}  // namespace longhand::LONGHAND_GPU
