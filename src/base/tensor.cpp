#include "longhand/tensor.h"

namespace longhand {

int64_t dtype_bytes(Dtype type) {
  switch (type) {
    case Dtype::fp64:
    case Dtype::i64:
    case Dtype::u64:
      return 8;
    case Dtype::fp32:
    case Dtype::i32:
    case Dtype::u32:
      return 4;
    case Dtype::bf16:
    case Dtype::fp16:
    case Dtype::i16:
    case Dtype::u16:
      return 2;
    case Dtype::i8:
    case Dtype::u8:
      return 1;
  }
  return 0;
}

const char* dtype_name(Dtype type) {
  switch (type) {
    case Dtype::fp32:
      return "fp32";
    case Dtype::bf16:
      return "bf16";
    case Dtype::fp16:
      return "fp16";
    case Dtype::fp64:
      return "fp64";
    case Dtype::i8:
      return "i8";
    case Dtype::u8:
      return "u8";
    case Dtype::i16:
      return "i16";
    case Dtype::u16:
      return "u16";
    case Dtype::i32:
      return "i32";
    case Dtype::u32:
      return "u32";
    case Dtype::i64:
      return "i64";
    case Dtype::u64:
      return "u64";
  }
  return "?";
}

std::string Shape::text() const {
  std::string text = "[";
  for (int axis = 0; axis < rank; ++axis) text += fmt::format("{}{}", axis ? ", " : "", size[axis]);
  return text + "]";
}

}  // namespace longhand
