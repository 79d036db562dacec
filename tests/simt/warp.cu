// Shuffles, votes and reductions, each against what its definition says of every lane.
#include "tests/simt/fixture.h"

namespace simt_test {
namespace {

__global__ void shuffle_kernel(int* out, int width, int by) {
  const int lane = threadIdx.x;
  out[lane] = __shfl_sync(all_lanes, lane, by, width);
  out[32 + lane] = __shfl_xor_sync(all_lanes, lane, by, width);
  out[64 + lane] = __shfl_down_sync(all_lanes, lane, by, width);
  out[96 + lane] = __shfl_up_sync(all_lanes, lane, by, width);
}

TEST_CASE("shuffles move what their definition says, in every width") {
  for (int width : {1, 2, 4, 8, 16, 32})
    for (int by : {0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31}) {
      DeviceArray<int> out(128);
      run(shuffle_kernel, 1, 32, 0, out.data(), width, by);
      auto got = out.values();
      for (int lane = 0; lane < 32; ++lane) {
        CAPTURE(width);
        CAPTURE(by);
        CAPTURE(lane);
        const int segment = lane / width, first = segment * width, place = lane % width;
        CHECK(got[lane] == first + by % width);
        CHECK(got[32 + lane] == ((lane ^ by) / width > segment ? lane : (lane ^ by)));
        CHECK(got[64 + lane] == (place + by < width ? lane + by : lane));
        CHECK(got[96 + lane] == (place >= by ? lane - by : lane));
      }
    }
}

__global__ void shuffle_types_kernel(double* doubles, unsigned long long* words, float* floats, __nv_bfloat16* halves) {
  const int lane = threadIdx.x;
  doubles[lane] = __shfl_xor_sync(all_lanes, 0.1 * lane, 1);
  words[lane] = __shfl_down_sync(all_lanes, 0x100000001ull * lane, 4);
  floats[lane] = __shfl_sync(all_lanes, -0.5f * lane, 31 - lane);
  halves[lane] = __shfl_up_sync(all_lanes, __float2bfloat16_rn(lane), 1);
}

TEST_CASE("shuffles keep every bit of 2, 4 and 8 bytes") {
  DeviceArray<double> doubles(32);
  DeviceArray<unsigned long long> words(32);
  DeviceArray<float> floats(32);
  DeviceArray<__nv_bfloat16> halves(32);
  run(shuffle_types_kernel, 1, 32, 0, doubles.data(), words.data(), floats.data(), halves.data());
  for (int lane = 0; lane < 32; ++lane) {
    CHECK(doubles.values()[lane] == 0.1 * (lane ^ 1));
    CHECK(words.values()[lane] == 0x100000001ull * (lane + 4 < 32 ? lane + 4 : lane));
    CHECK(floats.values()[lane] == -0.5f * (31 - lane));
    CHECK(__bfloat162float(halves.values()[lane]) == (lane ? lane - 1 : 0));
  }
}

__global__ void vote_kernel(unsigned* out, unsigned pattern) {
  const int lane = threadIdx.x;
  const int holds = pattern >> lane & 1;
  out[lane] = __ballot_sync(all_lanes, holds * 5);
  out[32 + lane] = __any_sync(all_lanes, holds) + 2 * __all_sync(all_lanes, holds);
  out[64 + lane] = __match_any_sync(all_lanes, lane % 5);
}

TEST_CASE("votes see every lane") {
  for (unsigned pattern : {0u, 1u, 0x80000000u, 0xdeadbeefu, 0xfffffffeu, 0xffffffffu}) {
    DeviceArray<unsigned> out(96);
    run(vote_kernel, 1, 32, 0, out.data(), pattern);
    auto got = out.values();
    for (int lane = 0; lane < 32; ++lane) {
      unsigned equal = 0;
      for (int other = lane % 5; other < 32; other += 5) equal |= 1u << other;
      CHECK(got[lane] == pattern);
      CHECK(got[32 + lane] == (pattern != 0 ? 1u : 0u) + (pattern == all_lanes ? 2u : 0u));
      CHECK(got[64 + lane] == equal);
    }
  }
}

__global__ void reduce_kernel(int* out, unsigned* bits) {
  const int lane = threadIdx.x, value = lane * 7 % 32 - 16;
  const unsigned word = 1u << lane | 0x00010001u * lane;
  out[lane] = __reduce_add_sync(all_lanes, value);
  out[32 + lane] = __reduce_min_sync(all_lanes, value);
  out[64 + lane] = __reduce_max_sync(all_lanes, value);
  bits[lane] = __reduce_and_sync(all_lanes, ~word);
  bits[32 + lane] = __reduce_or_sync(all_lanes, word);
  bits[64 + lane] = __reduce_xor_sync(all_lanes, word);
  bits[96 + lane] = __reduce_max_sync(all_lanes, word);
}

TEST_CASE("reductions over signed and unsigned words") {
  DeviceArray<int> out(96);
  DeviceArray<unsigned> bits(128);
  run(reduce_kernel, 1, 32, 0, out.data(), bits.data());
  unsigned all = all_lanes, any = 0, odd = 0, largest = 0;
  for (int lane = 0; lane < 32; ++lane) {
    const unsigned word = 1u << lane | 0x00010001u * lane;
    all &= ~word, any |= word, odd ^= word, largest = word > largest ? word : largest;
  }
  for (int lane = 0; lane < 32; ++lane) {
    CHECK(out.values()[lane] == -16);  // -16 .. 15, each once
    CHECK(out.values()[32 + lane] == -16);
    CHECK(out.values()[64 + lane] == 15);
    CHECK(bits.values()[lane] == all);
    CHECK(bits.values()[32 + lane] == any);
    CHECK(bits.values()[64 + lane] == odd);
    CHECK(bits.values()[96 + lane] == largest);
  }
}

__global__ void halves_kernel(int* out) {
  const int lane = threadIdx.x % 32;
  if (lane < 16)
    out[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, lane, 1);
  else
    out[threadIdx.x] = __reduce_add_sync(0xffff0000u, lane);
  out[threadIdx.x] += 1000 * __shfl_sync(all_lanes, lane, 20);
}

TEST_CASE("parts of a warp may be at different operations and meet again") {
  DeviceArray<int> out(64);
  run(halves_kernel, 1, 64, 0, out.data());
  for (int i = 0; i < 64; ++i) CHECK(out.values()[i] == 20000 + (i % 32 < 16 ? (i % 32 ^ 1) : 376));
}

__global__ void partial_kernel(int* out) {
  const unsigned mask = __ballot_sync(all_lanes, 1);
  out[threadIdx.x] = __reduce_add_sync(mask, 1);
}

TEST_CASE("the last warp of a block may have fewer than 32 lanes") {
  DeviceArray<int> out(40);
  run(partial_kernel, 1, 40, 0, out.data());
  for (int i = 0; i < 40; ++i) CHECK(out.values()[i] == (i < 32 ? 32 : 8));
}

}  // namespace
}  // namespace simt_test
