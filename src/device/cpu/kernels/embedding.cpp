// Embedding rows, and the sums of their gradients. Limit: memory bandwidth.
#include "src/device/cpu/kernels/embedding.h"

#include "src/device/cpu/kernels/fp16.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace {

LONGHAND_INLINE float scale_at(const EmbeddingTable& table, int64_t index) {
  if (!table.half_scales) return static_cast<const float*>(table.scales)[index];
  float scale[lanes];
  store(scale, load_part(static_cast<const fp16*>(table.scales) + index, 1));
  return scale[0];
}

/// Where entry i of a row of `row_entries` lies: rows one behind another, or interleaved by runs of `run` entries.
LONGHAND_INLINE int64_t entry_at(const EmbeddingTable& table, int64_t row_entries, int64_t run, int64_t row,
                                 int64_t i) {
  int64_t side_by_side = table.interleaved_rows;
  if (side_by_side == 0) return row * row_entries + i;
  int64_t lane = row % side_by_side;
  return (row - lane) * row_entries + (i / run * side_by_side + lane) * run + i % run;
}

template <class T>
LONGHAND_INLINE void widen(const EmbeddingTable& table, int64_t width, int64_t row, int64_t at, int64_t count,
                           float* to) {
  int64_t run = table.interleaved_rows ? table.interleaved_bytes / static_cast<int64_t>(sizeof(T)) : width;
  for (int64_t begin = 0, length = 0; begin < count; begin += length) {
    int64_t i = at + begin, rest = run - i % run;
    length = rest < count - begin ? rest : count - begin;
    const T* from = static_cast<const T*>(table.weight) + entry_at(table, width, run, row, i);
    if (run < lanes)
      for (int64_t j = 0; j < length; ++j) to[begin + j] = load_part(from + j, 1)[0];
    else
      each_vector(length, [&](int64_t j, auto part) { store(to + begin + j, load(from + j, part)); });
  }
}

/// `count` weights of a row from column `at` on, in fp32.
LONGHAND_INLINE void widen_row(const EmbeddingTable& table, int64_t width, int64_t row, int64_t at, int64_t count,
                               float* to) {
  switch (table.type) {
    case EmbeddingType::fp32:
      return widen<float>(table, width, row, at, count, to);
    case EmbeddingType::bf16:
      return widen<half>(table, width, row, at, count, to);
    case EmbeddingType::fp16:
      return widen<fp16>(table, width, row, at, count, to);
    default:
      break;
  }
  bool four_bits = table.type == EmbeddingType::int4;
  const uint8_t* bytes = static_cast<const uint8_t*>(table.weight);
  float scale = 0;
  for (int64_t i = 0; i < count; ++i) {
    int64_t column = at + i;
    if (i == 0 || (table.grouped && column % 64 == 0))
      scale = scale_at(table, table.grouped ? entry_at(table, width / 64, 1, row, column / 64) : row);
    int byte = four_bits ? bytes[entry_at(table, width / 2, 4, row, column / 2)]
                         : bytes[entry_at(table, width, 4, row, column)];
    int integer = four_bits ? (column % 2 ? byte >> 4 : byte & 15) - 8 : static_cast<int8_t>(byte);
    to[i] = static_cast<float>(integer) * scale;
  }
}

template <class T>
constexpr bool is_type(EmbeddingType type) {
  return type == (sizeof(T) == 4 ? EmbeddingType::fp32 : EmbeddingType::bf16);
}

}  // namespace

template <class T>
LONGHAND_KERNEL void embedding_forward(const EmbeddingRows& a) {
  DropoutRow row;
  alignas(64) float wide[random_piece + lanes];
  for (int64_t r = a.first; r < a.first + a.count; ++r)
    for (int64_t at = 0; at < a.width; at += random_piece) {
      int64_t count = a.width - at < random_piece ? a.width - at : random_piece;
      const float* factor = dropout_piece(row, a.dropout, r * a.width + at, count);
      T* out = static_cast<T*>(a.out) + r * a.width + at;
      auto write = [&](const auto* weight) __attribute__((always_inline)) {
        each_vector(count, [&](int64_t i, auto part) {
          vec value = load(weight + i, part) * splat(a.scale);
          if (factor) value *= load(factor + i);
          store(out + i, value, part);
        });
      };
      if (is_type<T>(a.table.type) && a.table.interleaved_rows == 0) {
        write(static_cast<const T*>(a.table.weight) + a.tokens[r] * a.width + at);
      } else {
        widen_row(a.table, a.width, a.tokens[r], at, count, wide);
        write(static_cast<const float*>(wide));
      }
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
