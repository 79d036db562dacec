// Products with few rows beside the read bandwidth, and with many beside the arithmetic, on weights that no cache
// holds.
//   build/bench/quantized [threads]
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "longhand/ceilings.h"
#include "longhand/device.h"

using namespace longhand;

namespace {

struct Kind {
  const char* name;
  Dtype weight, scale;
  bool grouped, eight_bit_activations, interleaved;
  double bytes;  // a weight, with its share of the scales
};

const Kind kinds[] = {
    {"int8, a scale a row", Dtype::i8, Dtype::fp32, false, false, true, 1},
    {"int8, groups of 64", Dtype::i8, Dtype::fp16, true, false, true, 1 + 2.0 / 64},
    {"int4, groups of 64", Dtype::u8, Dtype::fp16, true, false, true, 0.5 + 2.0 / 64},
    {"int8, not interleaved", Dtype::i8, Dtype::fp32, false, false, false, 1},
    {"int4, not interleaved", Dtype::u8, Dtype::fp16, true, false, false, 0.5 + 2.0 / 64},
    {"fp16", Dtype::fp16, Dtype::fp32, false, false, true, 2},
    {"bf16", Dtype::bf16, Dtype::fp32, false, false, true, 2},
    {"fp16, not interleaved", Dtype::fp16, Dtype::fp32, false, false, false, 2},
    {"int8 with int8 activations", Dtype::i8, Dtype::fp32, false, true, true, 1},
};

constexpr int64_t n = 32768, k = 4096, most_rows = 512;

// One thread is timed by its processor time, which other programs on the machine disturb less.
double now(bool one_thread) {
  timespec time;
  clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double median_seconds(Device& device, const QuantizedMatmul& product) {
  bool one_thread = device.threads() == 1;
  std::vector<double> times;
  double total = 0;
  while (times.size() < 3 || (total < 0.6 && times.size() < 100)) {
    double start = now(one_thread);
    device.quantized_matmul(product);
    times.push_back(now(one_thread) - start);
    total += times.back();
  }
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  DeviceOptions options;
  options.threads = argc > 1 ? std::atoi(argv[1]) : 0;
  auto device = make_device("cpu", options);
  Ceilings limit = measure_ceilings(device->threads());
  fmt::print("{}, {} threads: fp32 {:.1f} GFLOP/s, bf16 {:.1f} GFLOP/s, read {:.1f} GB/s; weights [{}, {}]\n",
             limit.processor, limit.threads, limit.fma_fp32 / 1e9, limit.dot_bf16 / 1e9, limit.read_bytes / 1e9, n, k);
  fmt::print("{:<28} {:>5} {:>10} {:>8} {:>7} {:>9}\n", "weights", "rows", "ms", "GB/s", "of read", "GOP/s");

  // The device's own memory, as the engine's weights lie in.
  char* weights = static_cast<char*>(device->allocate(n * k * 2));
  std::vector<char> scales(n * k / 64 * 4);
  std::vector<float> a(most_rows * k), out(most_rows * n);
  for (int64_t i = 0; i < n * k * 2; ++i) weights[i] = static_cast<char>(i % 2 ? 0x2a : i * 37 % 255);  // fp16: small
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<char>(i % 2 ? 0x2a : 0x11);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 97) / 97 - 0.5f;
  for (const Kind& kind : kinds)
    for (int64_t rows : {1, 2, 4, 8, 16, 512}) {
      if (kind.eight_bit_activations && rows < 512) continue;
      bool whole = rows <= 16, integers = kind.weight == Dtype::i8 || kind.weight == Dtype::u8;
      int64_t columns = whole ? n : n / 8;
      int64_t width = kind.weight == Dtype::u8 ? k / 2 : k;
      auto [together, bytes_together] = device->interleaving(kind.weight, Dtype::fp32);
      Shape weight{columns, width}, groups{columns, k / 64};
      if (kind.interleaved && together > 0) {
        int64_t tiles = columns / together, run = bytes_together / dtype_bytes(kind.weight);
        weight = {tiles, width / run, together, run}, groups = {tiles, k / 64, together};
      }
      QuantizedMatmul product{.out = Tensor(out.data(), Dtype::fp32, {rows, columns}),
                              .a = ConstTensor(a.data(), Dtype::fp32, {rows, k}),
                              .weight = ConstTensor(weights, kind.weight, weight),
                              .quantize_activations = kind.eight_bit_activations};
      if (integers) product.scales = ConstTensor(scales.data(), kind.scale, kind.grouped ? groups : Shape{columns});
      double t = median_seconds(*device, product), bytes = kind.bytes * static_cast<double>(columns * k);
      fmt::print("{:<28} {:>5} {:>10.2f} {:>8.1f} {:>6.1f}% {:>9.1f}\n", kind.name, rows, t * 1e3, bytes / t / 1e9,
                 100 * bytes / t / limit.read_bytes, 2e-9 * static_cast<double>(rows * columns * k) / t);
      std::fflush(stdout);
    }
  device->release(weights);
}
