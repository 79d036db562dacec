// Exact top-k: choosing the keys of one row of scores, and the products over chosen keys alone.
#pragma once

#include "src/device/cpu/kernels/attention_tile.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

/// The `keep` largest of scores[0..n), the later one among equals; -0 counts as 0 and NaN as larger than everything.
/// Writes their indices, ascending, and returns how many there are, min(keep, n). list is written up to 64 entries
/// beyond; scores are turned into ordered integers, `lanes` entries beyond n are overwritten.
int64_t select_largest(float* scores, int64_t n, int64_t keep, int32_t* list);
/// The score that stands behind an ordered integer.
LONGHAND_INLINE float score_of(float ordered) {
  int32_t x;
  __builtin_memcpy(&x, &ordered, 4);
  x ^= (x >> 31) & 0x7fffffff;
  __builtin_memcpy(&ordered, &x, 4);
  return ordered;
}

/// out [padded] = sum_t weight[t] * rows[list[t]].
void weighted_rows(float* out, const float* weight, const int32_t* list, int64_t n, const float* rows, int64_t padded);

/// What a query adds through the keys that it chose in one block.
struct SparseRow {
  const int32_t* list;  // keys relative to key_rows, value_rows, d_k, d_value
  int64_t n;
  int64_t distance;  // of entry 0 of those: entry t lies at distance - t
  const float *qu, *qv, *d_out, *key_rows, *value_rows, *r;
  float *d_k, *d_value, *d_r;  // d_r, r: row d
  float *dq_content, *dq_position;
  float *s, *dp;  // room for n + lanes
  int64_t padded;
};
/// s[t] = qu . k + qv . r;  dp[t] = d_out . value
void sparse_products(const SparseRow&);
/// With ds in s and the weights of d_value in dp: every gradient += its sum.
void sparse_gradients(const SparseRow&);

}  // namespace attention
}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
