// Decoding attention: what its kernels are given, and where the keys of a query and head lie.
#pragma once

#include "cuda/numeric.h"

namespace longhand::LONGHAND_GPU {

/// Rows of a ring [S, slots, H, dh], of a table [rows, H, dh] (sequence 0) or of numbers [.., H]; strides in elements.
struct DecodeRows {
  const void* data;
  int64_t sequence, row, head;

  template <class T>
  __device__ __forceinline__ const T* of(int64_t at_sequence, int64_t at_head) const {
    return static_cast<const T*>(data) + at_sequence * sequence + at_head * head;
  }
};

/// Distances [first, first + count) from a query.
struct DecodeRun {
  int first, count;
};

struct Decode {
  const void *q, *u, *v;
  void* out;
  bool half;  // q, u, v and out are bf16
  DecodeRows keys, values, r, key_scales, value_scales, r_scales, key_bounds, r_bounds;
  const int64_t* position;
  const int32_t* sequence;
  int64_t out_row, out_head, q_row, q_head, u_head, v_head;
  int64_t sequences;
  int slots, window, distances, groups, topk, split, splits;
  int heads, width, group;  // group: lanes that share a row, a power of two
  bool pages;               // a split is a page that the query keeps
  float sigma;
  float* partial;   // [N, H, splits, 2 + width]: largest score, sum, weighted values
  float* scores;    // [N, H, window], top-k
  float* weights;   // [N, H, topk]
  int32_t* chosen;  // [N, H, topk]: distances
  DecodeRun* runs;  // [N, H, splits], pages
  float* bounds;    // [N, H, 2, most_pages], pages: of pages, of groups of distances
  int64_t most_pages;
  unsigned long long* fault;

  __device__ __forceinline__ float load(const void* from, int64_t at) const {
    return half ? to_float(static_cast<const bf16_t*>(from)[at]) : static_cast<const float*>(from)[at];
  }
  __device__ __forceinline__ void store(int64_t at, float x) const {
    if (half)
      static_cast<bf16_t*>(out)[at] = from_float<bf16_t>(x);
    else
      static_cast<float*>(out)[at] = x;
  }
};

/// The query and head of a block. A query that is nowhere in the rings sees nothing.
struct DecodePlace {
  int64_t position;
  int row, head, sequence, visible, newest_slot;

  __device__ __forceinline__ DecodePlace(const Decode& a, int row, int head) : row(row), head(head) {
    position = a.position[row], sequence = a.sequence[row];
    if (position < 0 || sequence < 0 || sequence >= a.sequences) position = -1, sequence = 0;
    visible = position + 1 < a.window ? static_cast<int>(position + 1) : a.window;
    newest_slot = static_cast<int>(position % a.slots);
  }
  __device__ __forceinline__ int64_t pair(const Decode& a) const { return static_cast<int64_t>(row) * a.heads + head; }
  __device__ __forceinline__ int slot(const Decode& a, int distance) const {
    int slot = newest_slot - distance;
    return slot < 0 ? slot + a.slots : slot;
  }
  __device__ __forceinline__ int64_t newest_page() const { return position / 64; }
  __device__ __forceinline__ int64_t oldest_page() const { return (position - visible + 1) / 64; }
  __device__ __forceinline__ int64_t pages() const { return newest_page() - oldest_page() + 1; }
};

/// query[0] = (q + u) / sqrt(dh), query[1] = (q + v) / sqrt(dh), each padded with zeros to `padded` columns.
__device__ __forceinline__ void load_query(const Decode& a, const DecodePlace& at, float* query, int padded) {
  int64_t q = at.row * a.q_row + at.head * a.q_head;
  for (int c = threadIdx.x; c < padded; c += blockDim.x) {
    float x = c < a.width ? a.load(a.q, q + c) : 0.0f;
    query[c] = c < a.width ? (x + a.load(a.u, at.head * a.u_head + c)) * a.sigma : 0.0f;
    query[padded + c] = c < a.width ? (x + a.load(a.v, at.head * a.v_head + c)) * a.sigma : 0.0f;
  }
}

}  // namespace longhand::LONGHAND_GPU
