// What the tests of the elementwise operations share: tensors with their own memory, inputs, double references' errors.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "longhand/device.h"

namespace longhand {

struct Box {
  std::vector<char> bytes;
  Tensor tensor;

  Box(Dtype type, const Shape& shape) : bytes(shape.elements() * dtype_bytes(type) + 64) {
    tensor = Tensor(bytes.data(), type, shape);
  }
  Box(const Box& other) : bytes(other.bytes), tensor(bytes.data(), other.tensor.type(), other.tensor.shape()) {}
  operator Tensor() const { return tensor; }       // NOLINT
  operator ConstTensor() const { return tensor; }  // NOLINT
  bool operator==(const Box& other) const { return bytes == other.bytes; }

  double operator[](int64_t i) const {
    switch (tensor.type()) {
      case Dtype::bf16:
        return tensor.as<bf16>()[i];
      case Dtype::i32:
        return tensor.as<int32_t>()[i];
      default:
        return tensor.as<float>()[i];
    }
  }
  void set(int64_t i, double value) {
    if (tensor.type() == Dtype::bf16)
      tensor.as<bf16>()[i] = bf16(static_cast<float>(value));
    else if (tensor.type() == Dtype::i32)
      tensor.as<int32_t>()[i] = static_cast<int32_t>(value);
    else
      tensor.as<float>()[i] = static_cast<float>(value);
  }
};

/// Entries uniform in [low, high).
inline Box random_box(Dtype type, const Shape& shape, uint32_t seed, double low = -2, double high = 2) {
  Box box(type, shape);
  RandomStream stream{.seed = seed};
  for (int64_t i = 0; i < shape.elements(); ++i) {
    double value = low + (high - low) * uniform(stream.bits(i));
    box.set(i, type == Dtype::i32 ? std::floor(value) : value);
  }
  return box;
}

/// |a - b| / |b| over all entries.
inline double relative_error(const Box& a, const std::vector<double>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) difference += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
  return std::sqrt(difference / (norm + 1e-300));
}
inline double allowed(Dtype type) { return type == Dtype::bf16 ? 4e-3 : 2e-6; }

constexpr Dtype float_types[] = {Dtype::fp32, Dtype::bf16};
inline Dropout test_dropout(double rate) {
  return {.rate = static_cast<float>(rate),
          .stream = {.seed = 0x1234567890ull, .step = 77, .use = RandomUse::residual_dropout, .layer = 3}};
}

}  // namespace longhand
