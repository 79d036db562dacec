// Relative attention: what all of its kernels share. One struct of sizes, rows and masks goes to every kernel by value;
// its functions say where a row lies, what a query sees, and which random number belongs to a pair.
//
// A query's visible keys are one range, [first_visible, last_visible]; the selection (top-k) takes keys or pages out of
// it. Pages of 64 keys are aligned to the stream: page p holds the keys from page_begin(p) on, which may be below 0.
#pragma once

#include "cuda/numeric.h"

namespace longhand::LONGHAND_GPU {

constexpr int attention_page = 64;  // keys of a page; queries of a tile of the selection

/// Rows of a tensor with some of the axes position, lane, head before its width; strides in elements, 0 for an axis
/// that the tensor does not have (u, v: the head alone; r: distance and head).
struct HeadRows {
  void* data = nullptr;
  int64_t position_stride = 0, lane_stride = 0, head_stride = 0;

  template <class T>
  __device__ __forceinline__ T* row(int64_t position, int lane, int head) const {
    return static_cast<T*>(data) + position * position_stride + lane * lane_stride + head * head_stride;
  }
};

/// One call. Sizes and strides are checked; every `row` argument is in range.
struct Attention {
  int lanes = 0, heads = 0, queries = 0, memory = 0, keys = 0, width = 0, distances = 0;
  bool half = false;     // the tensors are bf16, else fp32
  bool aligned = false;  // every row of q ... d_value, r, u, v and the segment tables starts at a multiple of 16 bytes,
                         // and a row is a whole number of such pieces
  float sigma = 1;       // 1 / sqrt(width)

  HeadRows q, k, value, out;             // out is written forward, read backward
  HeadRows d_out, d_q, d_k, d_value;     // backward alone
  HeadRows r, u, v;                      // r: position = distance
  HeadRows segment_bias, segment_table;  // the table: position = 0 (same segment) or 1
  float* lse = nullptr;                  // [lanes, heads, queries]

  int max_distance = 0;  // keys - 1 when there is no such limit
  const int32_t* document_start = nullptr;
  int64_t document_position_stride = 0, document_lane_stride = 0;
  const uint8_t *query_ids = nullptr, *key_ids = nullptr;  // null: no segment term
  int64_t query_id_position_stride = 0, query_id_lane_stride = 0, key_id_position_stride = 0, key_id_lane_stride = 0;

  int64_t topk = 0;              // 0: dense
  bool paged = false;            // top-k by pages, else by keys
  uint64_t* selected = nullptr;  // by keys [lanes, heads, queries, words]; by pages [lanes, heads, tiles, words]
  int words = 0;                 // of 64 keys, or of 64 pages
  int page_shift = 0;            // key j lies in page (j + page_shift) / 64; 0 unless `paged`
  DropoutKey dropout;

  __host__ __device__ bool segments() const { return query_ids != nullptr; }
  __device__ __forceinline__ int64_t lane_head(int lane, int head) const {
    return static_cast<int64_t>(lane) * heads + head;
  }
  __device__ __forceinline__ float* lse_row(int lane, int head) const { return lse + lane_head(lane, head) * queries; }

  __host__ __device__ int tiles() const { return (queries + 63) / 64; }
  __host__ __device__ int pages() const { return (page_shift + keys - 1) / attention_page + 1; }
  __host__ __device__ int page_of(int key) const { return (key + page_shift) / attention_page; }
  __host__ __device__ int page_begin(int page) const { return page * attention_page - page_shift; }

  __device__ __forceinline__ int distance(int query, int key) const { return query + memory - key; }
  /// The row of r for a distance of 0 or more.
  __device__ __forceinline__ int r_row(int distance) const { return distance < distances ? distance : distances - 1; }

  __device__ __forceinline__ int last_visible(int query) const { return query + memory; }
  __device__ __forceinline__ int first_visible(int lane, int query) const {
    int first = query + memory - max_distance;
    if (document_start) {
      int start = document_start[query * document_position_stride + lane * document_lane_stride];
      first = first > start ? first : start;
    }
    return first > 0 ? first : 0;
  }

  __device__ __forceinline__ bool same_segment(int lane, int query, int key) const {
    return query_ids[query * query_id_position_stride + lane * query_id_lane_stride] ==
           key_ids[key * key_id_position_stride + lane * key_id_lane_stride];
  }

  /// The selection's words of a query (by keys) or of a tile of 64 queries (by pages).
  __device__ __forceinline__ uint64_t* selected_row(int lane, int head, int row) const {
    int64_t rows = paged ? tiles() : queries;
    return selected + (lane_head(lane, head) * rows + row) * words;
  }
  __device__ __forceinline__ bool page_selected(int lane, int head, int tile, int page) const {
    return selected_row(lane, head, tile)[page / 64] >> (page % 64) & 1;
  }

  /// Dropout's element of a pair; four neighbours from a multiple of 4 on are one block of random numbers.
  __device__ __forceinline__ uint64_t dropout_element(int lane, int head, int query, int key) const {
    return static_cast<uint64_t>(lane_head(lane, head) * queries + query) * static_cast<uint64_t>((keys + 3) / 4 * 4) +
           key;
  }

  __device__ uint32_t visible_keys(int lane, int head, int query, int first) const;
  __device__ uint32_t other_segment_keys(int lane, int query, int first) const;
  __device__ uint32_t kept_by_dropout(int lane, int head, int query, int first, uint32_t wanted) const;
};

/// A score's place in the order in which keys and pages are chosen: of the floats, -0 being 0 and a NaN the largest.
__device__ __forceinline__ uint32_t order_of(float score) {
  if (score != score) return 0xffffffffu;
  uint32_t bits = __float_as_uint(score + 0.0f);  // -0 + 0 is 0
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/// The lowest `count` bits, count clipped to [0, 32].
__device__ __forceinline__ uint32_t low_bits(int count) {
  return count <= 0 ? 0u : count >= 32 ? 0xffffffffu : (1u << count) - 1u;
}

/// Bit b: the query (below `queries`) sees key first + b and the selection keeps it. `first` may be below 0.
__device__ inline uint32_t Attention::visible_keys(int lane, int head, int query, int first) const {
  int begin = first_visible(lane, query) - first, end = last_visible(query) + 1 - first;
  uint32_t bits = low_bits(end) & ~low_bits(begin);
  if (topk == 0 || bits == 0) return bits;
  if (!paged) {
    const uint64_t* row = selected_row(lane, head, query);
    int low = first >= 0 ? first / 64 : -((63 - first) / 64), shift = first - low * 64;
    uint64_t window = low >= 0 ? row[low] >> shift : 0;
    if (shift > 32 && low + 1 < words) window |= row[low + 1] << (64 - shift);
    return bits & static_cast<uint32_t>(window);
  }
  int at = first > 0 ? first : 0, split = page_begin(page_of(at) + 1) - first;  // first key of the next page
  if (!page_selected(lane, head, query / 64, page_of(at))) bits &= ~low_bits(split);
  if (bits & ~low_bits(split) && !page_selected(lane, head, query / 64, page_of(at) + 1)) bits &= low_bits(split);
  return bits;
}

/// Bit b: key first + b, where there is one, lies in another segment than the query.
__device__ inline uint32_t Attention::other_segment_keys(int lane, int query, int first) const {
  uint32_t bits = 0;
  uint8_t own = query_ids[query * query_id_position_stride + lane * query_id_lane_stride];
  for (int b = 0; b < 32; ++b) {
    int key = first + b;
    if (key < 0 || key >= keys) continue;
    bits |= static_cast<uint32_t>(key_ids[key * key_id_position_stride + lane * key_id_lane_stride] != own) << b;
  }
  return bits;
}

/// Bit b: key first + b is one of `wanted` and dropout keeps it. One block of random numbers serves four keys.
__device__ inline uint32_t Attention::kept_by_dropout(int lane, int head, int query, int first, uint32_t wanted) const {
  uint32_t bits = 0;
  int phase = first & 3;
#pragma unroll 1
  for (int b = -phase; b < 32; b += 4) {
    uint32_t four = b < 0 ? wanted << -b & 15u : wanted >> b & 15u;
    if (!four) continue;
    PhiloxBlock random = dropout.stream.block(dropout_element(lane, head, query, first + b) >> 2);
    uint32_t kept = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) kept |= static_cast<uint32_t>(random.word[i] >= dropout.threshold) << i;
    kept &= four;
    bits |= b < 0 ? kept >> -b : kept << b;
  }
  return bits;
}

/// Checks a call and gathers it.
Attention check_attention(const AttentionForward& call);
Attention check_attention(const AttentionBackward& call);

/// What the tensor-core path takes: bf16, `aligned`, a width that is a multiple of 8 up to 128.
bool attention_mma_takes(const Attention& a);
/// Backward also wants the shared memory: at widths above 64 a block takes more than sm_120 gives one.
bool attention_backward_mma_takes(const Attention& a);

}  // namespace longhand::LONGHAND_GPU
