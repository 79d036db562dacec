// The tensor cores: ldmatrix, which brings 8 x 8 pieces of 16-bit elements from shared memory into the lanes' registers
// in the layout that mma takes, and mma.sync, a product of small matrices by a whole warp.
//
// Layouts, with g = lane / 4 and t = lane % 4; a register holds neighbours, the first in its low bits:
//   ldmatrix        lane 8 m + i gives the address of row i of piece m (16 bytes, 16-byte aligned);
//                   register m of a lane holds row g, columns 2t and 2t + 1 (.trans: rows 2t and 2t + 1 of column g)
//   bf16, k = 16    a0 (g, 2t), a1 (g + 8, 2t), a2 (g, 2t + 8), a3 (g + 8, 2t + 8); b0 (2t, g), b1 (2t + 8, g)
//   s8,   k = 32    a0 (g, 4t), a1 (g + 8, 4t), a2 (g, 4t + 16), a3 (g + 8, 4t + 16); b0 (4t, g), b1 (4t + 16, g)
//   accumulators    d0 (g, 2t), d1 (g, 2t + 1), d2 (g + 8, 2t), d3 (g + 8, 2t + 1)
#pragma once
#include <cstdint>

namespace simt {

/// Four 8 x 8 pieces; all 32 lanes give an address.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void* row SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  load_matrix<4, false>(r, row, "ldmatrix.x4", place);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

/// Two pieces; lanes 0 to 15 give an address.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void* row SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  load_matrix<2, false>(r, row, "ldmatrix.x2", place);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
#endif
}

/// Four pieces, each transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  load_matrix<4, true>(r, row, "ldmatrix.x4.trans", place);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
#endif
}

/// Two pieces, each transposed.
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  load_matrix<2, true>(r, row, "ldmatrix.x2.trans", place);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
#endif
}

/// d [16, 8] += a [16, 16] b [16, 8]; bf16 operands, fp32 sums.
__device__ __forceinline__ void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                               uint32_t b1 SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  multiply_bf16(d, a, b0, b1, place);
#else
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

/// d [16, 8] += a [16, 32] b [32, 8]; int8 operands, int32 sums, exact.
__device__ __forceinline__ void mma_s8_16832(int (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                             uint32_t b1 SIMT_PLACE_PARAMETER) {
#if SIMT_HOST
  multiply_s8(d, a, b0, b1, place);
#else
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}

}  // namespace simt
