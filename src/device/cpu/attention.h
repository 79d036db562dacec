// Relative attention on the CPU: what the launchers of the forward and the backward pass share.
#pragma once

#include <algorithm>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/kernels/attention.h"

namespace longhand::cpu {

/// Sizes of one call, checked against every tensor that both passes have.
struct AttentionSizes {
  int64_t lanes = 0, queries = 0, memory = 0, keys = 0, heads = 0, width = 0, padded = 0, distances = 0, words = 0;
  bool half = false;
};

/// The inputs that both passes have.
struct AttentionInputs {
  const char* operation;
  ConstTensor q, k, value, r, u, v, lse, selected;
  const AttentionMask& mask;
  const AttentionSegments& segments;
  int64_t topk;
  TopkMode topk_mode;
  int64_t first_position;
  const Dropout& dropout;
};

AttentionSizes check_attention(const AttentionInputs& in);
void check_like(const char* operation, const char* name, const ConstTensor& tensor, const Shape& shape, bool half);

/// Floats that u, v, the segment rows and R take once they are packed for all heads, and where each head's lie.
struct AttentionTables {
  float *biases, *rows, *panels, *bounds;                       // of head 0
  int64_t bias_floats, row_floats, panel_floats, bound_floats;  // of one head
  static int64_t floats(const AttentionSizes& s);
};
AttentionTables place_tables(const AttentionSizes& s, float* memory);
/// Packs head h's tables.
void pack_tables(const AttentionInputs& in, const AttentionSizes& s, const AttentionTables& tables, int64_t head);

/// Everything of (lane, head) but the outputs.
AttentionHead head_of(const AttentionInputs& in, const AttentionSizes& s, const AttentionTables& tables, int64_t lane,
                      int64_t head);
/// The rows of (lane, head) in a tensor [positions, lanes, heads, width].
HeadRows rows_of(const ConstTensor& tensor, int64_t lane, int64_t head);

}  // namespace longhand::cpu
