// ldmatrix and mma.sync on the host; ptx/matrix.h has the layouts.
#pragma once
#include <cstdint>
#include <cstring>

#include "shared_memory.h"
#include "warp.h"

namespace simt {

struct MatrixRow {
  alignas(16) uint16_t element[8];
  const void* address;
  uint32_t received[4];
};
template <int pieces, bool transposed>
void distribute_rows(void* const* operands, uint32_t lanes);
void check_row(const void* row, const char* what, Place place);

/// Each lane reads its row itself, so that sanitizers charge the read to that lane and line; what meets is only the
/// exchange of the elements.
template <int pieces, bool transposed>
inline void load_matrix(uint32_t (&r)[pieces], const void* row, const char* what, Place place) {
  MatrixRow operand;
  if (current_thread->lane < 8 * pieces) {
    check_row(row, what, place);
    operand.address = row;
    auto* from = static_cast<const uint16_t*>(row);
    for (int i = 0; i < 8; ++i) operand.element[i] = from[i];
  }
  warp_together(0xffffffffu, distribute_rows<pieces, transposed>, &operand, true, what, place);
  for (int i = 0; i < pieces; ++i) r[i] = operand.received[i];
}

/// A lane's registers; Sum is float or int.
template <class Sum>
struct MultiplyOperand {
  uint32_t a[4], b[2];
  Sum d[4];
};
void multiply_bf16_lanes(void* const* operands, uint32_t lanes);
void multiply_s8_lanes(void* const* operands, uint32_t lanes);

template <class Sum>
inline void multiply(Sum (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, WarpFunction function,
                     const char* what, Place place) {
  MultiplyOperand<Sum> operand{{a[0], a[1], a[2], a[3]}, {b0, b1}, {d[0], d[1], d[2], d[3]}};
  warp_together(0xffffffffu, function, &operand, true, what, place);
  for (int i = 0; i < 4; ++i) d[i] = operand.d[i];
}
inline void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Place place) {
  multiply(d, a, b0, b1, multiply_bf16_lanes, "mma.m16n8k16.bf16", place);
}
inline void multiply_s8(int (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Place place) {
  multiply(d, a, b0, b1, multiply_s8_lanes, "mma.m16n8k32.s8", place);
}

}  // namespace simt
