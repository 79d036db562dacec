// Fragments of ldmatrix and mma.sync, position by position: each test writes down where the programming manual's
// figures put an element (row, column -> lane, register, part), and this file shares no expression with
// cuda/simt/host/matrix.cpp.
#include "tests/simt/fixture.h"

namespace simt_test {
namespace {

template <bool transposed>
__global__ void load_matrix_kernel(uint32_t* four, uint32_t* two) {
  SIMT_SHARED_ALIGNED(16, uint16_t, tile, [32 * 8]);  // four pieces of 8 x 8, element (piece, row, column) = its number
  for (int i = threadIdx.x; i < 32 * 8; i += 32) tile[i] = i;
  __syncthreads();
  uint32_t x4[4], x2[2];
  const void* row = tile + 8 * threadIdx.x;
  if constexpr (transposed) {
    simt::ldmatrix_x4_trans(x4, row);
    simt::ldmatrix_x2_trans(x2, row);
  } else {
    simt::ldmatrix_x4(x4, row);
    simt::ldmatrix_x2(x2, row);
  }
  for (int i = 0; i < 4; ++i) four[4 * threadIdx.x + i] = x4[i];
  for (int i = 0; i < 2; ++i) two[2 * threadIdx.x + i] = x2[i];
}

TEST_CASE("ldmatrix: every element of every piece is where the manual puts it") {
  for (bool transposed : {false, true}) {
    DeviceArray<uint32_t> four(128), two(64);
    run(transposed ? load_matrix_kernel<true> : load_matrix_kernel<false>, 1, 32, 0, four.data(), two.data());
    auto x4 = four.values(), x2 = two.values();
    for (int piece = 0; piece < 4; ++piece)
      for (int row = 0; row < 8; ++row)
        for (int column = 0; column < 8; ++column) {
          // The manual's table: thread = 4 row + column / 2, the even column in the lower half; .trans swaps the roles.
          const int r = transposed ? column : row, c = transposed ? row : column;
          const int lane = 4 * r + c / 2, shift = c % 2 ? 16 : 0, number = 64 * piece + 8 * row + column;
          CHECK(static_cast<int>(x4[4 * lane + piece] >> shift & 0xffff) == number);
          if (piece < 2) CHECK(static_cast<int>(x2[2 * lane + piece] >> shift & 0xffff) == number);
        }
  }
}

__global__ void multiply_bf16_kernel(float* out, const uint32_t* a, const uint32_t* b, const float* c) {
  uint32_t fragment[4];
  float sum[4];
  for (int i = 0; i < 4; ++i) fragment[i] = a[4 * threadIdx.x + i], sum[i] = c[4 * threadIdx.x + i];
  simt::mma_bf16_16816(sum, fragment, b[2 * threadIdx.x], b[2 * threadIdx.x + 1]);
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = sum[i];
}

__global__ void multiply_s8_kernel(int* out, const uint32_t* a, const uint32_t* b, const int* c) {
  uint32_t fragment[4];
  int sum[4];
  for (int i = 0; i < 4; ++i) fragment[i] = a[4 * threadIdx.x + i], sum[i] = c[4 * threadIdx.x + i];
  simt::mma_s8_16832(sum, fragment, b[2 * threadIdx.x], b[2 * threadIdx.x + 1]);
  for (int i = 0; i < 4; ++i) out[4 * threadIdx.x + i] = sum[i];
}

/// Where an element lies: register `word` of all lanes' registers laid end to end, `bits` bits from bit `shift`.
struct Spot {
  int word, shift;
};

// The manual gives, for lane L and element i of a fragment, its row and column; these run over lanes and elements and
// note where each (row, column) was met.
struct Layout {
  std::vector<Spot> spot;
  int columns;
  Layout(int rows, int columns_) : spot(rows * columns_, Spot{-1, 0}), columns(columns_) {}
  Spot at(int row, int column) const { return spot[row * columns + column]; }
  void note(int row, int column, Spot s) {
    CHECK(spot[row * columns + column].word == -1);  // each position once
    spot[row * columns + column] = s;
  }
};

Layout bf16_a() {
  Layout layout(16, 16);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 8; ++i) {
      const int group = lane >> 2, in_group = lane % 4;
      const int row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
      const int column = i < 4 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
      layout.note(row, column, {4 * lane + i / 2, i % 2 * 16});
    }
  return layout;
}
Layout bf16_b() {
  Layout layout(16, 8);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i) {
      const int in_group = lane % 4, row = i < 2 ? in_group * 2 + (i & 1) : in_group * 2 + (i & 1) + 8;
      layout.note(row, lane >> 2, {2 * lane + i / 2, i % 2 * 16});
    }
  return layout;
}
Layout s8_a() {
  Layout layout(16, 32);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 16; ++i) {
      const int group = lane >> 2, in_group = lane % 4;
      const int row = (i < 4 || (i >= 8 && i < 12)) ? group : group + 8;
      const int column = i < 8 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16;
      layout.note(row, column, {4 * lane + i / 4, i % 4 * 8});
    }
  return layout;
}
Layout s8_b() {
  Layout layout(32, 8);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 8; ++i) {
      const int in_group = lane % 4, row = i < 4 ? in_group * 4 + (i & 3) : in_group * 4 + (i & 3) + 16;
      layout.note(row, lane >> 2, {2 * lane + i / 4, i % 4 * 8});
    }
  return layout;
}
Layout sums() {
  Layout layout(16, 8);
  for (int lane = 0; lane < 32; ++lane)
    for (int i = 0; i < 4; ++i)
      layout.note(i < 2 ? lane >> 2 : (lane >> 2) + 8, lane % 4 * 2 + (i & 1), {4 * lane + i, 0});
  return layout;
}

uint32_t one_of(bool bf16) { return bf16 ? 0x3f80u : 1u; }

/// A single 1 in A and a single 1 in B: their product is a single 1 in the sums, or nothing.
template <class Sum>
void check_layout(void (*kernel)(Sum*, const uint32_t*, const uint32_t*, const Sum*), const Layout& a, const Layout& b,
                  int depth, bool bf16) {
  const Layout c = sums();
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < depth; ++k) {
      std::vector<uint32_t> a_words(128, 0), b_words(64, 0);
      std::vector<Sum> c_words(128, 0);
      a_words[a.at(row, k).word] = one_of(bf16) << a.at(row, k).shift;
      for (int column = 0; column < 8; ++column)  // row k of B is 1 .. 8, every other row is 100 or infinite
        for (int other = 0; other < depth; ++other) {
          const Spot at = b.at(other, column);
          const uint32_t value = bf16
                                     ? (other == k ? __bfloat16_as_ushort(__float2bfloat16_rn(column + 1.0f)) : 0x42c8u)
                                     : (other == k ? column + 1 : 100);
          b_words[at.word] |= value << at.shift;
        }
      c_words[c.at(row, 3).word] = 1000;
      DeviceArray<uint32_t> device_a(a_words), device_b(b_words);
      DeviceArray<Sum> device_c(c_words), out(128);
      run(kernel, 1, 32, 0, out.data(), device_a.data(), device_b.data(), device_c.data());
      auto got = out.values();
      for (int i = 0; i < 16; ++i)
        for (int column = 0; column < 8; ++column)
          CHECK(got[c.at(i, column).word] == (i == row ? column + 1 + (column == 3 ? 1000 : 0) : 0));
    }
}

TEST_CASE("mma bf16: every position of a, b and the sums") {
  check_layout(multiply_bf16_kernel, bf16_a(), bf16_b(), 16, true);
}
TEST_CASE("mma s8: every position of a, b and the sums") {
  check_layout(multiply_s8_kernel, s8_a(), s8_b(), 32, false);
}

TEST_CASE("mma s8 is exact at its largest sums") {
  DeviceArray<uint32_t> a(std::vector<uint32_t>(128, 0x80808080u)), b(std::vector<uint32_t>(64, 0x80808080u));
  DeviceArray<int> c(std::vector<int>(128, 7)), out(128);
  run(multiply_s8_kernel, 1, 32, 0, out.data(), a.data(), b.data(), c.data());
  for (int sum : out.values()) CHECK(sum == 32 * 128 * 128 + 7);
}

}  // namespace
}  // namespace simt_test
