// The matrix product.
//
//   out = epilogue(a' b')    a' [m, k], b' [k, n], any mixture of fp32 and bf16, sums in fp32
//
// Operands are copied into panels in which the words of one step along k stand side by side (kernels/matmul.cpp). The
// rows' panels are packed once, by all threads, and shared; then every thread takes groups of columns, packs their
// panel into its second-level cache and runs down the rows. So b is packed once, right where it is used, and a tile's
// operands stream through the first-level cache at a few bytes a cycle. When both operands are bf16 and the processor
// has the bf16 dot product, a word is a pair of bf16, which doubles the rate; otherwise bf16 widens to fp32.
//
// With few rows b is not packed: the product then takes as long as b takes to read. Words of fp32 and pairs are
// transposed in registers on the way, unless they lie interleaved, in a tile's order; weights of fp16 or bf16 are
// multiplied as they stand, by vectors along k, best when four rows lie interleaved.
//
// k is cut into blocks whose number depends on k alone; blocks add in order. Within a block a sum runs over k in order,
// or, with fp16 or bf16 weights in rows, over every lane of a vector by itself, lanes adding in order. An element's
// bits depend on k, the types and layout of a and b and the instruction set; not on m, n, strides or threads.
#include <algorithm>
#include <iterator>

#include "src/device/checks.h"
#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/kernels/matmul.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {
namespace {

constexpr int64_t block_steps = 1024;          // along k, at most
constexpr int64_t row_panels_bytes = 8 << 20;  // packed rows, shared through the last-level cache
constexpr int64_t group_columns = 128;
constexpr int64_t few_panels = 2;              // with no more panels of rows, b is not packed
constexpr int64_t few_task_bytes = 128 << 10;  // of b, the least that is worth another thread

struct Matrix {
  void* data = nullptr;
  int64_t rows = 0, columns = 0, stride = 0;
  bool is_bf16 = false, is_fp16 = false;
  int64_t together = 0, run = 0;  // as MatmulStrip

  int64_t width() const { return is_bf16 || is_fp16 ? 2 : 4; }
  /// Of interleaved rows the first of a run.
  const void* at(int64_t row, int64_t column) const {
    return static_cast<const char*>(data) + (row * stride + column * std::max<int64_t>(1, together)) * width();
  }
};

/// A tensor as a matrix: its leading axes joined.
Matrix as_matrix(const ConstTensor& t, const char* name, bool may_be_fp16 = false) {
  RowsOf rows(t, "matmul", name);
  bool is_fp16 = may_be_fp16 && t.type() == Dtype::fp16;
  if (!is_fp16) float_index(t, "matmul", name);
  return {const_cast<void*>(t.data()), rows.rows, rows.columns, rows.stride, t.type() == Dtype::bf16, is_fp16};
}

/// Whether bf16 times bf16 goes by the processor's dot product.
bool has_pairs() { return matmul_kernels().pairs && __builtin_cpu_supports("avx512bf16"); }

/// The operands, checked.
struct Product {
  Matrix a, b;
  int64_t m, n, k;
  bool a_k_major, b_k_major, by_lanes;
  MatmulWords a_words, b_words;
  MatmulOutput output{};

  Product(const Matmul& op, const Interleaving& b_order);
};

Product::Product(const Matmul& op, const Interleaving& b_order)
    : a(as_matrix(op.a, "a")), b(as_matrix(op.b, "b", op.transpose_b)) {
  Matrix out = as_matrix(op.out, "out");
  check_matmul(op);
  b.together = b_order.rows, b.run = b_order.bytes / b.width();
  m = out.rows, n = out.columns, k = op.transpose_a ? a.rows : a.columns;
  a_k_major = op.transpose_a, b_k_major = !op.transpose_b;
  output.out = out.data, output.out_stride = out.stride, output.out_bf16 = out.is_bf16;
  output.columns = n;
  output.accumulate = op.accumulate;
  output.activation = static_cast<uint8_t>(op.activation);
  if (op.bias) {
    output.bias = op.bias.data(), output.bias_bf16 = op.bias.type() == Dtype::bf16;
  }
  if (op.pre_activation) {
    Matrix pre = as_matrix(op.pre_activation, "pre_activation");
    output.pre_activation = pre.data, output.pre_stride = pre.stride, output.pre_bf16 = pre.is_bf16;
  }
  if (op.dropout) {
    const RandomStream& s = op.dropout.stream;
    output.dropout = true;
    output.scale = op.dropout.scale(), output.threshold = op.dropout.threshold();
    output.seed = s.seed, output.counter1 = s.layer << 16, output.counter2 = static_cast<uint32_t>(s.step);
    output.counter3 = static_cast<uint32_t>(s.use) << 24 | static_cast<uint32_t>(s.step >> 32 & 0xffffff);
  }
  bool pairs = a.is_bf16 && b.is_bf16 && has_pairs();
  auto words = [&](const Matrix& x) {
    if (x.is_fp16) return MatmulWords::fp16;
    return pairs ? MatmulWords::bf16_pairs : x.is_bf16 ? MatmulWords::bf16 : MatmulWords::fp32;
  };
  a_words = words(a), b_words = words(b);
  by_lanes = !b_k_major && (b_words == MatmulWords::bf16 || b_words == MatmulWords::fp16);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Rows [first, first + rows) of a', or columns of b' as rows of its transpose, elements [k0, k0 + k).
MatmulStrip strip(const Matrix& matrix, bool k_major, bool by_lanes, MatmulWords words, int64_t first, int64_t rows,
                  int64_t width, int64_t k0, int64_t k) {
  return {.from = k_major ? matrix.at(k0, first) : matrix.at(first, k0),
          .stride = matrix.stride,
          .k = k,
          .k_major = k_major,
          .by_lanes = by_lanes,
          .words = words,
          .rows = static_cast<int>(rows),
          .width = static_cast<int>(width),
          .readable = k_major ? matrix.columns - first : 0,
          .together = matrix.together,
          .run = matrix.run};
}

}  // namespace

/// k in blocks, and the panels that a block's operands become.
struct MatmulBlocks {
  const Product& product;
  const MatmulKernels& kernels = matmul_kernels();
  bool pairs = product.a_words == MatmulWords::bf16_pairs;
  int64_t step = pairs ? 2 : 1;  // elements of k a word holds
  int64_t count = std::max<int64_t>(1, ceil_div(product.k, block_steps* step));
  int64_t width = round_up(ceil_div(product.k, count), 2 * 16);  // elements of k, the last block's aside
  // Words between panels: the last vector of a panel may hang over.
  int64_t a_stride = round_up(width / step * kernels.rows + 16, 16), b_stride = width / step * kernels.columns;
  bool sums_in_out = !product.output.out_bf16;
  int64_t partial_bytes = count > 1 && !sums_in_out ? round_up(product.m * product.n * 4, 64) : 0;
  float* partial = nullptr;  // sums of earlier blocks, where out cannot hold them

  int64_t first(int64_t block) const { return block * width; }
  int64_t length(int64_t block) const { return std::max<int64_t>(0, std::min(width, product.k - first(block))); }
  /// Steps along k: sums begin anew with every run of them.
  int64_t runs() const { return product.by_lanes ? kernels.lanes : 1; }
  int64_t run_steps(int64_t block) const { return ceil_div(length(block), step * runs()); }

  MatmulOutput output(int64_t block) const {
    MatmulOutput o = product.output;
    o.partial = sums_in_out ? static_cast<float*>(o.out) : partial;
    o.partial_stride = sums_in_out ? o.out_stride : product.n;
    o.last = block + 1 == count, o.add_partial = block > 0;
    if (sums_in_out && o.accumulate) o.accumulate = false, o.add_partial = true;
    return o;
  }
  MatmulStrip rows(int64_t block, int64_t row, int64_t rows, int64_t panel_width) const {
    return strip(product.a, product.a_k_major, product.by_lanes, product.a_words, row, rows, panel_width, first(block),
                 length(block));
  }
  MatmulStrip columns(int64_t block, int64_t column, int64_t columns) const {
    return strip(product.b, product.b_k_major, product.by_lanes, product.b_words, column, columns, kernels.columns,
                 first(block), length(block));
  }
  MatmulStrip whole_columns(int64_t column, int64_t columns) const {
    return strip(product.b, product.b_k_major, product.by_lanes, product.b_words, column, columns, kernels.columns, 0,
                 product.k);
  }
};

/// Tasks are groups of columns, each over all blocks of k, so that b is read as it lies.
void CpuDevice::multiply_few(MatmulBlocks& b) {
  const Product& product = b.product;
  const MatmulKernels& kernels = b.kernels;
  int64_t m = product.m, n = product.n, panels = ceil_div(m, kernels.rows);
  int width = *std::lower_bound(std::begin(kernels.few_widths), std::end(kernels.few_widths), ceil_div(m, panels));
  char* memory = static_cast<char*>(scratch(threads(), b.partial_bytes + b.count * panels * b.a_stride * 4));
  b.partial = reinterpret_cast<float*>(memory);
  uint32_t* a_panels = reinterpret_cast<uint32_t*>(memory + b.partial_bytes);
  for (int64_t i = 0; i < b.count * panels; ++i) {
    int64_t block = i / panels, begin = i % panels * m / panels, end = (i % panels + 1) * m / panels;
    auto pack = product.by_lanes ? kernels.pack_few : kernels.pack;
    pack(a_panels + i * b.a_stride, b.rows(block, begin, end - begin, width));
  }

  std::vector<MatmulOutput> outputs;
  for (int64_t block = 0; block < b.count; ++block) outputs.push_back(b.output(block));
  int64_t panel_bytes = std::max<int64_t>(1, kernels.columns * product.k * product.b.width());
  int64_t least = ceil_div(few_task_bytes, panel_bytes);
  for_shrinking_pieces(pool_, ceil_div(n, kernels.columns), least, [&](int64_t panel, int64_t here, int thread) {
    int64_t first = panel * kernels.columns, columns = std::min(here * kernels.columns, n - first);
    kernels.multiply_few({.a = a_panels,
                          .a_stride = b.a_stride,
                          .rows = m,
                          .panels = panels,
                          .first_column = first,
                          .columns = columns,
                          .blocks = b.count,
                          .block_width = b.width,
                          .width = width,
                          .b = b.whole_columns(first, columns)},
                         outputs.data(), scratch(thread, kernels.few_scratch_bytes(b.count)));
  });
}

void CpuDevice::multiply_many(MatmulBlocks& b) {
  const Product& product = b.product;
  const MatmulKernels& kernels = b.kernels;
  int64_t m = product.m, n = product.n;
  int64_t chunk_rows = std::max<int64_t>(kernels.rows, row_panels_bytes / 4 / b.a_stride * kernels.rows);
  int64_t chunks = ceil_div(m, chunk_rows), most_panels = ceil_div(ceil_div(m, chunks), kernels.rows);
  char* memory = static_cast<char*>(scratch(threads(), b.partial_bytes + most_panels * b.a_stride * 4));
  b.partial = reinterpret_cast<float*>(memory);
  uint32_t* a_panels = reinterpret_cast<uint32_t*>(memory + b.partial_bytes);

  int64_t column_panels = ceil_div(n, kernels.columns);
  int64_t group = std::clamp<int64_t>(column_panels / (4 * threads()), 1, group_columns / kernels.columns);
  int64_t groups = ceil_div(column_panels, group);
  for (int64_t block = 0; block < b.count; ++block) {
    MatmulOutput output = b.output(block);
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      int64_t row0 = chunk * m / chunks, rows = (chunk + 1) * m / chunks - row0;
      int64_t panels = ceil_div(rows, kernels.rows);
      pool_.parallel_for(panels, [&](int64_t i, int) {
        int64_t begin = i * rows / panels, count = (i + 1) * rows / panels - begin;
        kernels.pack(a_panels + i * b.a_stride, b.rows(block, row0 + begin, count, count));
      });
      // Few groups of columns: the rows are divided as well.
      int64_t parts = std::min(panels, ceil_div(2 * threads(), groups));
      pool_.parallel_for(groups * parts, [&](int64_t task, int thread) {
        int64_t first = task / parts * group, last = std::min(first + group, column_panels), part = task % parts;
        uint32_t* b_panels = static_cast<uint32_t*>(scratch(thread, group * b.b_stride * 4));
        for (int64_t j = first; j < last; ++j) {
          int64_t column = j * kernels.columns, count = std::min<int64_t>(kernels.columns, n - column);
          kernels.pack(b_panels + (j - first) * b.b_stride, b.columns(block, column, count));
        }
        kernels.multiply({.a = a_panels,
                          .b = b_panels,
                          .a_stride = b.a_stride,
                          .b_stride = b.b_stride,
                          .runs = b.runs(),
                          .steps = b.run_steps(block),
                          .first_row = row0,
                          .rows = rows,
                          .panels = panels,
                          .first_panel = part * panels / parts,
                          .last_panel = (part + 1) * panels / parts,
                          .first_column = first * kernels.columns,
                          .last_column = std::min(last * kernels.columns, n),
                          .pairs = b.pairs},
                         output);
      });
    }
  }
}

void CpuDevice::matmul(const Matmul& op) { multiply(op, {}); }

Interleaving CpuDevice::float_interleaving(Dtype weights, Dtype activations) {
  bool words = weights == Dtype::fp32 || (weights == Dtype::bf16 && activations == Dtype::bf16 && has_pairs());
  return words ? Interleaving{matmul_kernels().lanes, 4} : Interleaving{lanes_together, lanes_run * 2};
}

void CpuDevice::multiply(const Matmul& op, const Interleaving& b_order) {
  Product product(op, b_order);
  if (product.m == 0 || product.n == 0) return;
  MatmulBlocks blocks{product};
  bool few = !product.b_k_major && product.m <= few_panels * blocks.kernels.rows;
  few ? multiply_few(blocks) : multiply_many(blocks);
}

}  // namespace longhand::cpu
