// Streams, events and graphs on the host: work that nothing orders runs in the worst order that a card may choose.
#include <cstring>
#include <numeric>

#include "cuda/simt/host/config.h"
#include "cuda/transfers.h"
#include "tests/simt/fixture.h"

namespace simt_test {
namespace {

#if SIMT_HOST

void add_kernel(int* out, const int* in, int n, int more) {
  int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) out[i] = in[i] + more;
}

/// Streams whose work waits until it is needed, for one test.
struct Late {
  simt::Streams before = simt::config().streams;
  Late() { simt::config().streams = simt::Streams::late; }
  ~Late() { simt::config().streams = before; }
};

/// A host array in pinned memory: a copy from it happens on the stream.
struct Pinned {
  int* data = nullptr;
  explicit Pinned(int count) {
    REQUIRE(cudaMallocHost(&data, count * sizeof(int)) == cudaSuccess);
    std::iota(data, data + count, 0);
  }
  ~Pinned() { cudaFreeHost(data); }
};

struct TwoStreams {
  cudaStream_t compute = nullptr, copy = nullptr;
  cudaEvent_t event = nullptr;
  TwoStreams() {
    REQUIRE(cudaStreamCreate(&compute) == cudaSuccess);
    REQUIRE(cudaStreamCreate(&copy) == cudaSuccess);
    REQUIRE(cudaEventCreate(&event) == cudaSuccess);
  }
  ~TwoStreams() { cudaEventDestroy(event), cudaStreamDestroy(copy), cudaStreamDestroy(compute); }
};

/// What a kernel on one stream leaves of data that came on another.
int last_of_upload(bool waits) {
  Late late;
  TwoStreams s;
  Pinned from(64);
  DeviceArray<int> in(std::vector<int>(64, -100)), out(64);
  cudaMemcpyAsync(in.data(), from.data, 64 * sizeof(int), cudaMemcpyHostToDevice, s.copy);
  cudaEventRecord(s.event, s.copy);
  if (waits) cudaStreamWaitEvent(s.compute, s.event);
  simt::launch(add_kernel, dim3(1), dim3(64), 0, s.compute, out.data(), in.data(), 64, 1);
  cudaStreamSynchronize(s.compute);
  int result = out.values().back();
  cudaDeviceSynchronize();
  return result;
}

TEST_CASE("a kernel that does not wait for the copy of its data runs without it") {
  CHECK(last_of_upload(true) == 64);
  CHECK(last_of_upload(false) == -99);
}

TEST_CASE("a copy to the host that does not wait for the kernel brings what was there before") {
  Late late;
  TwoStreams s;
  for (bool waits : {true, false}) {
    Pinned to(64);
    DeviceArray<int> in(std::vector<int>(64, 5)), out(std::vector<int>(64, 0));
    simt::launch(add_kernel, dim3(1), dim3(64), 0, s.compute, out.data(), in.data(), 64, 1);
    cudaEventRecord(s.event, s.compute);
    if (waits) cudaStreamWaitEvent(s.copy, s.event);
    cudaMemcpyAsync(to.data, out.data(), 64 * sizeof(int), cudaMemcpyDeviceToHost, s.copy);
    CHECK(cudaStreamSynchronize(s.copy) == cudaSuccess);
    CHECK(to.data[63] == (waits ? 6 : 0));
    cudaDeviceSynchronize();
  }
}

TEST_CASE("an event that is recorded again changes nothing for those who wait already") {
  Late late;
  TwoStreams s;
  DeviceArray<int> box(std::vector<int>(1, 0));
  auto add = [&](cudaStream_t stream, int more) {
    simt::launch(add_kernel, dim3(1), dim3(1), 0, stream, box.data(), box.data(), 1, more);
  };
  add(s.copy, 1);
  cudaEventRecord(s.event, s.copy);
  cudaStreamWaitEvent(s.compute, s.event);
  add(s.copy, 10);
  cudaEventRecord(s.event, s.copy);
  add(s.compute, 100);
  cudaStreamSynchronize(s.compute);
  CHECK(box.values()[0] == 101);
  cudaDeviceSynchronize();
  CHECK(box.values()[0] == 111);
}

TEST_CASE("transfers are ordered with the kernels before and after them, whatever their size") {
  using namespace longhand::LONGHAND_GPU;
  for (bool is_late : {false, true}) {
    simt::Streams before = simt::config().streams;
    simt::config().streams = is_late ? simt::Streams::late : simt::Streams::now;
    cudaStream_t compute;
    REQUIRE(cudaStreamCreate(&compute) == cudaSuccess);
    {
      Transfers transfers(compute);
      for (int n : {1, 1000, 40000, 5'000'000}) {
        DeviceArray<int> x(n), y(n);
        std::vector<int> given(n), found_x(n), found_y(n);
        for (int round = 0; round < (n > 100000 ? 2 : 9); ++round) {  // more rounds than slots, all under way at once
          std::iota(given.begin(), given.end(), round);
          transfers.upload(x.data(), given.data(), static_cast<int64_t>(n) * 4);
          std::fill(given.begin(), given.end(), -1);  // the host may change it at once
          if (n <= 100000)
            simt::launch(add_kernel, dim3((n + 255) / 256), dim3(256), 0, compute, y.data(), x.data(), n, 7);
        }
        CHECK(cudaStreamSynchronize(compute) == cudaSuccess);  // the kernels go first where nothing holds them
        int last = n > 100000 ? 1 : 8;
        transfers.download({{found_x.data(), x.data(), static_cast<int64_t>(n) * 4},
                            {found_y.data(), y.data(), n > 100000 ? 0 : static_cast<int64_t>(n) * 4}});
        CHECK(found_x[0] == last);
        CHECK(found_x[n - 1] == last + n - 1);
        if (n <= 100000) CHECK(found_y[n - 1] == last + n - 1 + 7);
      }
    }
    CHECK(cudaStreamDestroy(compute) == cudaSuccess);
    simt::config().streams = before;
  }
}

/// Records out = in + more on the stream.
cudaGraph_t recorded(cudaStream_t stream, int* out, const int* in, int more, bool twice = false) {
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  simt::launch(add_kernel, dim3(1), dim3(64), 0, stream, out, in, 64, more);
  if (twice) simt::launch(add_kernel, dim3(1), dim3(64), 0, stream, out, static_cast<const int*>(out), 64, more);
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  return graph;
}

TEST_CASE("a graph runs when it is launched, with the arguments it was recorded or updated with") {
  TwoStreams s;
  DeviceArray<int> in(std::vector<int>(64, 1)), out(std::vector<int>(64, 0));
  cudaGraph_t first = recorded(s.compute, out.data(), in.data(), 10),
              second = recorded(s.compute, out.data(), in.data(), 20),
              other = recorded(s.compute, out.data(), in.data(), 30, true);
  CHECK(out.values()[0] == 0);
  cudaGraphExec_t ready = nullptr;
  REQUIRE(cudaGraphInstantiate(&ready, first, 0) == cudaSuccess);
  cudaGraphLaunch(ready, s.compute);
  CHECK(out.values()[0] == 11);
  cudaGraphExecUpdateResultInfo result{};
  CHECK(cudaGraphExecUpdate(ready, second, &result) == cudaSuccess);
  CHECK(cudaGraphExecUpdate(ready, other, &result) == cudaErrorGraphExecUpdateFailure);
  cudaGraphLaunch(ready, s.compute);
  CHECK(out.values()[0] == 21);
  for (cudaGraph_t graph : {first, second, other}) cudaGraphDestroy(graph);
  cudaGraphExecDestroy(ready);
}

TEST_CASE("a stream that is recorded takes no wait, no synchronisation, no new memory") {
  TwoStreams s;
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamBeginCapture(s.compute, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  int* memory = nullptr;
  CHECK(cudaMalloc(&memory, 64) == cudaErrorStreamCaptureUnsupported);
  CHECK(cudaStreamSynchronize(s.compute) == cudaErrorStreamCaptureUnsupported);
  cudaEventRecord(s.event, s.copy);
  CHECK(cudaStreamWaitEvent(s.compute, s.event) == cudaErrorStreamCaptureIsolation);
  CHECK(cudaStreamEndCapture(s.compute, &graph) == cudaSuccess);
  cudaGraphDestroy(graph);
}

#endif

}  // namespace
}  // namespace simt_test
