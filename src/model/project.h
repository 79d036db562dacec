// Products with matrices of weights as they are held.
#pragma once

#include <algorithm>

#include "longhand/parameters.h"

namespace longhand {

/// op with b = weight. Packed weights go through quantized_matmul, which keeps no pre_activation and knows no dropout.
inline void project(Device& device, Matmul op, const Matrix& weight) {
  if (!weight.packed()) {
    op.b = weight;
    return device.matmul(op);
  }
  device.quantized_matmul({.out = op.out,
                           .a = op.a,
                           .weight = weight,
                           .scales = weight.scales,
                           .bias = op.bias,
                           .activation = op.activation,
                           .quantize_activations = weight.int8_activations});
}

/// op with b' = weight [out, in] as it stands: what project() does, for gradients. Packed weights are widened in
/// `wide`, as many rows at a time as it holds, whose products add up.
inline void project_back(Device& device, Matmul op, const Matrix& weight, const Tensor& wide) {
  op.transpose_b = false;
  if (!weight.packed()) {
    op.b = weight;
    return device.matmul(op);
  }
  ConstTensor d_out = op.a;
  int64_t rows = weight.size(0), columns = op.out.size(1), at_once = std::min(rows, wide.elements() / columns);
  if (at_once == 0) fail("a row of {} weights in scratch for {}", columns, wide.elements());
  for (int64_t first = 0; first < rows; first += at_once) {
    Matrix part = weight.rows(first, std::min(at_once, rows - first));
    Tensor floats(wide.data(), wide.type(), {part.size(0), columns});
    if (part.scales)
      device.dequantize({.out = floats, .integers = part, .scales = part.scales});
    else
      device.cast({.out = floats, .x = part});
    op.a = d_out.slice(1, first, part.size(0)), op.b = floats;
    device.matmul(op);
    op.accumulate = true;
  }
}

}  // namespace longhand
