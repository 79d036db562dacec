// Replaying what repeats: a stretch of operations whose arguments stay the same is recorded as a CUDA graph the second
// time it runs and launched as a whole from then on. A decoding step of a small model is some hundred launches of a few
// microseconds; as a graph it costs one.
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

#if SIMT_HOST

struct Recording {};
void GpuDevice::repeat(uint64_t, const std::function<void()>& work) { work(); }
void GpuDevice::forget_recordings() {}

#else

/// `scratch` is where the device's scratch lay: a graph keeps the addresses of its recording.
struct Recording {
  cudaGraphExec_t graph = nullptr;
  const char* scratch = nullptr;
  bool ran = false;
};

static cudaGraphExec_t record(cudaStream_t stream, const std::function<void()>& work) {
  cudaGraph_t graph = nullptr;
  if (cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) != cudaSuccess) return nullptr;
  try {
    work();
  } catch (...) {
    cudaStreamEndCapture(stream, &graph);
    if (graph) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  cudaGraphExec_t ready = nullptr;
  if (cudaStreamEndCapture(stream, &graph) == cudaSuccess && cudaGraphInstantiate(&ready, graph, 0) != cudaSuccess)
    ready = nullptr;
  if (graph) cudaGraphDestroy(graph);
  cudaGetLastError();
  return ready;
}

// The first run fills caches and lets the scratch grow, which recording could not.
void GpuDevice::repeat(uint64_t key, const std::function<void()>& work) {
  auto& recording = recordings_[key];
  if (!recording) recording = std::make_shared<Recording>();
  if (!recording->ran) {
    recording->ran = true;
    return work();
  }
  if (recording->graph && recording->scratch != scratch_) {
    cudaGraphExecDestroy(recording->graph);
    recording->graph = nullptr;
  }
  if (!recording->graph) {
    recording->graph = record(stream_, work);
    recording->scratch = scratch_;
    if (!recording->graph) return work();
  }
  check(cudaGraphLaunch(recording->graph, stream_), "launching a graph");
}

void GpuDevice::forget_recordings() {
  for (auto& [key, recording] : recordings_)
    if (recording->graph) cudaGraphExecDestroy(recording->graph);
  recordings_.clear();
}

#endif

}  // namespace longhand::LONGHAND_GPU
