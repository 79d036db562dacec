// Embedding rows, and the sums of their gradients. Limit: memory bandwidth.
#include "src/device/cpu/kernels/embedding.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

template <class T>
LONGHAND_KERNEL void embedding_forward(const EmbeddingRows& a) {
  DropoutRow row;
  for (int64_t r = a.first; r < a.first + a.count; ++r)
    for (int64_t at = 0; at < a.width; at += random_piece) {
      int64_t count = a.width - at < random_piece ? a.width - at : random_piece;
      const float* factor = dropout_piece(row, a.dropout, r * a.width + at, count);
      const T* weight = static_cast<const T*>(a.weight) + a.tokens[r] * a.width + at;
      T* out = static_cast<T*>(a.out) + r * a.width + at;
      each_vector(count, [&](int64_t i, auto part) {
        vec value = load(weight + i, part) * splat(a.scale);
        if (factor) value *= load(factor + i);
        store(out + i, value, part);
      });
    }
}

/// The row's sum is kept in fp32 until every occurrence has been added, then rounded once.
template <class T>
LONGHAND_KERNEL void embedding_backward(const EmbeddingToken& a) {
  DropoutRow dropout;
  alignas(64) float total[random_piece + lanes];
  for (int64_t at = 0; at < a.width; at += random_piece) {
    int64_t count = a.width - at < random_piece ? a.width - at : random_piece;
    T* d_weight = static_cast<T*>(a.d_weight) + at;
    each_vector(count, [&](int64_t i, auto part) { store(total + i, load(d_weight + i, part)); });
    for (int64_t r = a.row; r >= 0; r = a.next[r]) {
      const float* factor = dropout_piece(dropout, a.dropout, r * a.width + at, count);
      const T* d_out = static_cast<const T*>(a.d_out) + r * a.width + at;
      each_vector(count, [&](int64_t i, auto part) {
        vec value = load(d_out + i, part) * splat(a.scale);
        if (factor) value *= load(factor + i);
        store(total + i, load(total + i) + value);
      });
    }
    each_vector(count, [&](int64_t i, auto part) { store(d_weight + i, load(total + i), part); });
  }
}

}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(EmbeddingKernels, embedding_kernels) = {{embedding_forward<float>, embedding_forward<half>},
                                                                {embedding_backward<float>, embedding_backward<half>}};

}  // namespace longhand::cpu
