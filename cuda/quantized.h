// What the quantised products share: how a sum becomes an element of the result.
#pragma once

#include "cuda/activation.h"
#include "cuda/fp16.h"
#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/quantized.h"

namespace longhand::LONGHAND_GPU {

__device__ __forceinline__ float load_scale(const void* scales, bool half, int64_t at) {
  return half ? to_float(static_cast<const fp16_t*>(scales)[at]) : static_cast<const float*>(scales)[at];
}

/// out = activation(sum + bias), of the types that the call has.
struct QuantizedOutput {
  void* out;
  const void* bias;
  int64_t rows, columns, stride;
  bool out_bf16, bias_bf16;
  Activation activation;

  QuantizedOutput(const QuantizedMatmul& op, const QuantizedProduct& product)
      : out(op.out.data()),
        bias(op.bias.data()),
        rows(product.out.rows),
        columns(product.out.columns),
        stride(product.out.stride),
        out_bf16(op.out.type() == Dtype::bf16),
        bias_bf16(op.bias.type() == Dtype::bf16),
        activation(op.activation) {}

  __device__ __forceinline__ void store(int64_t row, int64_t column, float sum) const {
    if (bias)
      sum += bias_bf16 ? to_float(static_cast<const bf16_t*>(bias)[column]) : static_cast<const float*>(bias)[column];
    sum = activate(activation, sum);
    if (out_bf16)
      static_cast<bf16_t*>(out)[row * stride + column] = from_float<bf16_t>(sum);
    else
      static_cast<float*>(out)[row * stride + column] = sum;
  }
};

}  // namespace longhand::LONGHAND_GPU
