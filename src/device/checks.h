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

/// A tensor [.., n] as a matrix whose rows are `stride` elements apart.
struct RowsOf {
  int64_t rows = 1, columns = 0, stride = 0;
  RowsOf(const ConstTensor& t, const char* operation, const char* name) {
    if (t.rank() < 2) fail("{}: {} has shape {}, a matrix is needed", operation, name, t.shape().text());
    int last = t.rank() - 1;
    columns = t.size(last), stride = t.stride(last - 1);
    bool joined = columns <= 1 || t.stride(last) == 1;
    for (int axis = 0; axis < last; ++axis) {
      rows *= t.size(axis);
      if (axis + 1 < last)
        joined = joined && (t.size(axis) <= 1 || t.stride(axis) == t.stride(axis + 1) * t.size(axis + 1));
    }
    if (!joined && rows * columns > 0)
      fail("{}: {} {} has strides that are not those of rows", operation, name, t.shape().text());
  }
};

/// Whole operations, where the devices ask for the same. The backward check of layer normalisation returns the tensor
/// that has the rows' shape, the bias's the distance of d_out's rows, the memory's the rows of the context that it
/// takes. What lies in the tensors is not looked at.
void check_matmul(const Matmul& a);  // but for the types of a, b and out
void check_activation_forward(const ActivationForward& a);
void check_activation_backward(const ActivationBackward& a);
int64_t check_bias_backward(const BiasBackward& a);
void check_embedding(const EmbeddingBackward& a);
void check_position_encoding(const PositionEncoding& a);
void check_cross_entropy(const CrossEntropy& a);
void check_log_probability(const LogProbability& a);
void check_crf_loss(const CrfLoss& a);
void check_crf_decode(const CrfDecode& a);
void check_adamw(const AdamW& a);
void check_global_norm(const GlobalNorm& a);
void check_add(const Add& a);
void check_layernorm(const LayerNormForward& a);
ConstTensor check_layernorm(const LayerNormBackward& a);
ConstTensor check_memory_roll(const MemoryRoll& a);
void check_sample(const Sample& a);
void check_fgm_step(const FgmStep& a);

}  // namespace longhand
