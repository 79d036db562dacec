// Checks of the operations on rings, which every device shares. What lies in position and sequence is not looked at.
#pragma once

#include "longhand/device.h"

namespace longhand {

void check_attention_decode(const AttentionDecode& a);
void check_ring_store(const RingStore& a);
void check_page_bounds(const PageBounds& a);

constexpr int64_t page_rows = 64;
inline int64_t pages_kept(int64_t topk) { return topk <= 2 * page_rows ? 2 : (topk + page_rows - 1) / page_rows; }

}  // namespace longhand
