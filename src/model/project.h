// Products with matrices of weights as they are held.
#pragma once

#include "longhand/parameters.h"

namespace longhand {

/// op with b = weight. Integers and fp16, which only inference holds, go through quantized_matmul: what a backward pass
/// would need (pre_activation, dropout) is then left out.
inline void project(Device& device, Matmul op, const Matrix& weight) {
  if (!weight.scales && weight.type() != Dtype::fp16) {
    op.b = weight;
    return device.matmul(op);
  }
  device.quantized_matmul({.out = op.out,
                           .a = op.a,
                           .weight = weight,
                           .scales = weight.scales,
                           .bias = op.bias,
                           .activation = op.activation});
}

}  // namespace longhand
