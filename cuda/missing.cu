// What the branch still lacks.
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

void GpuDevice::quantize(const Quantize&) { fail("{}: quantize is missing", name()); }
void GpuDevice::quantized_matmul(const QuantizedMatmul&) { fail("{}: quantized_matmul is missing", name()); }

}  // namespace longhand::LONGHAND_GPU
