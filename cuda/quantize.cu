// Symmetric integers of 8 or 4 bits with a scale a row or a group of 64.
//
//   scale = max|x| / L,   integer = x / scale to the nearest in [-L, L];   L = 127 or 7
//
// A warp takes a row or a group: once over it for the largest magnitude, once for the integers. A lane has two
// neighbours, the halves of a byte when there are four bits. Moves rows·k elements in (the second time from a cache)
// and rows·k or rows·k/2 bytes out; limit: memory bandwidth.
//
// The reverse, out = scale · integer: a thread takes 16 neighbours, which share a scale. Moves as many bytes.
#include "cuda/quantized.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int quantize_threads = 256;

struct Groups {
  int64_t count, each, width, x_stride;  // groups in all, of a row, elements of one, elements between rows of x
  bool four_bits, half_scales;
};

template <class T>
__global__ void __launch_bounds__(quantize_threads) quantize_kernel(uint8_t* out, void* scales, const T* x, Groups g) {
  int64_t group = (static_cast<int64_t>(blockIdx.x) * quantize_threads + threadIdx.x) / 32;
  if (group >= g.count) return;
  const T* from = x + group / g.each * g.x_stride + group % g.each * g.width;
  float levels = g.four_bits ? 7.0f : 127.0f, most = 0;
  int lane = threadIdx.x % 32;
  for (int64_t i = lane; i < g.width; i += 32) most = fmaxf(most, fabsf(to_float(from[i])));
  float scale = warp_max(most) / levels;
  if (g.half_scales) {
    fp16_t rounded = from_float<fp16_t>(scale);
    scale = to_float(rounded);
    if (lane == 0) static_cast<fp16_t*>(scales)[group] = rounded;
  } else if (lane == 0) {
    static_cast<float*>(scales)[group] = scale;
  }
  auto integer = [&](int64_t i) {
    if (i >= g.width || !(scale > 0)) return 0;
    return static_cast<int>(fminf(fmaxf(rintf(to_float(from[i]) / scale), -levels), levels));
  };
  for (int64_t i = 2 * lane; i < g.width; i += 64) {
    int first = integer(i), second = integer(i + 1);
    if (g.four_bits) {
      out[(group * g.width + i) / 2] = static_cast<uint8_t>((first + 8) | (second + 8) << 4);
      continue;
    }
    out[group * g.width + i] = static_cast<uint8_t>(first);
    if (i + 1 < g.width) out[group * g.width + i + 1] = static_cast<uint8_t>(second);
  }
}

constexpr int neighbours = 16;

/// `whole`: rows are multiples of 16 elements, and all addresses of 16 bytes.
template <class T, bool four>
__global__ void __launch_bounds__(256)
    dequantize_kernel(T* out, const uint8_t* integers, const void* scales, int64_t rows, int64_t k,
                      int64_t scale_stride, bool grouped, bool half_scales, bool whole) {
  constexpr int bytes = four ? neighbours / 2 : neighbours;
  int64_t each = (k + neighbours - 1) / neighbours;
  int64_t index = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (index >= rows * each) return;
  int64_t row = index / each, column = index % each * neighbours, count = k - column;
  const uint8_t* from = integers + (row * k + column) / (four ? 2 : 1);
  uint32_t word[bytes / 4] = {};
  if (whole) {
#pragma unroll
    for (int i = 0; i < bytes / 4; i += 2) {
      uint2 pair = *reinterpret_cast<const uint2*>(from + 4 * i);
      word[i] = pair.x, word[i + 1] = pair.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < bytes; ++i)
      if ((four ? 2 * i : i) < count) word[i / 4] |= static_cast<uint32_t>(from[i]) << (i % 4 * 8);
  }
  float scale = load_scale(scales, half_scales, row * scale_stride + (grouped ? column / 64 : 0));
#pragma unroll
  for (int first = 0; first < neighbours; first += piece<T>) {
    float x[piece<T>];
#pragma unroll
    for (int i = 0; i < piece<T>; ++i) {
      int at = first + i;
      int integer = four ? static_cast<int>(word[at / 8] >> (at % 8 * 4) & 15u) - 8
                         : static_cast<int8_t>(word[at / 4] >> (at % 4 * 8) & 255u);
      x[i] = static_cast<float>(integer) * scale;
    }
    store_part(out + row * k + column + first, x, count - first, whole);
  }
}

}  // namespace

void GpuDevice::dequantize(const Dequantize& op) {
  QuantizedLayout layout = dequantize_layout(op);
  bool whole = layout.k % neighbours == 0 && aligned16(op.integers.data()) && aligned16(op.out.data());
  int64_t threads = layout.rows * ceil_div(layout.k, neighbours);
  if (threads == 0) return;
  for_type(op.out.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({"dequantize", dim3(ceil_div(threads, 256)), dim3(256), 0, op.out.shape()},
           layout.four_bits ? dequantize_kernel<T, true> : dequantize_kernel<T, false>,
           static_cast<T*>(op.out.data()), static_cast<const uint8_t*>(op.integers.data()), op.scales.data(),
           layout.rows, layout.k, layout.scale_stride, layout.grouped, layout.half_scales, whole);
  });
}

void GpuDevice::quantize(const Quantize& op) {
  RowsOf x(op.x, "quantize", "x");
  QuantizedLayout layout = quantize_layout(op, x);
  int64_t each = layout.grouped ? layout.k / 64 : 1, width = layout.grouped ? 64 : layout.k;
  if (layout.k == 0) return;
  Groups groups{x.rows * each, each, width, x.stride, layout.four_bits, layout.half_scales};
  for_type(op.x.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({"quantize", dim3(ceil_div(groups.count * 32, quantize_threads)), dim3(quantize_threads), 0, op.x.shape()},
           quantize_kernel<T>, static_cast<uint8_t*>(op.out.data()), op.scales.data(),
           static_cast<const T*>(op.x.data()), groups);
  });
}

}  // namespace longhand::LONGHAND_GPU
