// What the host refuses: each wrong kernel or launch gives an error that names what, where and who.
#include <string>

#include "tests/simt/fixture.h"

namespace simt_test {
namespace {

/// The error of a launch, which must fail.
template <class... Parameters, class... Arguments>
std::string error_of(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, Arguments&&... arguments) {
  cudaError_t status = simt::launch(kernel, grid, block, shared, nullptr, std::forward<Arguments>(arguments)...);
  CHECK(status != cudaSuccess);
  CHECK(cudaGetLastError() == status);
  CHECK(cudaGetLastError() == cudaSuccess);
  return cudaGetErrorString(status);
}

bool contains(const std::string& text, const std::string& part) {
  if (text.find(part) == std::string::npos) MESSAGE("\"" << text << "\" lacks \"" << part << "\"");
  return text.find(part) != std::string::npos;
}

void two_barriers(int* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    out[0] = 1;
    __syncthreads();
  }
}
void returned_before(int*) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
}
void half_shuffles(int* out) {
  if (threadIdx.x % 32 < 16) out[0] = __shfl_sync(all_lanes, 1, 0);
  __syncthreads();
}
void not_in_mask(int* out) { out[0] = __shfl_sync(0x0000fffeu, 1, 1); }
void lanes_gone(int* out) {
  if (threadIdx.x < 4) return;
  for (int i = 0; i < 2; ++i) out[0] = __shfl_sync(all_lanes, 1, 0);
}
void named_counts_differ(int*) { simt::bar_sync(3, threadIdx.x < 32 ? 64 : 32); }
void named_odd(int*) { simt::bar_sync(1, 40); }
void named_sixteen(int*) { simt::bar_sync(16, 64); }
void copies_left(int* out) {
  SIMT_SHARED_ALIGNED(16, int, box, [4 * 64]);
  simt::cp_async_16(&box[4 * threadIdx.x], out);
}
void copy_misaligned(int* out) {
  SIMT_SHARED_ALIGNED(16, int, box, [64]);
  simt::cp_async_16(&box[0], reinterpret_cast<char*>(out) + 4);
}
void copy_elsewhere(int* out) { simt::cp_async_16(out, out); }
void matrix_misaligned(int* out) {
  SIMT_SHARED_ALIGNED(16, uint16_t, tile, [32 * 9]);
  uint32_t r[4];
  simt::ldmatrix_x4(r, tile + 9 * (threadIdx.x % 32));
  out[0] = r[0];
}
void matrix_elsewhere(int* out) {
  uint32_t r[4];
  simt::ldmatrix_x4(r, out);
}
void matrix_diverges(int*) {
  SIMT_SHARED_ALIGNED(16, uint16_t, tile, [32 * 8]);
  uint32_t r[4];
  if (threadIdx.x % 2)
    simt::ldmatrix_x4(r, tile);
  else
    simt::ldmatrix_x4(r, tile + 8);
}
void too_much_shared(int* out) {
  SIMT_SHARED(int, box, [13 * 1024]);
  out[0] = box[0];
}
void shuffle_width(int* out) { out[0] = __shfl_sync(all_lanes, 1, 0, 12); }
void traps(int*) {
  if (threadIdx.x == 3) __trap();
}
void fine(int* out) { out[threadIdx.x % 16] = 1; }

TEST_CASE("barriers that do not meet") {
  DeviceArray<int> out(16);
  auto divergence = error_of(two_barriers, 1, 64, 0, out.data());
  CHECK(contains(divergence, "barrier divergence"));
  CHECK(contains(divergence, "errors.cpp:"));
  CHECK(contains(divergence, "block (0,0,0) thread (32,0,0)"));
  CHECK(contains(error_of(returned_before, 1, 64, 0, out.data()), "returned"));
  CHECK(contains(error_of(named_counts_differ, 1, 64, 0, out.data()), "others wait there for"));
  CHECK(contains(error_of(named_odd, 1, 64, 0, out.data()), "multiple of 32"));
  CHECK(contains(error_of(named_sixteen, 1, 64, 0, out.data()), "0 to 15"));
}

TEST_CASE("a deadlock says where every thread stands") {
  DeviceArray<int> out(16);
  auto report = error_of(half_shuffles, 1, 64, 0, out.data());
  CHECK(contains(report, "deadlock"));
  CHECK(contains(report, "32 threads at __shfl_sync"));
  CHECK(contains(report, "32 threads at __syncthreads"));
}

TEST_CASE("lanes that are not in the mask, or gone") {
  DeviceArray<int> out(16);
  CHECK(contains(error_of(not_in_mask, 1, 32, 0, out.data()), "not in its mask"));
  CHECK(contains(error_of(lanes_gone, 1, 32, 0, out.data()), "returned"));
  CHECK(contains(error_of(shuffle_width, 1, 32, 0, out.data()), "power of two"));
}

TEST_CASE("asynchronous copies that are misused") {
  DeviceArray<int> out(16);
  CHECK(contains(error_of(copies_left, 1, 64, 0, out.data()), "never waited for"));
  CHECK(contains(error_of(copy_misaligned, 1, 32, 0, out.data()), "16-byte aligned"));
  CHECK(contains(error_of(copy_elsewhere, 1, 32, 0, out.data()), "not in this block's shared memory"));
}

TEST_CASE("ldmatrix that is misused") {
  DeviceArray<int> out(16);
  CHECK(contains(error_of(matrix_misaligned, 1, 32, 0, out.data()), "not 16-byte aligned"));
  CHECK(contains(error_of(matrix_elsewhere, 1, 32, 0, out.data()), "not in this block's shared memory"));
  CHECK(contains(error_of(matrix_diverges, 1, 32, 0, out.data()), "warp divergence"));
}

TEST_CASE("launches that a card refuses") {
  DeviceArray<int> out(16);
  CHECK(contains(error_of(fine, 1, 1025, 0, out.data()), "1 to 1024 threads"));
  CHECK(contains(error_of(fine, dim3(1, 65536), 32, 0, out.data()), "grid"));
  CHECK(contains(error_of(fine, 1, 32, 300 * 1024, out.data()), "dynamic shared memory"));
  CHECK(contains(error_of(too_much_shared, 1, 32, 0, out.data()), "ptxas allows"));
  CHECK(contains(error_of(traps, 1, 32, 0, out.data()), "thread (3,0,0): __trap()"));
}

TEST_CASE("after an error the next launch is sound") {
  DeviceArray<int> out(16);
  error_of(half_shuffles, 4, 64, 0, out.data());
  run(fine, 4, 64, 0, out.data());
  for (int value : out.values()) CHECK(value == 1);
}

}  // namespace
}  // namespace simt_test
