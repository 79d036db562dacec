// Families that are not written yet. Each author deletes the lines of the family that arrives.
#include "src/device/cpu/cpu_device.h"

namespace longhand::cpu {
void CpuDevice::attention_forward(const AttentionForward&) { fail("pending"); }
void CpuDevice::attention_backward(const AttentionBackward&) { fail("pending"); }
void CpuDevice::attention_decode(const AttentionDecode&) { fail("pending"); }
void CpuDevice::ring_store(const RingStore&) { fail("pending"); }
}  // namespace longhand::cpu
