// Checks of shapes and types that the launchers of every device share.
#pragma once

#include <string_view>

#include "longhand/device.h"

namespace longhand {

/// 0 for fp32, 1 for bf16: the index into a table of kernels.
inline int float_index(const ConstTensor& t, std::string_view operation, std::string_view name) {
  if (t.type() != Dtype::fp32 && t.type() != Dtype::bf16)
    fail("{}: {} is {}, fp32 or bf16 was expected", operation, name, dtype_name(t.type()));
  return t.type() == Dtype::bf16;
}

/// A contiguous tensor of `elements` whose last axis is `width` (any split of the leading axes).
inline void check_rows(const ConstTensor& t, Dtype type, int64_t rows, int64_t width, std::string_view operation,
                       std::string_view name) {
  if (t.empty()) fail("{}: {} is missing", operation, name);
  if (t.type() != type) fail("{}: {} is {}, {} was expected", operation, name, dtype_name(t.type()), dtype_name(type));
  if (t.elements() != rows * width || (rows > 0 && t.size(t.rank() - 1) != width))
    fail("{}: {} is {}, [{}, {}] was expected", operation, name, t.shape().text(), rows, width);
  if (!t.contiguous()) fail("{}: {} {} is not contiguous", operation, name, t.shape().text());
}
inline void check_list(const ConstTensor& t, Dtype type, int64_t n, std::string_view operation, std::string_view name) {
  if (t.empty()) fail("{}: {} is missing", operation, name);
  if (t.type() != type || t.elements() != n || !t.contiguous())
    fail("{}: {} is {} {}, contiguous {} [{}] was expected", operation, name, dtype_name(t.type()), t.shape().text(),
         dtype_name(type), n);
}

inline int64_t width_of(const ConstTensor& t) { return t.empty() ? 0 : t.size(t.rank() - 1); }
inline int64_t rows_of(const ConstTensor& t) { return width_of(t) ? t.elements() / width_of(t) : 0; }

/// Whole operations, where the devices ask for the same. The backward check returns the tensor that has the rows'
/// shape, the memory's the rows of the context that it takes. What lies in the tensors is not looked at.
void check_layernorm(const LayerNormForward& a);
ConstTensor check_layernorm(const LayerNormBackward& a);
ConstTensor check_memory_roll(const MemoryRoll& a);
void check_sample(const Sample& a);
void check_fgm_step(const FgmStep& a);

}  // namespace longhand
