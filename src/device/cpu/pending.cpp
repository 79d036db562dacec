// Families that are not written yet. Each author deletes the lines of the family that arrives.
#include "src/device/cpu/cpu_device.h"

namespace longhand::cpu {
void CpuDevice::activation_backward(const ActivationBackward&) { fail("pending"); }
void CpuDevice::bias_backward(const BiasBackward&) { fail("pending"); }
void CpuDevice::embedding_forward(const EmbeddingForward&) { fail("pending"); }
void CpuDevice::embedding_backward(const EmbeddingBackward&) { fail("pending"); }
void CpuDevice::layernorm_forward(const LayerNormForward&) { fail("pending"); }
void CpuDevice::layernorm_backward(const LayerNormBackward&) { fail("pending"); }
void CpuDevice::position_encoding(const PositionEncoding&) { fail("pending"); }
void CpuDevice::attention_forward(const AttentionForward&) { fail("pending"); }
void CpuDevice::attention_backward(const AttentionBackward&) { fail("pending"); }
void CpuDevice::attention_decode(const AttentionDecode&) { fail("pending"); }
void CpuDevice::ring_store(const RingStore&) { fail("pending"); }
void CpuDevice::cross_entropy(const CrossEntropy&) { fail("pending"); }
void CpuDevice::log_probability(const LogProbability&) { fail("pending"); }
void CpuDevice::adamw(const AdamW&) { fail("pending"); }
void CpuDevice::global_norm(const GlobalNorm&) { fail("pending"); }
void CpuDevice::cast(const Cast&) { fail("pending"); }
void CpuDevice::add(const Add&) { fail("pending"); }
void CpuDevice::memory_roll(const MemoryRoll&) { fail("pending"); }
void CpuDevice::sample(const Sample&) { fail("pending"); }
}  // namespace longhand::cpu
