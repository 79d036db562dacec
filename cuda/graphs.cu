// Replaying what repeats: a stretch of operations is recorded as a CUDA graph the second time it runs and launched as a
// whole from then on. A decoding step or a training step of a small model is some hundred launches of a few
// microseconds; as a graph it costs one.
//
// With other values in the arguments (the step's number in dropout, the loss's scale) the stretch is recorded again and
// the graph that is there takes the new parameters; only where its shape has changed is it built anew.
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {

/// `scratch` is where the device's scratch lay: a graph keeps the addresses of its recording.
struct Recording {
  cudaGraphExec_t graph = nullptr;
  const char* scratch = nullptr;
  uint64_t arguments = 0;
  bool ran = false;

  ~Recording() { forget(); }
  void forget() {
    if (graph) cudaGraphExecDestroy(graph);
    graph = nullptr;
  }
  /// Makes the graph that is launched from the one that was recorded.
  void take(cudaGraph_t recorded) {
    cudaGraphExecUpdateResultInfo ignored{};
    if (graph && cudaGraphExecUpdate(graph, recorded, &ignored) == cudaSuccess) return;
    forget();
    if (cudaGraphInstantiate(&graph, recorded, 0) != cudaSuccess) graph = nullptr;
  }
};

/// What `work` puts on the stream, or null where that cannot be recorded: nothing of it has run.
static cudaGraph_t recorded(cudaStream_t stream, const std::function<void()>& work) {
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
  if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) return graph;
  if (graph) cudaGraphDestroy(graph);
  return nullptr;
}

void GpuDevice::record(Recording& recording, const std::function<void()>& work) {
  struct While {
    bool& flag;
    explicit While(bool& f) : flag(f) { flag = true; }
    ~While() { flag = false; }
  };
  cudaGraph_t graph = nullptr;
  try {
    While scratch_cannot_grow(recording_);
    graph = recorded(stream_, work);
  } catch (const NeedsScratch&) {
  }
  if (graph) {
    recording.take(graph);
    cudaGraphDestroy(graph);
  } else {
    recording.forget();
  }
  cudaGetLastError();
}

// The first run fills caches and lets the scratch grow, which recording could not. A profiler sees every operation by
// itself.
void GpuDevice::repeat(uint64_t key, uint64_t arguments, const std::function<void()>& work) {
  if (profiled_ || recording_) return work();
  auto& recording = recordings_[key];
  if (!recording) recording = std::make_shared<Recording>();
  if (!recording->ran) {
    recording->ran = true;
    return work();
  }
  if (!recording->graph || recording->scratch != scratch_ || recording->arguments != arguments) {
    record(*recording, work);
    recording->scratch = scratch_, recording->arguments = arguments;
    if (!recording->graph) return work();
  }
  check(cudaGraphLaunch(recording->graph, stream_), "launching a graph");
}

void GpuDevice::forget_recordings() { recordings_.clear(); }

}  // namespace longhand::LONGHAND_GPU
