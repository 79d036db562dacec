// Four kernels, each from the naive form to the engine's own, one idea at a time: docs/KERNELS.md run step by step.
//
//   progression    every step at small sizes against a plain loop; bytes asked of global memory and its caches, at
//   small
//                  and at full size
// Built with CUDA=1: times at full size as well, the L2 cache flushed before each run.
#include <algorithm>
#include <chrono>

#include "bench/progression/harness.h"

namespace longhand::progression {

std::vector<float> Memory::random(int64_t count) {
  std::vector<float> values(counting_ ? 0 : count);
  for (float& value : values) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<float>(static_cast<double>(state_ >> 40) / (1 << 23) - 1);
  }
  return values;
}

namespace {

using Make = Exercise (*)(Memory&, bool);

/// The largest difference, over the largest entry; infinite when something is not a number.
double error_of(const std::vector<float>& result, const std::vector<double>& reference) {
  double largest = 0, error = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    double difference = std::abs(result[i] - reference[i]);
    if (!(difference < INFINITY)) return INFINITY;
    largest = std::max(largest, std::abs(reference[i])), error = std::max(error, difference);
  }
  return largest > 0 ? error / largest : error;
}

/// The median of 20 runs by the host's clock, a launch included; `flush` is larger than the L2 cache.
double microseconds(const Exercise& exercise, const Step& step, Device& device, const Tensor& flush) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int i = 0; i < 21; ++i) {
    exercise.reset();
    device.zero(flush);
    device.synchronize(), cudaDeviceSynchronize();
    auto begin = Clock::now();
    step.run();
    device.synchronize(), cudaDeviceSynchronize();
    if (i > 0) times.push_back(std::chrono::duration<double>(Clock::now() - begin).count() * 1e6);
  }
  std::nth_element(times.begin(), times.begin() + 10, times.end());
  return times[10];
}

/// Prints an exercise's steps; returns how many are wrong.
int show(Make make, Device& device) {
  Memory small_memory(device, false), full_memory(device, SIMT_HOST);
  Exercise small = make(small_memory, false), full = make(full_memory, true);
  std::vector<double> reference = small.reference();
  Memory flush_memory(device, SIMT_HOST);
  constexpr int64_t flush_bytes = 256 << 20;
  Tensor flush(flush_memory.array<uint8_t>(flush_bytes), Dtype::u8, {flush_bytes});
  fmt::print("{}\n", small.title);
  int wrong = 0;
  for (size_t i = 0; i < small.steps.size(); ++i) {
    const Step& step = small.steps[i];
    small.reset();
    device.synchronize();
    step.run();
    if (cudaError_t status = cudaDeviceSynchronize(); status != cudaSuccess)
      fail("progression: {}: {}", step.name, cudaGetErrorString(status));
    device.synchronize();
    double error = error_of(small.result(), reference);
    bool good = error <= small.limit;
    std::string time = "-";
    if (!SIMT_HOST) time = fmt::format("{:.1f}", microseconds(full, full.steps[i], device, flush));
    fmt::print("{} {:<22} error {:.1e}  {:>9.3f} MB  at full size {:>10.2f} MB {:>9} us\n", good ? "ok" : "not ok",
               step.name, error, step.bytes * 1e-6, full.steps[i].bytes * 1e-6, time);
    wrong += !good;
  }
  fmt::print("   full size: {}\n\n", full.title);
  return wrong;
}

int run() {
  auto device = make_device(SIMT_HOST ? "simt" : "cuda");
  int wrong = 0;
  for (Make make : {attention, topk, int8_product, layernorm_backward}) wrong += show(make, *device);
  return wrong > 0;
}

}  // namespace
}  // namespace longhand::progression

int main() {
  try {
    return longhand::progression::run();
  } catch (const std::exception& error) {
    fmt::print(stderr, "progression: {}\n", error.what());
    return 1;
  }
}
