// What the progressions share: arrays on the device, and steps that all compute one result.
//
// An exercise is made twice. At small sizes its steps run and are held against a plain loop on the host. At full size
// they are only counted without a card (arrays are then null) and timed with one.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "cuda/numeric.h"
#include "cuda/simt/simt.h"
#include "longhand/device.h"
#include "longhand/error.h"

namespace longhand::progression {

using bf16_t = __nv_bfloat16;
using LONGHAND_GPU::all_lanes, LONGHAND_GPU::ceil_div, LONGHAND_GPU::from_float, LONGHAND_GPU::to_float;

/// Where arrays live. `counting`: there are none, their addresses are null.
class Memory {
 public:
  Memory(Device& device, bool counting) : device(device), counting_(counting) {}
  Memory(const Memory&) = delete;
  ~Memory() {
    for (void* array : arrays_) device.release(array);
  }

  /// `count` elements, contents undefined.
  template <class T>
  T* array(int64_t count) {
    if (counting_) return nullptr;
    arrays_.push_back(device.allocate(count * static_cast<int64_t>(sizeof(T))));
    return static_cast<T*>(arrays_.back());
  }
  template <class T>
  T* upload(const std::vector<T>& values) {
    T* there = array<T>(static_cast<int64_t>(values.size()));
    if (!counting_) write(there, values);
    return there;
  }
  template <class T>
  void write(T* there, const std::vector<T>& values) {
    auto bytes = static_cast<int64_t>(values.size() * sizeof(T));
    device.upload(Tensor(there, Dtype::u8, {bytes}), values.data());
  }
  template <class T>
  std::vector<T> download(const T* there, int64_t count) {
    std::vector<T> values(count);
    device.download(values.data(), ConstTensor(there, Dtype::u8, {count * static_cast<int64_t>(sizeof(T))}));
    return values;
  }
  /// `count` numbers between -1 and 1; none where arrays are only counted.
  std::vector<float> random(int64_t count);

  Device& device;

 private:
  bool counting_;
  uint64_t state_ = 1;
  std::vector<void*> arrays_;
};

/// One way to compute the result, and the bytes that its global loads and stores ask for: a warp's loads of one address
/// count once.
struct Step {
  const char* name;
  double bytes;
  std::function<void()> run;
};

struct Exercise {
  std::string title;  // with the sizes
  std::vector<Step> steps;
  std::function<void()> reset;                 // before each run: the result as it is before, NaN unless it is added to
  std::function<std::vector<float>()> result;  // downloaded
  std::function<std::vector<double>()> reference;
  double limit;  // of the largest error, relative to the largest entry
};

Exercise attention(Memory& memory, bool full);
Exercise topk(Memory& memory, bool full);
Exercise int8_product(Memory& memory, bool full);
Exercise layernorm_backward(Memory& memory, bool full);

template <class... Parameters, class... Arguments>
void start(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... arguments) {
  cudaError_t status = simt::launch(kernel, grid, block, 0, nullptr, arguments...);
  if (status != cudaSuccess) fail("progression: {}", cudaGetErrorString(status));
}

inline std::vector<bf16_t> rounded(const std::vector<float>& values) {
  std::vector<bf16_t> result;
  for (float value : values) result.push_back(__float2bfloat16_rn(value));
  return result;
}
inline std::vector<float> widened(const std::vector<bf16_t>& values) {
  std::vector<float> result;
  for (bf16_t value : values) result.push_back(__bfloat162float(value));
  return result;
}

}  // namespace longhand::progression
