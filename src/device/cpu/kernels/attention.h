// Relative attention: what the launchers in src/device/cpu/attention*.cpp hand to the kernels. Plain numbers only, one
// head of one lane at a time.
//
// Scores of one query tile are held as rows of keys (queries down, keys across). With R read backwards, the position
// term of row i is a row of G = (Q + v) R^T moved by i places: it is written where it belongs by giving the output of
// the product a row stride of (leading dimension + 1), and read back for the gradients in the same way. The shift thus
// costs nothing, and a block of G serves two neighbouring tiles of keys.
#pragma once

#include <cstdint>

#include "src/device/cpu/kernels/isa.h"

namespace longhand::cpu {

/// Keys (and distances) are packed in panels of 32, pages and tiles of keys hold 64.
constexpr int64_t attention_panel = 32, attention_page = 64;
/// Rows of R beyond the longest distance that tiles at the edges touch.
constexpr int64_t attention_r_margin = 192;

/// Row i of one head lies at data + i * stride elements.
struct HeadRows {
  void* data = nullptr;
  int64_t stride = 0;
};

struct HeadDropout {
  uint32_t threshold = 0;  // 0: none
  float scale = 1;
  uint64_t seed = 0;
  uint32_t word1 = 0, word2 = 0, word3 = 0;  // the counter's constant words; the block's bits 32..47 join word1
  uint64_t first = 0;                        // element of (query 0, key 0)
  uint64_t row = 0;                          // elements from one query to the next
};

/// One head of one lane. `padded` is width rounded up to 16; fp32 rows in scratch have that length, zero-filled.
struct AttentionHead {
  int64_t queries, memory, keys, width, padded;
  bool half;  // storage is bf16
  HeadRows q, k, value, out, d_out, d_q, d_k, d_value;
  float* lse;                         // [queries]
  float sigma;                        // 1 / sqrt(width)
  const float *u, *v, *w, *segments;  // [padded] each, segments [2, padded]; w null: no segment term
  const float* r;                     // [keys + margin, padded], clamped
  const float* r_panels;              // panel e: distances 32 e + phase - 32 ... + 31, descending, [width, 32]
  const float* r_bounds;              // [pages of distances, 2 padded]: minima, maxima
  int64_t phase;                      // (memory + shift) % 32
  int64_t shift;                      // key j lies in tile (j + shift) / 64
  int64_t max_distance;               // -1: none
  const int32_t* document_start;      // null: none
  int64_t document_stride;
  const uint8_t *query_ids, *key_ids;
  int64_t query_id_stride, key_id_stride;
  HeadDropout dropout;
  int64_t topk;        // 0: dense
  bool pages;          // block selection
  uint64_t* selected;  // exact: [queries, words]; block: [tiles of 64 queries, words]
  int64_t words;
};

/// What one task of the backward pass adds to. All fp32, rows of `padded`.
struct AttentionGradients {
  float *d_k, *d_value;                                // key j at row j + shift; [64-rounded keys + shift, padded]
  float* d_r;                                          // [keys + margin, padded]
  float *d_u, *d_v, *d_segment_bias, *d_segment_rows;  // [padded], the last [2, padded]
};

/// How a head's R is laid out for the kernels.
struct AttentionPosition {
  const void* r;  // distance d at r + d * stride
  int64_t stride, distances, keys, width, padded, phase;
  bool half;
  float *rows, *panels, *bounds;  // bounds null: not wanted
};

struct AttentionKernels {
  void (*pack_position)(const AttentionPosition&);
  /// Floats of scratch that a call needs.
  int64_t (*forward_scratch)(const AttentionHead&);
  int64_t (*backward_scratch)(const AttentionHead&);
  /// Queries [first, last); first is a multiple of 64.
  void (*forward)(const AttentionHead&, int64_t first, int64_t last, float* scratch);
  void (*backward)(const AttentionHead&, int64_t first, int64_t last, const AttentionGradients&, float* scratch);
  void (*to_float)(float* out, const void* in, bool half, int64_t n);
  /// The first `count` rows from fp32 rows of `padded`; the head gives width and type.
  void (*write_rows)(const AttentionHead&, HeadRows to, int64_t count, const float* from);
  void (*add)(float* to, const float* from, int64_t n);
};
LONGHAND_DECLARE_KERNELS(AttentionKernels, attention_kernels)

}  // namespace longhand::cpu
