// Weights in the order that a device reads fastest, made from rows by the definition in device.h.
#pragma once

#include <cstring>
#include <vector>

#include "longhand/device.h"

namespace longhand::ops {

/// A copy of weights and scales, interleaved when `wanted` and the device reads such weights; otherwise what was
/// given.
class InterleavedWeights {
 public:
  InterleavedWeights(Device& device, const Tensor& from, const Tensor& from_scales, Dtype activations, bool wanted)
      : weight(from), scales(from_scales), device_(device) {
    auto [together, bytes] = device.interleaving(from.type(), activations);
    if (!wanted || together == 0) return;
    int64_t tiles = from.size(0) / together, run = bytes / dtype_bytes(from.type());
    weight = side_by_side(from, {tiles, from.size(1) / run, together, run});
    if (from_scales.rank() == 2) scales = side_by_side(from_scales, {tiles, from_scales.size(1), together, 1});
    if (from_scales.rank() == 2) scales = scales.reshape({tiles, from_scales.size(1), together});
  }
  ~InterleavedWeights() {
    for (void* memory : memory_) device_.release(memory);
  }
  InterleavedWeights(const InterleavedWeights&) = delete;
  InterleavedWeights& operator=(const InterleavedWeights&) = delete;

  Tensor weight, scales;

 private:
  /// Element (tile, i, r, e) of `shape` is element (tile * rows + r, i * width + e) of `from`.
  Tensor side_by_side(const Tensor& from, const Shape& shape) {
    int64_t bytes = dtype_bytes(from.type()), rows = shape[2], width = shape[3], columns = from.size(1);
    std::vector<char> source(from.bytes()), target(from.bytes());
    device_.download(source.data(), from);
    for (int64_t at = 0; at < from.elements(); ++at) {
      int64_t e = at % width, r = at / width % rows, i = at / (width * rows) % shape[1];
      int64_t tile = at / (width * rows * shape[1]);
      std::memcpy(&target[at * bytes], &source[((tile * rows + r) * columns + i * width + e) * bytes], bytes);
    }
    memory_.push_back(device_.allocate(from.bytes()));
    Tensor to(memory_.back(), from.type(), shape);
    device_.upload(to, target.data());
    device_.synchronize();
    return to;
  }

  Device& device_;
  std::vector<void*> memory_;
};

}  // namespace longhand::ops
