#include "tests/simt/numbers_cuda.h"

#if __has_include(<cuda_bf16.h>)
#include <cuda_bf16.h>

namespace simt_test {

bool cuda_header_present() { return true; }
unsigned short cuda_round(float f) { return __bfloat16_as_ushort(__float2bfloat16_rn(f)); }
unsigned short cuda_truncate(float f) { return __bfloat16_as_ushort(__float2bfloat16_rz(f)); }
unsigned short cuda_round_double(double d) { return __bfloat16_as_ushort(__double2bfloat16(d)); }
unsigned short cuda_add(unsigned short a, unsigned short b) {
  return __bfloat16_as_ushort(__hadd(__ushort_as_bfloat16(a), __ushort_as_bfloat16(b)));
}
unsigned short cuda_multiply(unsigned short a, unsigned short b) {
  return __bfloat16_as_ushort(__hmul(__ushort_as_bfloat16(a), __ushort_as_bfloat16(b)));
}

}  // namespace simt_test

#else

namespace simt_test {

bool cuda_header_present() { return false; }
unsigned short cuda_round(float) { return 0; }
unsigned short cuda_truncate(float) { return 0; }
unsigned short cuda_round_double(double) { return 0; }
unsigned short cuda_add(unsigned short, unsigned short) { return 0; }
unsigned short cuda_multiply(unsigned short, unsigned short) { return 0; }

}  // namespace simt_test

#endif
