#include "streams.h"

#include <chrono>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "config.h"

struct simt_graph {
  std::vector<simt::Work> work;
};
struct simt_graph_exec {
  std::shared_ptr<const simt_graph> graph;
};
struct simt_stream {
  std::deque<simt::Work> waiting;
  uint64_t given = 0, done = 0;  // pieces of work so far
  simt_graph* recorded = nullptr;
};
struct simt_event {
  std::chrono::steady_clock::time_point at;
  std::shared_ptr<simt_stream> stream;  // where it was last recorded, after so much work
  uint64_t after = 0;
};

namespace simt {
namespace {

// One thread at a time uses streams; what it runs may put work on others.
std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;

std::map<cudaStream_t, std::shared_ptr<simt_stream>>& streams() {
  static auto* all = new std::map<cudaStream_t, std::shared_ptr<simt_stream>>;
  return *all;
}
std::map<char*, size_t>& pinned() {
  static auto* all = new std::map<char*, size_t>;
  return *all;
}

bool is_pinned(const void* memory) {
  auto* at = static_cast<char*>(const_cast<void*>(memory));
  auto next = pinned().upper_bound(at);
  if (next == pinned().begin()) return false;
  --next;
  return at < next->first + next->second;
}

/// Runs a stream's work until so much of it is done; the first error of what ran.
cudaError_t run_until(simt_stream& stream, uint64_t count) {
  if (stream.recorded) return cudaErrorStreamCaptureUnsupported;
  cudaError_t first = cudaSuccess;
  while (stream.done < count && !stream.waiting.empty()) {
    Work work = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    ++stream.done;
    cudaError_t status = work.run();
    if (first == cudaSuccess) first = status;
  }
  return first;
}

template <int>
const void* kind() {
  static const char place = 0;
  return &place;
}
enum { record_kind = 16, wait_kind, graph_kind, set_kind, copy_kind };

}  // namespace

cudaError_t put(cudaStream_t stream, Work work) {
  Lock lock(mutex);
  if (!stream) return work.run();
  if (stream->recorded) {
    stream->recorded->work.push_back(std::move(work));
    return cudaSuccess;
  }
  ++stream->given;
  if (config().streams == Streams::late) {
    stream->waiting.push_back(std::move(work));
    return cudaSuccess;
  }
  ++stream->done;
  return work.run();
}

bool a_stream_is_recorded() {
  Lock lock(mutex);
  for (auto& [stream, shared] : streams())
    if (stream->recorded) return true;
  return false;
}

cudaError_t run_everything() {
  Lock lock(mutex);
  cudaError_t first = cudaSuccess;
  for (auto& [stream, shared] : streams()) {
    cudaError_t status = stream->recorded ? cudaSuccess : run_until(*stream, stream->given);
    if (first == cudaSuccess) first = status;
  }
  return first;
}

cudaError_t pinned_allocate(void** memory, size_t bytes) {
  Lock lock(mutex);
  *memory = std::malloc(bytes ? bytes : 1);
  if (!*memory) return cudaErrorMemoryAllocation;
  pinned()[static_cast<char*>(*memory)] = bytes;
  return cudaSuccess;
}

}  // namespace simt

using simt::Lock;

cudaError_t cudaFreeHost(void* memory) {
  simt::run_everything();
  Lock lock(simt::mutex);
  if (!simt::pinned().erase(static_cast<char*>(memory))) return cudaErrorInvalidValue;
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Lock lock(simt::mutex);
  auto made = std::make_shared<simt_stream>();
  *stream = made.get();
  simt::streams()[*stream] = made;
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Lock lock(simt::mutex);
  cudaError_t status = cudaStreamSynchronize(stream);
  return simt::streams().erase(stream) ? status : cudaErrorInvalidValue;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(simt::mutex);
  if (!stream) return cudaGetLastError();
  cudaError_t status = simt::run_until(*stream, stream->given);
  cudaError_t earlier = cudaGetLastError();
  return status != cudaSuccess ? status : earlier;
}

cudaError_t cudaDeviceSynchronize() {
  cudaError_t status = simt::run_everything(), earlier = cudaGetLastError();
  return status != cudaSuccess ? status : earlier;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new simt_event{};
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  cudaEventSynchronize(event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Lock lock(simt::mutex);
  if (stream && stream->recorded) return cudaErrorStreamCaptureUnsupported;  // on a card a node: no recording needs one
  cudaError_t status = simt::put(stream, {simt::kind<simt::record_kind>(), [event] {
                                            event->at = std::chrono::steady_clock::now();
                                            return cudaSuccess;
                                          }});
  event->stream = stream ? simt::streams().at(stream) : nullptr;
  event->after = stream ? stream->given : 0;
  return status;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(simt::mutex);
  return event->stream ? simt::run_until(*event->stream, event->after) : cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  cudaEventSynchronize(start), cudaEventSynchronize(end);
  *milliseconds = std::chrono::duration<float, std::milli>(end->at - start->at).count();
  return cudaSuccess;
}

/// The event as it stands now: recording it again later changes nothing.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Lock lock(simt::mutex);
  if (!event->stream || event->stream.get() == stream) return cudaSuccess;
  if (stream && stream->recorded) return cudaErrorStreamCaptureIsolation;
  return simt::put(stream, {simt::kind<simt::wait_kind>(),
                            [other = event->stream, after = event->after] { return simt::run_until(*other, after); }});
}

/// To or from memory of the host that is not pinned, a card's runtime waits for the stream and copies by itself.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  Lock lock(simt::mutex);
  const void* host = kind == cudaMemcpyHostToDevice ? from : kind == cudaMemcpyDeviceToHost ? to : nullptr;
  if (stream && host && !simt::is_pinned(host)) {
    cudaError_t status = simt::run_until(*stream, stream->given);
    return status != cudaSuccess ? status : cudaMemcpy(to, from, bytes, kind);
  }
  return simt::put(stream, {simt::kind<simt::copy_kind>(), [=] { return cudaMemcpy(to, from, bytes, kind); }});
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  return simt::put(stream, {simt::kind<simt::set_kind>(), [=] { return cudaMemset(memory, value, bytes); }});
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  Lock lock(simt::mutex);
  if (!stream || stream->recorded) return cudaErrorStreamCaptureUnsupported;
  stream->recorded = new simt_graph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(simt::mutex);
  *graph = stream ? std::exchange(stream->recorded, nullptr) : nullptr;
  return *graph ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* ready, cudaGraph_t graph, unsigned long long) {
  ++simt::counters().graphs_built;
  *ready = new simt_graph_exec{std::make_shared<const simt_graph>(*graph)};
  return cudaSuccess;
}
cudaError_t cudaGraphExecUpdate(cudaGraphExec_t ready, cudaGraph_t graph, cudaGraphExecUpdateResultInfo* result) {
  const auto &old_work = ready->graph->work, &new_work = graph->work;
  bool same = old_work.size() == new_work.size();
  for (size_t i = 0; same && i < new_work.size(); ++i) same = old_work[i].kind == new_work[i].kind;
  *result = {same ? 0 : 1};
  if (!same) return cudaErrorGraphExecUpdateFailure;
  ++simt::counters().graphs_updated;
  ready->graph = std::make_shared<const simt_graph>(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t ready) {
  delete ready;
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t ready, cudaStream_t stream) {
  ++simt::counters().graphs_launched;
  return simt::put(stream, {simt::kind<simt::graph_kind>(), [graph = ready->graph] {
                              cudaError_t first = cudaSuccess;
                              for (const simt::Work& work : graph->work) {
                                cudaError_t status = work.run();
                                if (first == cudaSuccess) first = status;
                              }
                              return first;
                            }});
}
