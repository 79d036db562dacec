// Interface of the quantised product's kernels; the product is described in src/device/cpu/quantized.cpp.
#pragma once

#include <cstdint>

#include "src/device/cpu/kernels/isa.h"
#include "src/device/cpu/kernels/matmul.h"

namespace longhand::cpu {

/// How integers and their scales lie along k. A word is 32 bits of weights, 4 or 8 integers; a block is a run of k
/// within which sums are integers.
struct QuantizedShape {
  int64_t k = 0;
  bool four_bits = false, grouped = false;  // grouped: one scale a block, otherwise one a row of weights
  bool interleaved = false;                 // word i of every `interleaving` rows side by side, scales of groups too
  bool bytes = false;                       // panels of rows hold 8-bit integers, four a word (multiply_bytes)

  [[gnu::always_inline]] int64_t word_integers() const { return four_bits ? 8 : 4; }
  [[gnu::always_inline]] int64_t row_bytes() const { return four_bits ? k / 2 : k; }
  [[gnu::always_inline]] int64_t block() const { return grouped ? 64 : 256; }
  [[gnu::always_inline]] int64_t padded() const { return (k + 255) / 256 * 256; }
  [[gnu::always_inline]] int64_t blocks() const { return padded() / block(); }
  [[gnu::always_inline]] int64_t steps() const { return padded() / 2; }  // pairs along k
};

/// A panel of `width` rows of activations as 16-bit integers, two a word, or of 8 bits, four a word: word (step, r) at
/// words[step * width + r], the scale of
/// block b at scales[b * width + r], what its sum begins with at starts[b * width + r] (one block more than there are).
struct QuantizedRows {
  uint32_t* words;
  float* scales;
  int32_t* starts;
  int width;
};

/// Columns of the product: rows of weights, with their scales (fp32 or fp16).
struct QuantizedColumns {
  const uint8_t* weights;
  const void* scales;
  int64_t scale_stride;  // elements between the scales of two rows of weights
  bool half_scales;
  int64_t first, count;
};

struct QuantizedKernels {
  int rows, columns;  // of a tile
  int interleaving;   // rows of weights side by side, where they lie interleaved
  bool bytes;         // has multiply_bytes
  int few_widths[5];  // of panels, rising, the last repeated
  /// Row r of a panel from `row` (fp32 or bf16); with `eight_bits` to 127 levels of one scale, otherwise to 32767
  /// levels of one scale a block. A null row is zero. scratch: padded() integers.
  void (*pack_row)(const QuantizedShape&, const QuantizedRows&, int r, const void* row, bool is_bf16, bool eight_bits,
                   int32_t* scratch);
  /// Few rows: weights are read where they stand. scratch: floats, blocks() * columns.
  void (*multiply_few)(const QuantizedShape&, const QuantizedRows*, int64_t panels, int64_t rows,
                       const QuantizedColumns&, const MatmulOutput&, float* scratch);
  /// One panel of columns times all panels of rows. scratch: bytes, see scratch_bytes.
  void (*multiply)(const QuantizedShape&, const QuantizedRows*, int64_t panels, int64_t first_row, int64_t rows,
                   const QuantizedColumns&, const MatmulOutput&, void* scratch);
  int64_t (*scratch_bytes)(const QuantizedShape&, int64_t panels);
  /// The same for s.bytes: interleaved weights of 8 bits, a scale a row, are multiplied where they lie.
  void (*multiply_bytes)(const QuantizedShape&, const QuantizedRows*, int64_t panels, int64_t first_row, int64_t rows,
                         const QuantizedColumns&, const MatmulOutput&, void* scratch);
  /// out and scales of one row or group, as device.h says; width elements.
  void (*quantize)(const void* x, bool is_bf16, int64_t width, bool four_bits, void* out, void* scale, bool half_scale);
  /// The reverse.
  void (*dequantize)(const void* integers, const void* scale, bool half_scale, int64_t width, bool four_bits, void* out,
                     bool is_bf16);
};
LONGHAND_DECLARE_KERNELS(QuantizedKernels, quantized_kernels);

}  // namespace longhand::cpu
