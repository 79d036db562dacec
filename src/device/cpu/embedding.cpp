// The embedding: rows of the table, and the sums of their gradients.
#include "src/device/cpu/kernels/embedding.h"

#include <cstring>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/launch.h"
#include "src/device/quantized.h"

namespace longhand::cpu {

static void check_tokens(const int32_t* tokens, int64_t rows, int64_t vocabulary, const char* name) {
  for (int64_t r = 0; r < rows; ++r)
    if (tokens[r] < 0 || tokens[r] >= vocabulary)
      fail("{}: token {} of row {} is not in the vocabulary of {}", name, tokens[r], r, vocabulary);
}

static EmbeddingTable table_of(const EmbeddingForward& a, const Interleaving& order) {
  EmbeddingTable table{.weight = a.weight.data(),
                       .scales = a.scales.data(),
                       .interleaved_rows = order.rows,
                       .interleaved_bytes = order.bytes};
  switch (a.weight.type()) {
    case Dtype::fp32:
      table.type = EmbeddingType::fp32;
      break;
    case Dtype::bf16:
      table.type = EmbeddingType::bf16;
      break;
    case Dtype::fp16:
      table.type = EmbeddingType::fp16;
      break;
    case Dtype::i8:
      table.type = EmbeddingType::int8;
      break;
    default:
      table.type = EmbeddingType::int4;
  }
  table.grouped = a.scales.rank() > 1, table.half_scales = a.scales.type() == Dtype::fp16;
  return table;
}

void CpuDevice::embedding_forward(const EmbeddingForward& a) {
  constexpr auto name = "embedding_forward";
  int type = float_index(a.out, name, "out");
  Interleaving order = interleaving(a.weight.type(), a.out.type());
  EmbeddingLayout layout(a, order);
  int64_t rows = a.tokens.elements(), width = layout.width, vocabulary = layout.rows;
  check_list(a.tokens, Dtype::i32, rows, name, "tokens");
  check_rows(a.out, a.out.type(), rows, width, name, "out");
  const int32_t* tokens = a.tokens.as<int32_t>();
  check_tokens(tokens, rows, vocabulary, name);
  DropoutKey dropout = dropout_key(a.dropout, name);
  EmbeddingTable table = table_of(a, layout.interleaved ? order : Interleaving{});
  auto kernel = embedding_kernels().forward[type];
  for_pieces(pool_, rows, rows_per_piece(width), [&](int64_t first, int64_t count, int) {
    kernel({a.out.data(), table, tokens, width, first, count, a.scale, dropout});
  });
}

void CpuDevice::embedding_backward(const EmbeddingBackward& a) {
  constexpr auto name = "embedding_backward";
  check_embedding(a);
  int64_t rows = a.tokens.elements(), width = width_of(a.d_weight), vocabulary = rows_of(a.d_weight);
  const int32_t* tokens = a.tokens.as<int32_t>();
  check_tokens(tokens, rows, vocabulary, name);

  // A list of rows for each token: first[token], next[row], built from the back so that it ascends.
  int32_t* first = static_cast<int32_t*>(scratch(pool_.size(), (vocabulary + 2 * rows) * 4));
  int32_t *next = first + vocabulary, *used = next + rows;
  std::memset(first, 0xff, vocabulary * 4);
  int64_t distinct = 0;
  for (int64_t r = rows - 1; r >= 0; --r) {
    if (first[tokens[r]] < 0) used[distinct++] = tokens[r];
    next[r] = first[tokens[r]];
    first[tokens[r]] = static_cast<int32_t>(r);
  }

  DropoutKey dropout = dropout_key(a.dropout, name);
  auto kernel = embedding_kernels().backward[a.d_weight.type() == Dtype::bf16];
  char* weight = static_cast<char*>(a.d_weight.data());
  int64_t row_bytes = width * dtype_bytes(a.d_weight.type());
  for_pieces(pool_, distinct, rows_per_piece(width), [&](int64_t begin, int64_t count, int) {
    for (int64_t i = begin; i < begin + count; ++i)
      kernel({weight + used[i] * row_bytes, a.d_out.data(), next, first[used[i]], width, a.scale, dropout});
  });
}

}  // namespace longhand::cpu
