// Relative attention, step 1 of the progression: every matrix of the textbook in memory, one thread an entry. The other
// steps are in attention.cu; both share the operands here.
#pragma once

#include "bench/progression/harness.h"

namespace longhand::progression {

constexpr int width = 64;

/// Rows of a head lie heads * width apart; matrices [heads, T, K].
struct AttentionSizes {
  int queries, memory, heads;
  __host__ __device__ int keys() const { return queries + memory; }
};
struct AttentionOperands {
  bf16_t* out;
  const bf16_t *q, *k, *value, *r, *u, *v;
  AttentionSizes s;
  __device__ int64_t row(int position, int head) const {
    return (static_cast<int64_t>(position) * s.heads + head) * width;
  }
  __device__ int64_t pair(int head, int query, int column) const {
    return (static_cast<int64_t>(head) * s.queries + query) * s.keys() + column;
  }
};

/// products [heads, T, K] = (q + bias) rows^T; rows are keys, or distances from the largest down.
static __global__ void product_kernel(AttentionOperands o, float* products, const bf16_t* rows, const bf16_t* bias,
                                      bool distances) {
  int column = blockIdx.x * blockDim.x + threadIdx.x, query = blockIdx.y, head = blockIdx.z;
  if (column >= o.s.keys()) return;
  int from = distances ? o.s.keys() - 1 - column : column;
  float sum = 0;
  for (int c = 0; c < width; ++c)
    sum += (to_float(o.q[o.row(query, head) + c]) + to_float(bias[head * width + c])) *
           to_float(rows[o.row(from, head) + c]);
  products[o.pair(head, query, column)] = sum;
}
/// Moves row i left by T - 1 - i, so that distances lie under their keys.
static __global__ void shift_kernel(AttentionOperands o, float* shifted, const float* products) {
  int key = blockIdx.x * blockDim.x + threadIdx.x, query = blockIdx.y, head = blockIdx.z;
  if (key >= o.s.keys()) return;
  int from = key + o.s.queries - 1 - query;
  shifted[o.pair(head, query, key)] = from < o.s.keys() ? products[o.pair(head, query, from)] : 0.0f;
}
static __global__ void add_kernel(AttentionOperands o, float* sum, const float* a, const float* b) {
  int key = blockIdx.x * blockDim.x + threadIdx.x;
  if (key >= o.s.keys()) return;
  int64_t at = o.pair(blockIdx.z, blockIdx.y, key);
  sum[at] = (a[at] + b[at]) * rsqrtf(width);
}
/// One warp a row, three passes over it, in place.
static __global__ void softmax_kernel(AttentionOperands o, float* scores) {
  int query = blockIdx.x, head = blockIdx.y, visible = query + o.s.memory + 1, lane = threadIdx.x;
  float *row = scores + o.pair(head, query, 0), largest = -INFINITY, sum = 0;
  for (int key = lane; key < visible; key += 32) largest = fmaxf(largest, row[key]);
  for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(all_lanes, largest, step));
  for (int key = lane; key < visible; key += 32) sum += expf(row[key] - largest);
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(all_lanes, sum, step);
  for (int key = lane; key < o.s.keys(); key += 32) row[key] = key < visible ? expf(row[key] - largest) / sum : 0.0f;
}
static __global__ void output_kernel(AttentionOperands o, const float* probabilities) {
  int channel = threadIdx.x, query = blockIdx.x, head = blockIdx.y;
  float sum = 0;
  for (int key = 0; key < o.s.keys(); ++key)
    sum += probabilities[o.pair(head, query, key)] * to_float(o.value[o.row(key, head) + channel]);
  o.out[o.row(query, head) + channel] = from_float<bf16_t>(sum);
}

}  // namespace longhand::progression
