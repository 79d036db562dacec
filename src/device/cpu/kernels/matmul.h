// Interface of the matrix product's kernels; the product is described in src/device/cpu/matmul.cpp.
#pragma once

#include <cstdint>

#include "src/device/cpu/kernels/isa.h"

namespace longhand::cpu {

/// How the elements of an operand become the 32-bit words of a panel: kept, widened to fp32, or two bf16 of successive
/// k side by side (for the processor's bf16 dot product). fp16 stands in b alone, with k contiguous.
enum class MatmulWords : uint8_t { fp32, bf16, bf16_pairs, fp16 };

/// Weights that are read by lanes and lie interleaved: so many rows side by side by runs of so many elements.
constexpr int64_t lanes_together = 4, lanes_run = 32;

/// A strip of an operand. Row r, element p stands at from[r * stride + p], or from[p * stride + r] when the rows run
/// along the contiguous axis (`k_major`). Strides and `readable` count elements. A panel's steps follow k, or,
/// `by_lanes` (for words, not pairs), first the elements 0, lanes, 2 lanes, ..., then 1, lanes + 1, ...: `lanes` runs
/// of k / lanes steps, rounded up, with zeros for what k has not.
struct MatmulStrip {
  const void* from;
  int64_t stride, k;
  bool k_major, by_lanes;
  MatmulWords words;
  int rows;          // that the strip has
  int width;         // of the panel: rows from `rows` on are zero
  int64_t readable;  // k_major: elements that may be read from the strip's first row on
  // Interleaved rows: so many side by side by runs of so many elements; by_lanes as above, otherwise as many rows as a
  // vector has lanes by words. The strip begins with whole runs, its stride is a row's length. 0: rows as they are.
  int64_t together, run;

  /// Where element p of row r stands.
  [[gnu::always_inline]] int64_t at(int64_t r, int64_t p) const {
    if (together == 0) return r * stride + p;
    int64_t lane = r % together;
    return (r - lane) * stride + (p / run * together + lane) * run + p % run;
  }
};

/// What happens to the sums of a tile. `partial` holds the sums of the blocks of k before this one.
struct MatmulOutput {
  void *out, *pre_activation;
  const void* bias;
  float* partial;
  int64_t out_stride, pre_stride, partial_stride, columns;
  bool out_bf16, pre_bf16, bias_bf16;
  bool add_partial, last, accumulate;
  uint8_t activation;  // as longhand::Activation
  bool dropout;
  float scale;
  uint32_t threshold, counter1, counter2, counter3;
  uint64_t seed;
};

/// Panels of rows times panels of columns. Panel i of a has rows [i * rows / panels, (i + 1) * rows / panels) of the
/// rows counted from first_row, and begins at a + i * a_stride. Sums begin anew with every run of steps; runs add in
/// order.
struct MatmulBlock {
  const uint32_t *a, *b;
  int64_t a_stride, b_stride, runs, steps;  // words between panels; words along k: runs of so many steps
  int64_t first_row, rows, panels, first_panel, last_panel;
  int64_t first_column, last_column;
  bool pairs;
};

/// Few rows times columns of b that are read where they stand (not k_major): `b` has the columns from first_column on
/// and the whole of k, in blocks of `block_width` elements. Panel i of block j begins at a + (j * panels + i) *
/// a_stride; panels are `width` words wide, one of few_widths; with b.by_lanes they come from pack_few.
struct MatmulFew {
  const uint32_t* a;
  int64_t a_stride, first_row, rows, panels, first_column, columns, blocks, block_width;
  int width;
  MatmulStrip b;

  [[gnu::always_inline]] const uint32_t* panel(int64_t block, int64_t i) const {
    return a + (block * panels + i) * a_stride;
  }
  /// `rows` columns from `column` on, over a block of k.
  [[gnu::always_inline]] MatmulStrip strip(int64_t column, int rows, int64_t block) const {
    MatmulStrip part = b;
    int64_t first = block * block_width, rest = b.k - first, bytes = b.words == MatmulWords::fp32 ? 4 : 2;
    part.from = static_cast<const char*>(b.from) + (b.at(column, 0) + b.at(0, first)) * bytes;
    part.rows = rows, part.k = rest < block_width ? rest : block_width;
    return part;
  }
};

struct MatmulKernels {
  int rows, columns;  // of a tile
  int lanes;
  bool pairs;  // has the bf16 dot product, if the processor does
  void (*pack)(uint32_t* to, const MatmulStrip&);
  void (*multiply)(const MatmulBlock&, const MatmulOutput&);
  int few_widths[5];                                   // of panels, rising, the last repeated
  void (*pack_few)(uint32_t* to, const MatmulStrip&);  // by lanes: k, rounded up to lanes, times width words
  /// One output a block. scratch: bytes, see few_scratch_bytes.
  void (*multiply_few)(const MatmulFew&, const MatmulOutput*, void* scratch);
  int64_t (*few_scratch_bytes)(int64_t blocks);
};
LONGHAND_DECLARE_KERNELS(MatmulKernels, matmul_kernels);

}  // namespace longhand::cpu
