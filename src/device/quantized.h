// Checks and shapes of the quantised operations, which every device shares.
#pragma once

#include "longhand/device.h"
#include "src/device/checks.h"

namespace longhand {

/// Rows of weights of so many elements, as they lie: one behind another, or interleaved as the device reads them.
struct WeightRows {
  int64_t rows = 0, width = 0;
  bool interleaved = false;

  WeightRows(const ConstTensor& weight, const Interleaving& order, const char* operation)
      : rows(rows_of(weight)), width(width_of(weight)), interleaved(weight.rank() == 4) {
    if (!interleaved) return;
    int64_t bytes = dtype_bytes(weight.type());
    if (weight.size(2) != order.rows || weight.size(3) * bytes != order.bytes || !weight.contiguous() ||
        weight.size(1) * order.bytes % 64 != 0)
      fail("{}: weight {} of {}, interleaved otherwise than this operation reads it", operation, weight.shape().text(),
           dtype_name(weight.type()));
    rows = weight.size(0) * weight.size(2), width = weight.size(1) * weight.size(3);
  }
};

/// Integers [rows, k] with their scales, as Quantize in device.h says.
struct QuantizedLayout {
  int64_t rows = 0, k = 0, scale_stride = 1;
  bool four_bits = false, grouped = false, half_scales = false, interleaved = false;

  QuantizedLayout(const ConstTensor& integers, const ConstTensor& scales, int64_t k, const char* operation,
                  const Interleaving& order = {})
      : k(k) {
    WeightRows held(integers, order, operation);
    interleaved = held.interleaved;
    if ((integers.rank() != 2 && !interleaved) || (integers.type() != Dtype::i8 && integers.type() != Dtype::u8) ||
        !integers.contiguous())
      fail("{}: integers {} of {}, contiguous [rows, k] i8 or [rows, k / 2] u8 was expected", operation,
           integers.shape().text(), dtype_name(integers.type()));
    rows = held.rows, four_bits = integers.type() == Dtype::u8;
    if (held.width * (four_bits ? 2 : 1) != k)
      fail("{}: integers {} of {} do not hold rows of {}{}", operation, integers.shape().text(),
           dtype_name(integers.type()), k, four_bits && k % 2 ? ", which must be even" : "");
    grouped = scales.rank() > 1;
    half_scales = scales.type() == Dtype::fp16;
    Shape expected{rows};
    if (grouped) expected = interleaved ? Shape{integers.size(0), k / 64, integers.size(2)} : Shape{rows, k / 64};
    bool type_fits = half_scales || (scales.type() == Dtype::fp32 && !(grouped && interleaved));
    if (!type_fits || scales.shape() != expected || !scales.contiguous() || (grouped && k % 64 != 0))
      fail(
          "{}: scales {} of {} for {}integers [{}, {}]: fp32 or fp16 [rows], or [rows, k / 64] with k a multiple of 64",
          operation, scales.shape().text(), dtype_name(scales.type()), interleaved ? "interleaved " : "", rows, k);
    scale_stride = grouped ? k / 64 : 1;
  }
};

/// The table of an embedding: rows of floats or of integers, checked.
struct EmbeddingLayout {
  int64_t rows, width;
  bool interleaved = false;

  explicit EmbeddingLayout(const EmbeddingForward& op, const Interleaving& order = {}) : width(width_of(op.out)) {
    constexpr auto name = "embedding_forward";
    WeightRows held(op.weight, order, name);
    rows = held.rows, interleaved = held.interleaved;
    if (op.weight.type() == Dtype::i8 || op.weight.type() == Dtype::u8 || op.scales) {
      QuantizedLayout(op.weight, op.scales, width, name, order);
      return;
    }
    if (op.weight.type() != Dtype::fp16) float_index(op.weight, name, "weight");
    if (!interleaved) check_rows(op.weight, op.weight.type(), rows, width, name, "weight");
    if (held.width != width) fail("{}: weight {} for rows of {}", name, op.weight.shape().text(), width);
  }
};

/// Operands of a quantised product, checked.
struct QuantizedProduct {
  RowsOf a, out;
  QuantizedLayout weight;

  explicit QuantizedProduct(const QuantizedMatmul& op, const Interleaving& order = {})
      : a(op.a, "quantized_matmul", "a"),
        out(op.out, "quantized_matmul", "out"),
        weight(op.weight, op.scales, a.columns, "quantized_matmul", order) {
    float_index(op.a, "quantized_matmul", "a"), float_index(op.out, "quantized_matmul", "out");
    if (out.rows != a.rows || out.columns != weight.rows)
      fail("quantized_matmul: a {} times weight {} does not give out {}", op.a.shape().text(), op.weight.shape().text(),
           op.out.shape().text());
    if (op.bias) {
      float_index(op.bias, "quantized_matmul", "bias");
      if (op.bias.elements() != out.columns || !op.bias.contiguous())
        fail("quantized_matmul: bias {} does not fit {} columns", op.bias.shape().text(), out.columns);
    }
    if (op.quantize_activations && (weight.four_bits || weight.grouped))
      fail("quantized_matmul: quantised activations need weights i8 with one scale a row, not {} with scales {}",
           dtype_name(op.weight.type()), op.scales.shape().text());
  }
};

/// The layout of a Quantize, checked.
inline QuantizedLayout quantize_layout(const Quantize& op, const RowsOf& x) {
  float_index(op.x, "quantize", "x");
  QuantizedLayout layout(op.out, op.scales, x.columns, "quantize");
  if (layout.rows != x.rows) fail("quantize: x {} does not fit out {}", op.x.shape().text(), op.out.shape().text());
  return layout;
}

/// And of a Dequantize.
inline QuantizedLayout dequantize_layout(const Dequantize& op) {
  float_index(op.out, "dequantize", "out");
  QuantizedLayout layout(op.integers, op.scales, width_of(op.out), "dequantize");
  check_rows(op.out, op.out.type(), layout.rows, layout.k, "dequantize", "out");
  return layout;
}

}  // namespace longhand
