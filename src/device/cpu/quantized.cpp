// Products with weights of 8 or 4 bits.
//
//   out = activation(a w'^T + bias),   w' = scale * integer
//
// Activations become integers of 16 bits with a scale for each block of k (256, or the 64 of a group of weights), so a
// block's sum is an integer: exact, whatever the order. Blocks add in order, in fp32. An element's bits therefore do
// not depend on the number of rows, and few and many rows may take different ways:
//   few rows: weights are read once where they stand; it takes as long as they take to read
//   many rows: weights are widened to pairs of 16 bits once a panel of columns, in the second-level cache; where
//     activations are rounded to 8 bits and weights lie interleaved, bytes are multiplied by bytes as they lie
// Tasks are panels of columns, the same for any number of threads.
#include <iterator>

#include "src/device/quantized.h"

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/kernels/quantized.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {
namespace {

constexpr int64_t few_panels = 2;
constexpr int64_t few_task_bytes = 64 << 10;  // of weights, the least that is worth handing out
constexpr int64_t chunk_rows = 1024;

/// The 512-bit kernels use VNNI; processors without it take the 256-bit ones.
const QuantizedKernels& kernels() {
  static const QuantizedKernels& chosen = current_isa() == Isa::avx512 && !__builtin_cpu_supports("avx512vnni")
                                              ? quantized_kernels_avx2
                                              : quantized_kernels();
  return chosen;
}

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

MatmulOutput output_of(const QuantizedMatmul& op, const QuantizedProduct& product) {
  MatmulOutput output{};
  output.out = op.out.data(), output.out_stride = product.out.stride, output.out_bf16 = op.out.type() == Dtype::bf16;
  output.columns = product.out.columns, output.last = true;
  output.activation = static_cast<uint8_t>(op.activation);
  if (op.bias) output.bias = op.bias.data(), output.bias_bf16 = op.bias.type() == Dtype::bf16;
  return output;
}

/// Memory for panels of activations, one behind the other.
struct Panels {
  int64_t words, scales, starts, bytes;  // of one panel
  std::vector<QuantizedRows> list;

  Panels(const QuantizedShape& s, int64_t width) {
    words = round_up(s.steps() * width * 4, 64);
    scales = round_up(s.blocks() * width * 4, 64), starts = round_up((s.blocks() + 1) * width * 4, 64);
    bytes = words + scales + starts;
  }
  void place(char* memory, int64_t count) {
    list.clear();
    for (int64_t i = 0; i < count; ++i, memory += bytes)
      list.push_back({reinterpret_cast<uint32_t*>(memory), reinterpret_cast<float*>(memory + words),
                      reinterpret_cast<int32_t*>(memory + words + scales), 0});
  }
};

}  // namespace

Interleaving CpuDevice::interleaving(Dtype weights, Dtype activations) const {
  if (weights == Dtype::i8 || weights == Dtype::u8) return {kernels().interleaving, 4};
  return float_interleaving(weights, activations);
}

void CpuDevice::quantize(const Quantize& op) {
  RowsOf x(op.x, "quantize", "x");
  QuantizedLayout layout = quantize_layout(op, x);
  int64_t width = layout.grouped ? 64 : layout.k, groups = layout.grouped ? layout.k / 64 : 1;
  int64_t bytes = layout.four_bits ? width / 2 : width, x_bytes = dtype_bytes(op.x.type());
  int64_t scale_bytes = dtype_bytes(op.scales.type());
  if (layout.k == 0) return;
  pool_.parallel_for(x.rows, [&](int64_t row, int) {
    for (int64_t g = 0; g < groups; ++g)
      kernels().quantize(static_cast<const char*>(op.x.data()) + (row * x.stride + g * width) * x_bytes,
                         op.x.type() == Dtype::bf16, width, layout.four_bits,
                         static_cast<char*>(op.out.data()) + (row * groups + g) * bytes,
                         static_cast<char*>(op.scales.data()) + (row * groups + g) * scale_bytes, layout.half_scales);
  });
}

void CpuDevice::dequantize(const Dequantize& op) {
  QuantizedLayout layout = dequantize_layout(op);
  int64_t width = layout.grouped ? 64 : layout.k, groups = layout.grouped ? layout.k / 64 : 1;
  int64_t bytes = layout.four_bits ? width / 2 : width, out_bytes = dtype_bytes(op.out.type());
  int64_t scale_bytes = dtype_bytes(op.scales.type());
  for_pieces(pool_, layout.rows, rows_per_piece(layout.k), [&](int64_t first, int64_t count, int) {
    for (int64_t group = first * groups; group < (first + count) * groups; ++group)
      kernels().dequantize(static_cast<const char*>(op.integers.data()) + group * bytes,
                           static_cast<const char*>(op.scales.data()) + group * scale_bytes, layout.half_scales, width,
                           layout.four_bits, static_cast<char*>(op.out.data()) + group * width * out_bytes,
                           op.out.type() == Dtype::bf16);
  });
}

void CpuDevice::quantized_matmul(const QuantizedMatmul& op) {
  Interleaving order = interleaving(op.weight.type(), op.a.type());
  if (op.scales.empty()) {
    if (op.quantize_activations) fail("quantized_matmul: quantised activations need quantised weights");
    WeightRows held(op.weight, order, "quantized_matmul");
    ConstTensor rows = held.interleaved ? op.weight.reshape({held.rows, held.width}) : op.weight;
    return multiply({.out = op.out, .a = op.a, .b = rows, .bias = op.bias, .activation = op.activation},
                    held.interleaved ? order : Interleaving{});
  }
  QuantizedProduct product(op, order);
  QuantizedShape shape{.k = product.a.columns,
                       .four_bits = product.weight.four_bits,
                       .grouped = product.weight.grouped,
                       .interleaved = product.weight.interleaved};
  QuantizedColumns columns{.weights = static_cast<const uint8_t*>(op.weight.data()),
                           .scales = op.scales.data(),
                           .scale_stride = product.weight.scale_stride,
                           .half_scales = product.weight.half_scales};
  MatmulOutput output = output_of(op, product);
  int64_t m = product.a.rows, n = product.out.columns, a_bytes = dtype_bytes(op.a.type());
  if (m == 0 || n == 0) return;
  bool few = m <= few_panels * kernels().rows;
  shape.bytes = !few && op.quantize_activations && shape.interleaved && kernels().bytes;
  Panels panels(shape, kernels().rows);
  int64_t chunks = ceil_div(m, chunk_rows), most_panels = ceil_div(ceil_div(m, chunks), kernels().rows);
  char* memory = static_cast<char*>(scratch(threads(), most_panels * panels.bytes));

  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    int64_t row0 = chunk * m / chunks, rows = (chunk + 1) * m / chunks - row0, count = ceil_div(rows, kernels().rows);
    panels.place(memory, count);
    auto pack = [&](int64_t i, int thread) {
      int64_t begin = row0 + i * rows / count, here = row0 + (i + 1) * rows / count - begin;
      QuantizedRows& panel = panels.list[i];
      panel.width = static_cast<int>(here);
      if (few) panel.width = *std::lower_bound(std::begin(kernels().few_widths), std::end(kernels().few_widths), here);
      int32_t* integers = static_cast<int32_t*>(scratch(thread, shape.padded() * 4));
      for (int r = 0; r < panel.width; ++r) {
        const void* row = static_cast<const char*>(op.a.data()) + (begin + r) * product.a.stride * a_bytes;
        kernels().pack_row(shape, panel, r, r < here ? row : nullptr, op.a.type() == Dtype::bf16,
                           op.quantize_activations, integers);
      }
    };
    pool_.parallel_for(count, pack);
    auto part_of = [&](int64_t panel, int64_t panels_of_columns) {
      QuantizedColumns part = columns;
      part.first = panel * kernels().columns,
      part.count = std::min(panels_of_columns * kernels().columns, n - part.first);
      return part;
    };
    int64_t column_panels = ceil_div(n, kernels().columns);
    if (few) {
      int64_t least = ceil_div(few_task_bytes, kernels().columns * shape.row_bytes());
      for_shrinking_pieces(pool_, column_panels, least, [&](int64_t first, int64_t here, int thread) {
        float* scales = static_cast<float*>(scratch(thread, shape.blocks() * kernels().columns * 4));
        kernels().multiply_few(shape, panels.list.data(), count, rows, part_of(first, here), output, scales);
      });
    } else {
      auto multiply = shape.bytes ? kernels().multiply_bytes : kernels().multiply;
      pool_.parallel_for(column_panels, [&](int64_t panel, int thread) {
        multiply(shape, panels.list.data(), count, row0, rows, part_of(panel, 1), output,
                 scratch(thread, kernels().scratch_bytes(shape, count)));
      });
    }
  }
}

}  // namespace longhand::cpu
