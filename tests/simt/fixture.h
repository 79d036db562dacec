// Arrays in device memory and launches, for the tests of the kernels' dialect. They build with nvcc as well: on a card
// the same expectations test what the host stands for.
#pragma once
#include <doctest/doctest.h>

#include <vector>

#include "cuda/simt/simt.h"

namespace simt_test {

/// An array of T in device memory.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t count) : count_(count) {
    REQUIRE(cudaMalloc(&memory_, count * sizeof(T)) == cudaSuccess);
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) {
    REQUIRE(cudaMemcpy(memory_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess);
  }
  ~DeviceArray() { cudaFree(memory_); }
  DeviceArray(const DeviceArray&) = delete;

  T* data() const { return memory_; }
  std::vector<T> values() const {
    std::vector<T> copy(count_);
    REQUIRE(cudaMemcpy(copy.data(), memory_, count_ * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess);
    return copy;
  }

 private:
  T* memory_ = nullptr;
  size_t count_;
};

/// Runs a kernel to its end; the test fails with the launch's error.
template <class... Parameters, class... Arguments>
void run(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, Arguments&&... arguments) {
  cudaError_t status = simt::launch(kernel, grid, block, shared, nullptr, std::forward<Arguments>(arguments)...);
  if (status == cudaSuccess) status = cudaDeviceSynchronize();
  INFO(cudaGetErrorString(status));
  REQUIRE(status == cudaSuccess);
}

constexpr unsigned all_lanes = 0xffffffffu;

}  // namespace simt_test
