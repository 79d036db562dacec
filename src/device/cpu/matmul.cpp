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
// With few rows b is not packed: the product then takes as long as b takes to read, and the kernel transposes its words
// in registers on the way.
//
// k is cut into blocks whose number depends on k alone. Within a block a sum runs over k in order, blocks add in order:
// an element's bits depend on k, the types of a and b and the instruction set; not on m, n, strides or threads.
#include <algorithm>
#include <iterator>

#include "src/device/checks.h"
#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/kernels/matmul.h"

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

  int64_t width() const { return is_bf16 || is_fp16 ? 2 : 4; }
  const void* at(int64_t row, int64_t column) const {
    return static_cast<const char*>(data) + (row * stride + column) * width();
  }
};

/// A tensor as a matrix: its leading axes joined.
Matrix as_matrix(const ConstTensor& t, const char* name, bool may_be_fp16 = false) {
  RowsOf rows(t, "matmul", name);
  bool is_fp16 = may_be_fp16 && t.type() == Dtype::fp16;
  if (!is_fp16) float_index(t, "matmul", name);
  return {const_cast<void*>(t.data()), rows.rows, rows.columns, rows.stride, t.type() == Dtype::bf16, is_fp16};
}

/// The operands, checked.
struct Product {
  Matrix a, b;
  int64_t m, n, k;
  bool a_k_major, b_k_major;
  MatmulWords a_words, b_words;
  MatmulOutput output{};

  explicit Product(const Matmul& op);
};

Product::Product(const Matmul& op) : a(as_matrix(op.a, "a")), b(as_matrix(op.b, "b", op.transpose_b)) {
  Matrix out = as_matrix(op.out, "out");
  check_matmul(op);
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
  bool pairs = a.is_bf16 && b.is_bf16 && matmul_kernels().pairs && __builtin_cpu_supports("avx512bf16");
  auto words = [&](const Matrix& x) {
    if (x.is_fp16) return MatmulWords::fp16;
    return pairs ? MatmulWords::bf16_pairs : x.is_bf16 ? MatmulWords::bf16 : MatmulWords::fp32;
  };
  a_words = words(a), b_words = words(b);
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

/// Rows [first, first + rows) of a', or columns of b' as rows of its transpose, elements [k0, k0 + k).
MatmulStrip strip(const Matrix& matrix, bool k_major, MatmulWords words, int64_t first, int64_t rows, int64_t width,
                  int64_t k0, int64_t k) {
  return {.from = k_major ? matrix.at(k0, first) : matrix.at(first, k0),
          .stride = matrix.stride,
          .k = k,
          .k_major = k_major,
          .words = words,
          .rows = static_cast<int>(rows),
          .width = static_cast<int>(width),
          .readable = k_major ? matrix.columns - first : 0};
}

}  // namespace

void CpuDevice::matmul(const Matmul& op) {
  Product product(op);
  const MatmulKernels& kernels = matmul_kernels();
  int64_t m = product.m, n = product.n, k = product.k;
  if (m == 0 || n == 0) return;
  bool pairs = product.a_words == MatmulWords::bf16_pairs;
  int64_t step = pairs ? 2 : 1;  // elements of k a word holds
  int64_t blocks = std::max<int64_t>(1, ceil_div(k, block_steps * step));
  int64_t block_k = round_up(ceil_div(k, blocks), 2 * 16);

  // Words between panels: the last vector of a panel may hang over.
  int64_t a_stride = round_up(block_k / step * kernels.rows + 16, 16);
  int64_t b_stride = block_k / step * kernels.columns;
  int64_t chunk_rows = std::max<int64_t>(kernels.rows, row_panels_bytes / 4 / a_stride * kernels.rows);
  int64_t chunks = ceil_div(m, chunk_rows);
  int64_t most_panels = ceil_div(ceil_div(m, chunks), kernels.rows);

  bool sums_in_out = !product.output.out_bf16;
  int64_t partial_bytes = blocks > 1 && !sums_in_out ? round_up(m * n * 4, 64) : 0;
  char* memory = static_cast<char*>(scratch(threads(), partial_bytes + most_panels * a_stride * 4));
  uint32_t* a_panels = reinterpret_cast<uint32_t*>(memory + partial_bytes);

  int64_t column_panels = ceil_div(n, kernels.columns);
  int64_t group = std::clamp<int64_t>(column_panels / (4 * threads()), 1, group_columns / kernels.columns);
  bool few = !product.b_k_major && m <= few_panels * kernels.rows;
  int64_t few_width = 0;
  if (few) {
    int64_t most_rows = ceil_div(m, most_panels);
    few_width = *std::lower_bound(std::begin(kernels.few_widths), std::end(kernels.few_widths), most_rows);
    int64_t tasks = n * block_k * product.b.width() / few_task_bytes;
    group = ceil_div(column_panels, std::clamp<int64_t>(tasks, 1, 4 * threads()));
  }
  int64_t groups = ceil_div(column_panels, group);

  for (int64_t block = 0; block < blocks; ++block) {
    int64_t k0 = block * block_k, k_here = std::max<int64_t>(0, std::min(block_k, k - k0));
    MatmulOutput output = product.output;
    output.partial = static_cast<float*>(sums_in_out ? output.out : static_cast<void*>(memory));
    output.partial_stride = sums_in_out ? output.out_stride : n;
    output.last = block + 1 == blocks;
    output.add_partial = block > 0;
    if (sums_in_out && output.accumulate) output.accumulate = false, output.add_partial = true;

    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      int64_t row0 = chunk * m / chunks, rows = (chunk + 1) * m / chunks - row0;
      int64_t panels = ceil_div(rows, kernels.rows);
      auto pack_a = [&](int64_t i, int) {
        int64_t begin = i * rows / panels, count = (i + 1) * rows / panels - begin;
        kernels.pack(a_panels + i * a_stride, strip(product.a, product.a_k_major, product.a_words, row0 + begin, count,
                                                    few ? few_width : count, k0, k_here));
      };
      if (few) {
        for (int64_t i = 0; i < panels; ++i) pack_a(i, 0);
        pool_.parallel_for(groups, [&](int64_t task, int) {
          int64_t first = task * group * kernels.columns, columns = std::min(group * kernels.columns, n - first);
          kernels.multiply_few(
              {.a = a_panels,
               .a_stride = a_stride,
               .first_row = row0,
               .rows = rows,
               .panels = panels,
               .first_column = first,
               .columns = columns,
               .width = static_cast<int>(few_width),
               .b = strip(product.b, false, product.b_words, first, kernels.columns, kernels.columns, k0, k_here)},
              output);
        });
        continue;
      }
      pool_.parallel_for(panels, pack_a);
      // Few groups of columns: the rows are divided as well.
      int64_t parts = std::min(panels, ceil_div(2 * threads(), groups));
      pool_.parallel_for(groups * parts, [&](int64_t task, int thread) {
        int64_t first = task / parts * group, last = std::min(first + group, column_panels), part = task % parts;
        uint32_t* b_panels = static_cast<uint32_t*>(scratch(thread, group * b_stride * 4));
        for (int64_t j = first; j < last; ++j) {
          int64_t column = j * kernels.columns, count = std::min<int64_t>(kernels.columns, n - column);
          kernels.pack(b_panels + (j - first) * b_stride, strip(product.b, product.b_k_major, product.b_words, column,
                                                                count, kernels.columns, k0, k_here));
        }
        kernels.multiply({.a = a_panels,
                          .b = b_panels,
                          .a_stride = a_stride,
                          .b_stride = b_stride,
                          .steps = ceil_div(k_here, step),
                          .first_row = row0,
                          .rows = rows,
                          .panels = panels,
                          .first_panel = part * panels / parts,
                          .last_panel = (part + 1) * panels / parts,
                          .first_column = first * kernels.columns,
                          .last_column = std::min(last * kernels.columns, n),
                          .pairs = pairs},
                         output);
      });
    }
  }
}

}  // namespace longhand::cpu
