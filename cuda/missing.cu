// What the branch still lacks.
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

void GpuDevice::activation_backward(const ActivationBackward&) { fail("{}: activation_backward is missing", name()); }
void GpuDevice::bias_backward(const BiasBackward&) { fail("{}: bias_backward is missing", name()); }
void GpuDevice::embedding_forward(const EmbeddingForward&) { fail("{}: embedding_forward is missing", name()); }
void GpuDevice::embedding_backward(const EmbeddingBackward&) { fail("{}: embedding_backward is missing", name()); }
void GpuDevice::layernorm_forward(const LayerNormForward&) { fail("{}: layernorm_forward is missing", name()); }
void GpuDevice::layernorm_backward(const LayerNormBackward&) { fail("{}: layernorm_backward is missing", name()); }
void GpuDevice::position_encoding(const PositionEncoding&) { fail("{}: position_encoding is missing", name()); }
void GpuDevice::attention_decode(const AttentionDecode&) { fail("{}: attention_decode is missing", name()); }
void GpuDevice::ring_store(const RingStore&) { fail("{}: ring_store is missing", name()); }
void GpuDevice::cross_entropy(const CrossEntropy&) { fail("{}: cross_entropy is missing", name()); }
void GpuDevice::log_probability(const LogProbability&) { fail("{}: log_probability is missing", name()); }
void GpuDevice::adamw(const AdamW&) { fail("{}: adamw is missing", name()); }
void GpuDevice::global_norm(const GlobalNorm&) { fail("{}: global_norm is missing", name()); }
void GpuDevice::cast(const Cast&) { fail("{}: cast is missing", name()); }
void GpuDevice::add(const Add&) { fail("{}: add is missing", name()); }
void GpuDevice::memory_roll(const MemoryRoll&) { fail("{}: memory_roll is missing", name()); }
void GpuDevice::sample(const Sample&) { fail("{}: sample is missing", name()); }

}  // namespace longhand::LONGHAND_GPU
