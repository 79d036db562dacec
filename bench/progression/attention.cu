// Relative attention: naive -> tiles -> online softmax -> the engine's tensor-core kernel. docs/KERNELS.md tells the
// story; here queries and keys are bf16, every sum is fp32, and a query sees all of the past.
//
//   a_ij = ((q_i + u) . k_j + (q_i + v) . r[i + M - j]) / sqrt(width);   out = softmax(a) value
#include "bench/progression/attention_naive.h"

namespace longhand::progression {
namespace {

constexpr int tile = 16, padded = width + 1;
using Sizes = AttentionSizes;
using Operands = AttentionOperands;

// Step 1: attention_naive.h.

// Step 2. Tiles of 16 x 16 pairs share their rows; r is indexed by the distance: nothing is shifted, no tile of the
// future is touched. Scores and probabilities still pass through memory.

struct TileShared {
  float with_u[tile][padded], with_v[tile][padded], rows[tile][padded], r[2 * tile - 1][padded], p[tile][tile];
};

/// Thread (x, y) of 16 x 16 brings four channels of each row in turn.
template <class Value>
__device__ void stage(float (*to)[padded], int rows, Value value) {
  for (int row = threadIdx.y; row < rows; row += tile)
    for (int c = threadIdx.x; c < width; c += tile) to[row][c] = value(row, c);
}
__device__ void stage_queries(TileShared& s, const Operands& o, int first, int head) {
  auto q = [&](int row, int c, const bf16_t* bias) {
    return first + row < o.s.queries ? to_float(o.q[o.row(first + row, head) + c]) + to_float(bias[head * width + c])
                                     : 0.0f;
  };
  stage(s.with_u, tile, [&](int row, int c) { return q(row, c, o.u); });
  stage(s.with_v, tile, [&](int row, int c) { return q(row, c, o.v); });
}
__device__ void stage_rows(TileShared& s, const Operands& o, const bf16_t* from, int first, int head) {
  stage(s.rows, tile,
        [&](int row, int c) { return first + row < o.s.keys() ? to_float(from[o.row(first + row, head) + c]) : 0.0f; });
}
/// The score of query first_query + y and key first_key + x, -infinity where it is not seen; queries are staged.
__device__ float tile_score(TileShared& s, const Operands& o, int first_query, int first_key, int head) {
  int apart = first_query + o.s.memory - first_key, x = threadIdx.x, y = threadIdx.y;
  stage_rows(s, o, o.k, first_key, head);
  stage(s.r, 2 * tile - 1, [&](int row, int c) {
    int distance = apart + row - (tile - 1);
    return distance >= 0 && distance < o.s.keys() ? to_float(o.r[o.row(distance, head) + c]) : 0.0f;
  });
  __syncthreads();
  float sum = 0;
  for (int c = 0; c < width; ++c) sum += s.with_u[y][c] * s.rows[x][c] + s.with_v[y][c] * s.r[y - x + tile - 1][c];
  bool seen = first_query + y < o.s.queries && apart + y - x >= 0;
  return seen ? sum * rsqrtf(width) : -INFINITY;
}
__global__ void __launch_bounds__(tile* tile) tiled_scores_kernel(Operands o, float* scores) {
  SIMT_SHARED(TileShared, s, );
  int first_key = blockIdx.x * tile, first_query = blockIdx.y * tile, head = blockIdx.z;
  if (first_key > first_query + tile - 1 + o.s.memory) return;
  stage_queries(s, o, first_query, head);
  float score = tile_score(s, o, first_query, first_key, head);
  int query = first_query + threadIdx.y, key = first_key + threadIdx.x;
  if (query < o.s.queries && key < o.s.keys()) scores[o.pair(head, query, key)] = score;
}
__global__ void __launch_bounds__(tile* tile) tiled_output_kernel(Operands o, const float* probabilities) {
  SIMT_SHARED(TileShared, s, );
  int first_query = blockIdx.x * tile, head = blockIdx.y, x = threadIdx.x, y = threadIdx.y, query = first_query + y;
  int end = min(first_query + tile + o.s.memory, o.s.keys());
  float out[width / tile] = {};
  for (int first_key = 0; first_key < end; first_key += tile) {
    __syncthreads();
    stage_rows(s, o, o.value, first_key, head);
    bool there = query < o.s.queries && first_key + x < o.s.keys();
    s.p[y][x] = there ? probabilities[o.pair(head, query, first_key + x)] : 0.0f;
    __syncthreads();
    for (int key = 0; key < tile; ++key)
      for (int i = 0; i < width / tile; ++i) out[i] += s.p[y][key] * s.rows[key][x + tile * i];
  }
  for (int i = 0; i < width / tile && query < o.s.queries; ++i)
    o.out[o.row(query, head) + x + tile * i] = from_float<bf16_t>(out[i]);
}

// Step 3. One kernel walks the key tiles with a running maximum and sum: no matrix is left.

__global__ void __launch_bounds__(tile* tile) online_kernel(Operands o) {
  SIMT_SHARED(TileShared, s, );
  int first_query = blockIdx.x * tile, head = blockIdx.y, x = threadIdx.x, y = threadIdx.y, query = first_query + y;
  int end = min(first_query + tile + o.s.memory, o.s.keys());
  float out[width / tile] = {}, largest = -INFINITY, sum = 0;
  stage_queries(s, o, first_query, head);
  for (int first_key = 0; first_key < end; first_key += tile) {
    float score = tile_score(s, o, first_query, first_key, head), top = score;
    for (int step = 1; step < tile; step *= 2) top = fmaxf(top, __shfl_xor_sync(all_lanes, top, step));
    top = fmaxf(top, largest);
    float base = top == -INFINITY ? 0.0f : top, shrink = expf(largest - base), p = expf(score - base);
    largest = top, sum = sum * shrink + p;
    __syncthreads();
    stage_rows(s, o, o.value, first_key, head);
    s.p[y][x] = p;
    __syncthreads();
    for (int i = 0; i < width / tile; ++i) {
      out[i] *= shrink;
      for (int key = 0; key < tile; ++key) out[i] += s.p[y][key] * s.rows[key][x + tile * i];
    }
    __syncthreads();
  }
  for (int step = 1; step < tile; step *= 2) sum += __shfl_xor_sync(all_lanes, sum, step);
  for (int i = 0; i < width / tile && query < o.s.queries; ++i)
    o.out[o.row(query, head) + x + tile * i] = from_float<bf16_t>(out[i] / sum);
}

std::vector<double> plain(const std::vector<float> (&x)[6], Sizes s) {
  const auto &q = x[0], &k = x[1], &value = x[2], &r = x[3], &u = x[4], &v = x[5];
  std::vector<double> out(static_cast<size_t>(s.queries) * s.heads * width);
  for (int head = 0; head < s.heads; ++head)
    for (int i = 0; i < s.queries; ++i) {
      double total = 0;
      auto at = [&](int position, int c) { return (position * s.heads + head) * width + c; };
      for (int j = 0; j <= i + s.memory; ++j) {
        double score = 0;
        for (int c = 0; c < width; ++c)
          score += (q[at(i, c)] + u[at(0, c)]) * k[at(j, c)] + (q[at(i, c)] + v[at(0, c)]) * r[at(i + s.memory - j, c)];
        double p = std::exp(score / std::sqrt(width));
        total += p;
        for (int c = 0; c < width; ++c) out[at(i, c)] += p * value[at(j, c)];
      }
      for (int c = 0; c < width; ++c) out[at(i, c)] /= total;
    }
  return out;
}

/// Key tiles of `size` that the tiles of as many queries walk, over all heads, and the tiles of queries.
struct Walk {
  double pairs = 0, rows = 0;
  Walk(Sizes s, int size, int shift) {
    for (int first = 0; first < s.queries; first += size, rows += s.heads)
      pairs += s.heads * ((std::min(first + size, s.queries) - 1 + s.memory + shift) / size + 1);
  }
};

}  // namespace

Exercise attention(Memory& memory, bool full) {
  Sizes s = full ? Sizes{2048, 2048, 12} : Sizes{70, 45, 2};
  int64_t row = int64_t{s.heads} * width, T = s.queries, K = s.keys();
  std::vector<float> inputs[6];
  const bf16_t* there[6];
  int64_t rows[6] = {T, K, K, K, 1, 1};
  for (int i = 0; i < 6; ++i) {
    std::vector<bf16_t> values = rounded(memory.random(rows[i] * row));
    inputs[i] = widened(values);
    there[i] = values.empty() ? memory.array<bf16_t>(rows[i] * row) : memory.upload(values);
  }
  Operands o{memory.array<bf16_t>(T * row), there[0], there[1], there[2], there[3], there[4], there[5], s};
  float *content = memory.array<float>(s.heads * T * K), *position = memory.array<float>(s.heads * T * K),
        *shifted = memory.array<float>(s.heads * T * K), *lse = memory.array<float>(s.heads * T);
  Device& device = memory.device;
  dim3 pairs(ceil_div(K, 128), T, s.heads), tiles(ceil_div(K, tile), ceil_div(T, tile), s.heads), square(tile, tile);
  dim3 query_tiles(ceil_div(T, tile), s.heads);

  // In memory a pair has 4 bytes, a row of a head 128. Naive: 32 threads share a query's row and have a key's each.
  double all = static_cast<double>(s.heads) * T * K, bytes = 2 * width, out = static_cast<double>(T) * row * 2;
  Walk small(s, tile, 0), large(s, 64, (64 - s.memory % 64) % 64);
  double softmax = 4 * 4 * all, row_tile = tile * bytes;
  std::vector<Step> steps = {
      {"naive", 2 * all * (bytes * 33 / 32 + 4) + all * (2 + 3) * 4 + softmax + all * (bytes + 2 * 4) + out,
       [=] {
         start(product_kernel, pairs, dim3(128), o, content, o.k, o.u, false);
         start(product_kernel, pairs, dim3(128), o, position, o.r, o.v, true);
         start(shift_kernel, pairs, dim3(128), o, shifted, position);
         start(add_kernel, pairs, dim3(128), o, content, content, shifted);
         start(softmax_kernel, dim3(T, s.heads), dim3(32), o, content);
         start(output_kernel, dim3(T, s.heads), dim3(width), o, content);
       }},
      {"tiles", small.pairs * (6 * row_tile + 2 * tile * tile * 4) + softmax + out,
       [=] {
         start(tiled_scores_kernel, tiles, square, o, content);
         start(softmax_kernel, dim3(T, s.heads), dim3(32), o, content);
         start(tiled_output_kernel, query_tiles, square, o, content);
       }},
      {"online softmax", small.pairs * 4 * row_tile + small.rows * 2 * row_tile + out,
       [=] { start(online_kernel, query_tiles, square, o); }},
      {"engine: skew, mma", (large.pairs * 3 + large.rows * 3) * 64 * bytes + out, [=, &device] {
         auto tensor = [&](const bf16_t* data, int64_t count) {
           return ConstTensor(data, Dtype::bf16, {count, 1, s.heads, width});
         };
         auto of_heads = [&](const bf16_t* data) { return ConstTensor(data, Dtype::bf16, {s.heads, width}); };
         device.attention_forward({.out = Tensor(o.out, Dtype::bf16, {T, 1, s.heads, width}),
                                   .lse = Tensor(lse, Dtype::fp32, {1, s.heads, T}),
                                   .q = tensor(o.q, T),
                                   .k = tensor(o.k, K),
                                   .value = tensor(o.value, K),
                                   .r = ConstTensor(o.r, Dtype::bf16, {K, s.heads, width}),
                                   .u = of_heads(o.u),
                                   .v = of_heads(o.v)});
       }}};
  return {fmt::format("relative attention: T={} M={} H={} dh={}", T, s.memory, s.heads, width),
          steps,
          [=, &memory] { memory.write(o.out, std::vector<bf16_t>(T * row, __float2bfloat16_rn(NAN))); },
          [=, &memory] { return widened(memory.download(o.out, T * row)); },
          [=] { return plain(inputs, s); },
          1e-2};
}

}  // namespace longhand::progression
