// Tensors: a pointer, a type, up to four sizes with their strides. A tensor owns nothing; arenas and files do.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "longhand/error.h"

namespace longhand {

enum class Dtype : uint8_t { fp32, bf16, fp16, fp64, i8, u8, i16, u16, i32, u32, i64, u64 };

int64_t dtype_bytes(Dtype type);
const char* dtype_name(Dtype type);  // "fp32", "bf16", ...

/// bfloat16: the upper half of an fp32. Conversion rounds to nearest, ties to even; NaN stays NaN.
struct bf16 {
  uint16_t bits;

  bf16() = default;
  explicit bf16(float value) {
    uint32_t word;
    std::memcpy(&word, &value, 4);
    bool nan = (word & 0x7fffffffu) > 0x7f800000u;
    bits = nan ? static_cast<uint16_t>((word >> 16) | 0x40)
               : static_cast<uint16_t>((word + 0x7fffu + ((word >> 16) & 1)) >> 16);
  }
  operator float() const {
    uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
  }
};

template <class T>
constexpr Dtype dtype_of() {
  using U = std::remove_cv_t<T>;
  if constexpr (std::is_same_v<U, float>)
    return Dtype::fp32;
  else if constexpr (std::is_same_v<U, bf16>)
    return Dtype::bf16;
  else if constexpr (std::is_same_v<U, double>)
    return Dtype::fp64;
  else if constexpr (std::is_same_v<U, int8_t>)
    return Dtype::i8;
  else if constexpr (std::is_same_v<U, uint8_t>)
    return Dtype::u8;
  else if constexpr (std::is_same_v<U, int16_t>)
    return Dtype::i16;
  else if constexpr (std::is_same_v<U, uint16_t>)
    return Dtype::u16;
  else if constexpr (std::is_same_v<U, int32_t>)
    return Dtype::i32;
  else if constexpr (std::is_same_v<U, uint32_t>)
    return Dtype::u32;
  else if constexpr (std::is_same_v<U, int64_t>)
    return Dtype::i64;
  else {
    static_assert(std::is_same_v<U, uint64_t>, "no tensor type for this C++ type");
    return Dtype::u64;
  }
}

/// Sizes of a tensor, outermost first; rank 0 stands for "no tensor".
struct Shape {
  int rank = 0;
  std::array<int64_t, 4> size{};

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes) {
    if (sizes.size() > 4) fail("a tensor has at most four dimensions, not {}", sizes.size());
    for (int64_t n : sizes) size[rank++] = n;
  }
  int64_t operator[](int axis) const { return size[axis]; }
  int64_t elements() const {
    int64_t n = rank == 0 ? 0 : 1;
    for (int axis = 0; axis < rank; ++axis) n *= size[axis];
    return n;
  }
  bool operator==(const Shape&) const = default;
  std::string text() const;  // "[8, 128]"
};

/// View<void> is Tensor, View<const void> is ConstTensor. Strides count elements; a fresh view is contiguous.
template <class Void>
class View {
 public:
  template <class T>
  using Like = std::conditional_t<std::is_const_v<Void>, const T, T>;

  View() = default;
  View(Void* data, Dtype type, Shape shape) : data_(data), type_(type), shape_(shape) {
    int64_t step = 1;
    for (int axis = shape.rank - 1; axis >= 0; --axis) stride_[axis] = step, step *= shape.size[axis];
  }
  template <class Other>
  requires(std::is_const_v<Void> && !std::is_const_v<Other>)
      View(const View<Other>& other)  // NOLINT: a tensor is readable as it stands
      : data_(other.data()), type_(other.type()), shape_(other.shape()), stride_(other.strides()) {}

  bool empty() const { return shape_.rank == 0; }
  explicit operator bool() const { return !empty(); }
  Void* data() const { return data_; }
  Dtype type() const { return type_; }
  const Shape& shape() const { return shape_; }
  int rank() const { return shape_.rank; }
  int64_t size(int axis) const { return shape_.size[axis]; }
  int64_t stride(int axis) const { return stride_[axis]; }
  const std::array<int64_t, 4>& strides() const { return stride_; }
  int64_t elements() const { return shape_.elements(); }
  int64_t bytes() const { return elements() * dtype_bytes(type_); }

  bool contiguous() const {
    int64_t step = 1;
    for (int axis = rank() - 1; axis >= 0; --axis) {
      if (size(axis) != 1 && stride_[axis] != step) return false;
      step *= size(axis);
    }
    return true;
  }

  /// The elements as C++ values; fails when the type is another.
  template <class T>
  Like<T>* as() const {
    if (!empty() && dtype_of<T>() != type_)
      fail("tensor {} holds {}, {} was asked for", shape_.text(), dtype_name(type_), dtype_name(dtype_of<T>()));
    return static_cast<Like<T>*>(data_);
  }

  /// `count` entries of one axis from `first` on.
  View slice(int axis, int64_t first, int64_t count) const {
    if (first < 0 || count < 0 || first + count > size(axis))
      fail("slice [{}, {}) of axis {} of a tensor {}", first, first + count, axis, shape_.text());
    View part = *this;
    part.shape_.size[axis] = count;
    part.data_ = static_cast<Like<char>*>(data_) + first * stride_[axis] * dtype_bytes(type_);
    return part;
  }
  View rows(int64_t first, int64_t count) const { return slice(0, first, count); }

  /// The same elements under another shape. Axes that are split or joined must be contiguous among themselves: the
  /// outer stride is kept when only inner axes are split ([rows, H*dh] -> [rows, H, dh] works on a slice of columns).
  View reshape(Shape shape) const {
    if (shape.elements() != elements()) fail("reshape of {} to {}", shape_.text(), shape.text());
    View other(data_, type_, shape);
    if (contiguous()) return other;
    // Match every old axis longer than 1 with a run of new ones.
    int to = 0;
    for (int from = 0; from < rank(); ++from) {
      int64_t rest = size(from);
      if (rest == 1) continue;
      int first = to;
      while (to < shape.rank && rest > 1 && rest % shape.size[to] == 0) rest /= shape.size[to++];
      if (rest != 1) fail("reshape of a strided {} to {}", shape_.text(), shape.text());
      int64_t step = stride_[from];
      for (int axis = to - 1; axis >= first; --axis) other.stride_[axis] = step, step *= shape.size[axis];
    }
    return other;
  }

 private:
  template <class>
  friend class View;
  Void* data_ = nullptr;
  Dtype type_ = Dtype::fp32;
  Shape shape_;
  std::array<int64_t, 4> stride_{};
};

using Tensor = View<void>;
using ConstTensor = View<const void>;

}  // namespace longhand
