// The embedding: rows of the table, and the sums of their gradients.
//
//   out_r = dropout(scale · weight[token_r]);      d_weight[t] += sum over the rows r of token t of scale · mask ·
//   d_out_r
//
// Forward: one thread a 16-byte piece; moves 2·rows·D elements. Tables of another type than the result's, integers with
// their scales among them, take a kernel of their own, element by element: a step of decoding reads a few rows.
// Backward, without atomics: first the rows are grouped by ranges of tokens, within a range in row order. Every block
// of this kernel owns a range; it counts the tokens below the range (where its group begins) and writes its own rows,
// both by reading all tokens, from the L2 cache. Then one warp takes an entry of a group and 32 pieces of columns. If
// the entry's token stands earlier in the group the warp is done; otherwise it adds the rows of this token in order,
// four at a time in flight, to the row of d_weight, rounding once. Moves rows·D + 2·(distinct tokens)·D elements and
// 512·rows·8 bytes of tokens through L2; limit: memory bandwidth.
#include "cuda/fp16.h"
#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/quantized.h"

namespace longhand::LONGHAND_GPU {
namespace {

template <class T>
__global__ void __launch_bounds__(256)
    embedding_forward_kernel(T* out, const T* weight, const int32_t* tokens, int64_t rows, int64_t width,
                             int64_t vocabulary, float scale, DropoutKey dropout, bool aligned,
                             unsigned long long* fault) {
  int64_t pieces = (width + piece<T> - 1) / piece<T>;
  int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= rows * pieces) return;
  int64_t row = index / pieces, column = index % pieces * piece<T>, count = width - column;
  int32_t token = tokens[row];
  float x[piece<T>] = {};
  if (token < 0 || token >= vocabulary)
    report_fault(fault, row, token);
  else
    load_part(x, weight + token * width + column, count, aligned);
#pragma unroll
  for (int i = 0; i < piece<T>; ++i) x[i] *= scale;
  if (dropout.on) drop(x, dropout, row * width + column);
  store_part(out + row * width + column, x, count, aligned);
}

/// A table of weights: floats, or integers with a scale a row or, grouped, for every 64.
struct EmbeddingTable {
  const void *weight, *scales;
  Dtype type;
  bool grouped, half_scales;
};

__device__ __forceinline__ float weight_at(const EmbeddingTable& table, int64_t row, int64_t column, int64_t width) {
  int64_t at = row * width + column;
  if (table.type == Dtype::fp32) return static_cast<const float*>(table.weight)[at];
  if (table.type == Dtype::bf16) return to_float(static_cast<const bf16_t*>(table.weight)[at]);
  if (table.type == Dtype::fp16) return to_float(static_cast<const fp16_t*>(table.weight)[at]);
  int64_t group = table.grouped ? row * (width / 64) + column / 64 : row;
  float scale = table.half_scales ? to_float(static_cast<const fp16_t*>(table.scales)[group])
                                  : static_cast<const float*>(table.scales)[group];
  if (table.type == Dtype::i8) return static_cast<float>(static_cast<const int8_t*>(table.weight)[at]) * scale;
  int byte = static_cast<const uint8_t*>(table.weight)[at / 2];
  return static_cast<float>((column % 2 ? byte >> 4 : byte & 15) - 8) * scale;
}

template <class T>
__global__ void __launch_bounds__(256)
    embedding_table_kernel(T* out, EmbeddingTable table, const int32_t* tokens, int64_t rows, int64_t width,
                           int64_t vocabulary, float scale, DropoutKey dropout, unsigned long long* fault) {
  int64_t pieces = (width + piece<T> - 1) / piece<T>;
  int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= rows * pieces) return;
  int64_t row = index / pieces, column = index % pieces * piece<T>, count = width - column;
  int32_t token = tokens[row];
  bool known = token >= 0 && token < vocabulary;
  if (!known) report_fault(fault, row, token);
  float x[piece<T>] = {};
#pragma unroll
  for (int i = 0; i < piece<T>; ++i)
    if (known && i < count) x[i] = weight_at(table, token, column + i, width) * scale;
  if (dropout.on) drop(x, dropout, row * width + column);
  store_part(out + row * width + column, x, count, false);
}

constexpr int group_threads = 512;
constexpr int64_t most_groups = 512;

/// Rows by ranges of `each` tokens: group g is grouped[start[g]], ..., grouped[start[g + 1] - 1], ascending.
struct Groups {
  int32_t *grouped, *start;
  int64_t each, count;
};

__device__ __forceinline__ int count_below(unsigned votes) { return __popc(votes & ((1u << threadIdx.x % 32) - 1)); }

__global__ void __launch_bounds__(group_threads) group_rows_kernel(Groups groups, const int32_t* tokens, int64_t rows,
                                                                   int64_t vocabulary, unsigned long long* fault) {
  constexpr int warps = group_threads / 32;
  SIMT_SHARED(int, warp_count, [2][warps]);
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t first = blockIdx.x * groups.each, end = first + groups.each;

  int below = 0;
  for (int64_t row = threadIdx.x; row < rows; row += group_threads) {
    int32_t token = tokens[row];
    below += token >= 0 && token < first;
    if (blockIdx.x == 0 && (token < 0 || token >= vocabulary)) report_fault(fault, row, token);
  }
  below = __reduce_add_sync(all_lanes, below);
  if (lane == 0) warp_count[1][warp] = below;
  __syncthreads();
  int64_t at = 0;
#pragma unroll
  for (int w = 0; w < warps; ++w) at += warp_count[1][w];
  if (threadIdx.x == 0) groups.start[blockIdx.x] = static_cast<int32_t>(at);

  int half = 0;  // the counts of a step and of the next lie apart, so that one barrier a step is enough
  for (int64_t base = 0; base < rows; base += group_threads, half ^= 1) {
    int64_t row = base + threadIdx.x;
    int32_t token = row < rows ? tokens[row] : -1;
    bool mine = token >= first && token < end && token < vocabulary;
    unsigned votes = __ballot_sync(all_lanes, mine);
    if (lane == 0) warp_count[half][warp] = __popc(votes);
    __syncthreads();
    int64_t to = at + count_below(votes);
#pragma unroll
    for (int w = 0; w < warps; ++w) {
      if (w < warp) to += warp_count[half][w];
      at += warp_count[half][w];
    }
    if (mine) groups.grouped[to] = static_cast<int32_t>(row);
  }
  if (blockIdx.x + 1 == groups.count && threadIdx.x == 0) groups.start[groups.count] = static_cast<int32_t>(at);
}

template <class T>
struct Gradient {
  T* d_weight;
  const T* d_out;
  const int32_t* tokens;
  int64_t width;
  float scale;
  DropoutKey dropout;
  bool aligned;
};

/// total += the rows of a group whose bit is set, in order.
template <class T>
__device__ __forceinline__ void add_rows(float (&total)[piece<T>], const Gradient<T>& g, unsigned votes,
                                         int32_t lane_row, int64_t column) {
  constexpr int together = 4;
  while (votes) {
    float x[together][piece<T>];
    int64_t row[together];
#pragma unroll
    for (int i = 0; i < together; ++i) {
      int source = __ffs(static_cast<int>(votes)) - 1;
      row[i] = votes ? __shfl_sync(all_lanes, lane_row, source) : -1;
      votes &= votes - 1;
      if (row[i] >= 0) load_part(x[i], g.d_out + row[i] * g.width + column, g.width - column, g.aligned);
    }
#pragma unroll
    for (int i = 0; i < together; ++i) {
      if (row[i] < 0) break;
#pragma unroll
      for (int j = 0; j < piece<T>; ++j) x[i][j] *= g.scale;
      if (g.dropout.on) drop(x[i], g.dropout, row[i] * g.width + column);
#pragma unroll
      for (int j = 0; j < piece<T>; ++j) total[j] += x[i][j];
    }
  }
}

template <class T>
__global__ void __launch_bounds__(128) embedding_backward_kernel(Gradient<T> g, Groups groups) {
  int lane = threadIdx.x % 32;
  int64_t entry = static_cast<int64_t>(blockIdx.x) * (128 / 32) + threadIdx.x / 32;
  int64_t column = (static_cast<int64_t>(blockIdx.y) * 32 + lane) * piece<T>;
  if (entry >= groups.start[groups.count]) return;
  int32_t token = g.tokens[groups.grouped[entry]];
  int64_t first = groups.start[token / groups.each], end = groups.start[token / groups.each + 1];
  auto votes_from = [&](int64_t at, int64_t stop, int32_t& row) {
    row = at + lane < stop ? groups.grouped[at + lane] : -1;
    return __ballot_sync(all_lanes, row >= 0 && g.tokens[row] == token);
  };
  int32_t row;
  for (int64_t at = first; at < entry; at += 32)
    if (votes_from(at, entry, row)) return;  // an earlier warp adds this token's rows

  float total[piece<T>];
  T* to = g.d_weight + token * g.width + column;
  load_part(total, to, g.width - column, g.aligned);
  for (int64_t at = entry; at < end; at += 32) {
    unsigned votes = votes_from(at, end, row);
    add_rows(total, g, votes, row, column);
  }
  store_part(to, total, g.width - column, g.aligned);
}

}  // namespace

void GpuDevice::embedding_forward(const EmbeddingForward& a) {
  constexpr auto name = "embedding_forward";
  float_index(a.out, name, "out");
  EmbeddingLayout layout(a);
  int64_t rows = a.tokens.elements(), width = layout.width, vocabulary = layout.rows;
  check_list(a.tokens, Dtype::i32, rows, name, "tokens");
  check_rows(a.out, a.out.type(), rows, width, name, "out");
  DropoutKey dropout = dropout_key(a.dropout, name);
  for_type(a.out.type(), [&](auto zero) {
    using T = decltype(zero);
    bool aligned = aligned16(a.out.data()) && aligned16(a.weight.data()) && width % piece<T> == 0;
    int64_t pieces = rows * ((width + piece<T> - 1) / piece<T>);
    if (a.weight.type() != a.out.type()) {
      EmbeddingTable table{a.weight.data(), a.scales.data(), a.weight.type(), a.scales.rank() == 2,
                           a.scales.type() == Dtype::fp16};
      launch({name, dim3(ceil_div(pieces, 256)), dim3(256), 0, a.out.shape()}, embedding_table_kernel<T>,
             static_cast<T*>(a.out.data()), table, a.tokens.as<int32_t>(), rows, width, vocabulary, a.scale, dropout,
             fault(Fault::embedding_forward_token, vocabulary));
      return;
    }
    launch({name, dim3(ceil_div(pieces, 256)), dim3(256), 0, a.out.shape()}, embedding_forward_kernel<T>,
           static_cast<T*>(a.out.data()), static_cast<const T*>(a.weight.data()), a.tokens.as<int32_t>(), rows, width,
           vocabulary, a.scale, dropout, aligned, fault(Fault::embedding_forward_token, vocabulary));
  });
}

void GpuDevice::embedding_backward(const EmbeddingBackward& a) {
  constexpr auto name = "embedding_backward";
  check_embedding(a);
  int64_t rows = a.tokens.elements(), width = width_of(a.d_weight), vocabulary = rows_of(a.d_weight);
  DropoutKey dropout = dropout_key(a.dropout, name);
  if (rows == 0 || vocabulary == 0) return;

  Operation operation(*this);
  Groups groups{};
  groups.each = (vocabulary + most_groups - 1) / most_groups;
  groups.count = (vocabulary + groups.each - 1) / groups.each;
  groups.grouped = scratch<int32_t>(rows);
  groups.start = scratch<int32_t>(groups.count + 1);
  launch({name, dim3(static_cast<unsigned>(groups.count)), dim3(group_threads), 0, a.d_out.shape()}, group_rows_kernel,
         groups, a.tokens.as<int32_t>(), rows, vocabulary, fault(Fault::embedding_backward_token, vocabulary));
  for_type(a.d_weight.type(), [&](auto zero) {
    using T = decltype(zero);
    bool aligned = aligned16(a.d_weight.data()) && aligned16(a.d_out.data()) && width % piece<T> == 0;
    Gradient<T> g{static_cast<T*>(a.d_weight.data()),
                  static_cast<const T*>(a.d_out.data()),
                  a.tokens.as<int32_t>(),
                  width,
                  a.scale,
                  dropout,
                  aligned};
    launch({name, dim3(ceil_div(rows, 4), ceil_div(width, 32 * piece<T>)), dim3(128), 0, a.d_out.shape()},
           embedding_backward_kernel<T>, g, groups);
  });
}

}  // namespace longhand::LONGHAND_GPU
