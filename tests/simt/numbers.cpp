// bf16, fp16 and the integer functions on the host, against descriptions of their own: the engine's bf16, CUDA's own
// header where it is installed (numbers_cuda.cpp), wide arithmetic, bit by bit loops.
#include <doctest/doctest.h>

#include <random>

#include "cuda/simt/simt.h"
#include "longhand/tensor.h"
#include "tests/simt/numbers_cuda.h"

namespace simt_test {
namespace {

bool nan16(unsigned short bits) { return (bits & 0x7fff) > 0x7f80; }
bool same_bf16(unsigned short a, unsigned short b) { return a == b || (nan16(a) && nan16(b)); }

/// Every upper half of a float's word with the lower halves where rounding turns.
template <class Work>
void for_floats(Work work) {
  for (uint32_t high = 0; high < 65536; ++high)
    for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) work(std::bit_cast<float>(high << 16 | low));
}

TEST_CASE("bf16 rounds as the engine's own") {
  int differ = 0;
  for_floats([&](float f) {
    longhand::bf16 engine(f);
    unsigned short bits;
    std::memcpy(&bits, &engine, 2);
    differ += !same_bf16(__float2bfloat16_rn(f).raw, bits);
  });
  CHECK(differ == 0);
}

TEST_CASE("bf16 rounds and computes as CUDA's header does") {
  if (!cuda_header_present()) return;
  int differ = 0;
  for_floats([&](float f) {
    differ += !same_bf16(__float2bfloat16_rn(f).raw, cuda_round(f));
    differ += !same_bf16(__float2bfloat16_rz(f).raw, cuda_truncate(f));
  });
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000000; ++i) {
    const uint64_t word = random();
    const auto a = static_cast<unsigned short>(word), b = static_cast<unsigned short>(word >> 16);
    const __nv_bfloat16 x = __ushort_as_bfloat16(a), y = __ushort_as_bfloat16(b);
    differ += !same_bf16(__hadd(x, y).raw, cuda_add(a, b)) + !same_bf16(__hmul(x, y).raw, cuda_multiply(a, b));
    const double d = std::bit_cast<double>((random() & 0x800fffffffffffffull) | (873 + random() % 300) << 52);
    differ += !same_bf16(__double2bfloat16(d).raw, cuda_round_double(d));
  }
  CHECK(differ == 0);
}

TEST_CASE("bf16 fma rounds once") {
  std::mt19937_64 random(2);
  int wrong = 0;
  for (int i = 0; i < 300000; ++i) {
    uint64_t word = random();
    auto a = static_cast<unsigned short>(word), b = static_cast<unsigned short>(word >> 16),
         c = static_cast<unsigned short>(word >> 32);
    if (i & 1) {  // near enough to each other that the addend's bits matter
      a = (a & 0x80ff) | 0x3f00, b = (b & 0x80ff) | 0x3f00;
      c = (c & 0x807f) | ((0x3f80 - static_cast<int>(random() % 30) * 128) & 0x7f80);
    }
    auto wide = [](unsigned short bits) {
      return static_cast<__float128>(__bfloat162float(__ushort_as_bfloat16(bits)));
    };
    const __float128 product = wide(a) * wide(b), exact = product + wide(c);
    if (!(exact - exact == 0) || exact - product != wide(c)) continue;  // not finite, or not exact in 113 bits
    const unsigned short got = __hfma(__ushort_as_bfloat16(a), __ushort_as_bfloat16(b), __ushort_as_bfloat16(c)).raw;
    if ((got & 0x7fff) >= 0x7f80) continue;
    auto distance = [&](unsigned short bits) { return exact > wide(bits) ? exact - wide(bits) : wide(bits) - exact; };
    for (int step : {-1, 1}) {
      const auto neighbour = static_cast<unsigned short>(got + step);
      if ((neighbour & 0x7fff) >= 0x7f80 || ((neighbour ^ got) & 0x8000)) continue;
      wrong += distance(neighbour) < distance(got) || (distance(neighbour) == distance(got) && (got & 1));
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("fp16: every value goes to float and back, and the middle between two goes to the even one") {
  int wrong = 0;
  for (unsigned i = 0; i < 65536; ++i) {
    const float f = __half2float(__ushort_as_half(i));
    if (std::isnan(f)) {
      wrong += (__float2half_rn(f).raw & 0x7fff) <= 0x7c00;
      continue;
    }
    wrong += __float2half_rn(f).raw != i;
    if ((i & 0x7fff) >= 0x7bff) continue;
    const float next = __half2float(__ushort_as_half(i + 1)), middle = 0.5f * f + 0.5f * next;
    wrong += __float2half_rn(middle).raw != (i & 1 ? i + 1 : i);
    wrong += __float2half_rn(std::nextafter(middle, f)).raw != i;
    wrong += __float2half_rn(std::nextafter(middle, next)).raw != i + 1;
  }
  CHECK(wrong == 0);
  CHECK(__float2half_rn(65519.0f).raw == 0x7bff);
  CHECK(__float2half_rn(65520.0f).raw == 0x7c00);
  CHECK(__float2half_rn(-1e30f).raw == 0xfc00);
}

TEST_CASE("bits: counted, found, reversed, moved") {
  std::mt19937_64 random(3);
  for (int i = 0; i < 200; ++i) {
    const uint64_t word = i == 0 ? 0 : random() >> random() % 64;
    const auto low = static_cast<unsigned>(word), high = static_cast<unsigned>(word >> 32);
    int count = 0, leading = 0, first = 0;
    uint64_t reversed = 0;
    for (int bit = 63; bit >= 0; --bit) {
      const bool set = word >> bit & 1;
      count += set;
      if (count == 0) ++leading;
      if (set) first = bit + 1, reversed |= 1ull << (63 - bit);
    }
    CHECK(__popcll(word) == count);
    CHECK(__popc(low) + __popc(high) == count);
    CHECK(__clzll(word) == leading);
    CHECK(__ffsll(word) == first);
    CHECK(__brevll(word) == reversed);
    CHECK(__brev(low) == static_cast<unsigned>(reversed >> 32));
    const unsigned shift = i % 40;
    CHECK(__funnelshift_l(low, high, shift) == static_cast<unsigned>(((word << (shift & 31)) >> 32)));
    CHECK(__funnelshift_r(low, high, shift) == static_cast<unsigned>(word >> (shift & 31)));
    CHECK(__umulhi(low, high) == static_cast<unsigned>(static_cast<uint64_t>(low) * high >> 32));
  }
  CHECK(__byte_perm(0x33221100, 0x77665544, 0x7250) == 0x77225500);
  CHECK(__byte_perm(0x00008100, 0, 0x9898) == 0xff00ff00);
  CHECK(__dp4a(0x01ff02fe, 0x0101017f, 10) == 10 + 1 - 1 + 2 - 2 * 127);
}

TEST_CASE("conversions clamp and send NaN to zero") {
  CHECK(__float2int_rn(2.5f) == 2);
  CHECK(__float2int_rz(-2.9f) == -2);
  CHECK(__float2int_rd(-2.1f) == -3);
  CHECK(__float2int_ru(2.1f) == 3);
  CHECK(__float2int_rn(3e9f) == 2147483647);
  CHECK(__float2int_rn(-3e9f) == -2147483647 - 1);
  CHECK(__float2int_rn(NAN) == 0);
  CHECK(__float2uint_rz(-1.0f) == 0u);
  CHECK(__float2uint_rz(5e9f) == 0xffffffffu);
  CHECK(__float2ll_rn(1e30f) == INT64_MAX);
}

TEST_CASE("min and max: the wider or unsigned type of a pair, numbers before NaN") {
  CHECK(min(-1, 1u) == 1u);
  CHECK(max(int64_t(1) << 40, int64_t(3)) == int64_t(1) << 40);
  CHECK(min(uint64_t(1) << 63, uint64_t(3)) == 3);
  CHECK(min(NAN, 1.0f) == 1.0f);
  CHECK(max(2.0f, NAN) == 2.0f);
}

}  // namespace
}  // namespace simt_test
