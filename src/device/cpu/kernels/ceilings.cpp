// Independent chains of one instruction, enough of them to hide its latency: the rate at which it can be issued.
#include "src/device/cpu/kernels/ceilings.h"

#include "src/device/cpu/kernels/simd.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace {

constexpr int chains = 24;

// The operands are made opaque, so that the chains cannot be shortened.
LONGHAND_INLINE vec opaque(float x) {
  vec value = splat(x);
  asm("" : "+x"(value));
  return value;
}

LONGHAND_INLINE float total(const vec (&c)[chains]) {
  vec all = c[0];
#pragma GCC unroll 24
  for (int i = 1; i < chains; ++i) all = all + c[i];
  return sum(all);
}

float fma(int64_t rounds) {
  vec c[chains], a = opaque(0.999f), b = opaque(1e-3f);
#pragma GCC unroll 24
  for (int i = 0; i < chains; ++i) c[i] = splat(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 24
    for (int i = 0; i < chains; ++i) c[i] = c[i] * a + b;
  return total(c);
}

#if defined(__AVX512F__)
constexpr int64_t dot_operations = chains * lanes * 4;
float dot(int64_t rounds) {
  vec c[chains], a = opaque(0x1.067506p-10f), b = a;  // both halves of a word are ordinary numbers
#pragma GCC unroll 24
  for (int i = 0; i < chains; ++i) c[i] = splat(static_cast<float>(i));
  for (int64_t round = 0; round < rounds; ++round)
#pragma GCC unroll 24
    for (int i = 0; i < chains; ++i) asm("vdpbf16ps %2, %1, %0" : "+v"(c[i]) : "v"(a), "v"(b));
  return total(c);
}
#else
constexpr int64_t dot_operations = 0;
float dot(int64_t) { return 0; }
#endif

float read(const float* from, int64_t count) {
  vec c[8] = {};
  for (int64_t at = 0; at < count; at += 8 * lanes)
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) c[i] = (vec)((ivec)c[i] | (ivec)load(from + at + i * lanes));
  vec all = c[0];
  for (int i = 1; i < 8; ++i) all = (vec)((ivec)all | (ivec)c[i]);
  return sum(all);
}

}  // namespace
}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(CeilingKernels, ceiling_kernels) = {chains * lanes * 2, dot_operations, fma, dot, read};

}  // namespace longhand::cpu
