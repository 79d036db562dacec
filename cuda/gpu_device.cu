// The device's memory and streams. All operations run on one stream, in the order in which they are called; what goes
// to and from the host has another one (cuda/transfers.h).
#include "cuda/gpu_device.h"

#include <algorithm>

#include "cuda/profiler.h"
#include "cuda/transfers.h"
#include "src/device/devices.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int64_t least_scratch = 16 << 20;

/// One thread an element: moves `width` bytes (1, 2, 4 or 8) between two strided tensors of up to four axes.
struct StridedCopy {
  int64_t size[4], to[4], from[4], count;
  int width;
};

__global__ void __launch_bounds__(256) strided_copy_kernel(char* to, const char* from, StridedCopy c) {
  int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= c.count) return;
  int64_t rest = index, at_to = 0, at_from = 0;
  for (int axis = 3; axis >= 0; --axis) {
    int64_t place = rest % c.size[axis];
    rest /= c.size[axis];
    at_to += place * c.to[axis], at_from += place * c.from[axis];
  }
  to += at_to * c.width, from += at_from * c.width;
  if (c.width == 2)
    *reinterpret_cast<uint16_t*>(to) = *reinterpret_cast<const uint16_t*>(from);
  else if (c.width == 4)
    *reinterpret_cast<uint32_t*>(to) = *reinterpret_cast<const uint32_t*>(from);
  else if (c.width == 8)
    *reinterpret_cast<uint64_t*>(to) = *reinterpret_cast<const uint64_t*>(from);
  else
    *to = *from;
}

}  // namespace

GpuDevice::GpuDevice(const DeviceOptions& options) {
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
  check(cudaMalloc(&faults_, fault_kinds * sizeof(*faults_)), "memory for faults");
  check(cudaMemsetAsync(faults_, 0xff, fault_kinds * sizeof(*faults_), stream_), "clearing faults");
  transfers_ = std::make_unique<Transfers>(stream_);
  product_ = make_product(options);
}

GpuDevice::~GpuDevice() {
  cudaStreamSynchronize(stream_);
  forget_recordings();
  transfers_.reset();
  product_.reset();
  for (char* memory : outgrown_) cudaFree(memory);
  cudaFree(scratch_);
  cudaFree(faults_);
  cudaStreamDestroy(stream_);
}

void GpuDevice::check(cudaError_t status, const Launch& how) const {
  if (status != cudaSuccess)
    fail("{}: {} of {} on {} x {} x {} blocks of {} threads with {} bytes of shared memory: {}", name(), how.operation,
         how.of.text(), how.grid.x, how.grid.y, how.grid.z, how.block.x * how.block.y * how.block.z, how.shared,
         cudaGetErrorString(status));
}

void GpuDevice::check(cudaError_t status, const char* what) const {
  if (status != cudaSuccess) fail("{}: {}: {}", name(), what, cudaGetErrorString(status));
}

void* GpuDevice::allocate(int64_t bytes) {
  if (bytes <= 0) return nullptr;
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) {
    cudaGetLastError();
    fail("the {} device could not allocate {} bytes", name(), bytes);
  }
  check(cudaMemsetAsync(memory, 0, bytes, stream_), "clearing new memory");
  return memory;
}

void GpuDevice::release(void* memory) {
  cudaStreamSynchronize(stream_);
  cudaFree(memory);
}

int64_t GpuDevice::memory_bytes() const {
  size_t available = 0, total = 0;
  check(cudaMemGetInfo(&available, &total), "asking for the memory's size");
  return static_cast<int64_t>(total);
}

std::string GpuDevice::card_name() const {
#if SIMT_HOST
  return "the host";
#else
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "asking for the card's name");
  return fmt::format("{} (sm_{}{}, {} multiprocessors)", properties.name, properties.major, properties.minor,
                     properties.multiProcessorCount);
#endif
}

void GpuDevice::upload_bytes(void* to, const void* from, int64_t bytes) { transfers_->upload(to, from, bytes); }
void GpuDevice::upload(const Tensor& to, const void* from) { upload_bytes(to.data(), from, to.bytes()); }

void GpuDevice::download(void* to, const ConstTensor& from) {
  unsigned long long found[fault_kinds];
  transfers_->download({{to, from.data(), from.bytes()}, {found, faults_, sizeof found}});
  fail_found(found);
}

void GpuDevice::zero(const Tensor& tensor) {
  check(cudaMemsetAsync(tensor.data(), 0, tensor.bytes(), stream_), "clearing a tensor");
}

void GpuDevice::begin_range(const char* name) { profiler::begin_range(name); }
void GpuDevice::end_range() { profiler::end_range(); }
void GpuDevice::profile(bool on) {
  synchronize();
  profiled_ = on;
  profiler::record(on);
}

void GpuDevice::synchronize() {
  unsigned long long found[fault_kinds];
  transfers_->download({{found, faults_, sizeof found}});
  fail_found(found);
}

void GpuDevice::fail_found(const unsigned long long (&found)[fault_kinds]) {
  for (int kind = 0; kind < fault_kinds; ++kind) {
    if (found[kind] == no_fault) continue;
    check(cudaMemsetAsync(faults_, 0xff, sizeof found, stream_), "clearing faults");
    fail_fault(static_cast<Fault>(kind), found[kind], fault_bounds_[kind]);
  }
}

void GpuDevice::copy(const Tensor& to, const ConstTensor& from) {
  if (to.type() != from.type() || to.shape() != from.shape())
    fail("copy of {} {} to {} {}", dtype_name(from.type()), from.shape().text(), dtype_name(to.type()),
         to.shape().text());
  if (to.contiguous() && from.contiguous()) {
    check(cudaMemcpyAsync(to.data(), from.data(), to.bytes(), cudaMemcpyDeviceToDevice, stream_), "a copy");
    return;
  }
  StridedCopy c{{1, 1, 1, 1}, {}, {}, to.elements(), static_cast<int>(dtype_bytes(to.type()))};
  for (int axis = 0; axis < to.rank(); ++axis)
    c.size[axis] = to.size(axis), c.to[axis] = to.stride(axis), c.from[axis] = from.stride(axis);
  launch({"copy", dim3(static_cast<unsigned>((c.count + 255) / 256)), dim3(256), 0, to.shape()}, strided_copy_kernel,
         static_cast<char*>(to.data()), static_cast<const char*>(from.data()), c);
}

void* GpuDevice::scratch_bytes(int64_t bytes) {
  int64_t rounded = (bytes + 255) / 256 * 256;
  if (scratch_used_ + rounded > scratch_size_) {
    if (recording_) throw NeedsScratch{};
    int64_t size = std::max({least_scratch, 2 * scratch_size_, rounded});
    if (scratch_) outgrown_.push_back(scratch_);
    if (cudaMalloc(&scratch_, size) != cudaSuccess) {
      cudaGetLastError();
      scratch_ = nullptr, scratch_size_ = 0;
      fail("the {} device could not get {} bytes of scratch", name(), size);
    }
    scratch_size_ = size, scratch_used_ = 0;
  }
  void* memory = scratch_ + scratch_used_;
  scratch_used_ += rounded;
  simt::undefined_memory(memory, bytes, stream_);
  return memory;
}

void GpuDevice::release_scratch(int64_t mark) {
  if (outgrown_.empty()) {
    scratch_used_ = mark;
    return;
  }
  scratch_used_ = 0;  // the pieces before `mark` lay in memory that is given back here
  cudaStreamSynchronize(stream_);
  for (char* memory : outgrown_) cudaFree(memory);
  outgrown_.clear();
}

}  // namespace longhand::LONGHAND_GPU

namespace longhand {

#if SIMT_HOST
std::unique_ptr<Device> make_simt_device(const DeviceOptions& options) {
  return std::make_unique<LONGHAND_GPU::GpuDevice>(options);
}
#else
std::unique_ptr<Device> make_cuda_device(const DeviceOptions& options) {
  if (!cuda_device_present()) fail("there is no card that the cuda device can use: --device cpu or simt");
  return std::make_unique<LONGHAND_GPU::GpuDevice>(options);
}
bool cuda_device_present() {
  int count = 0;
  bool present = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  if (!present) cudaGetLastError();
  return present;
}
#endif

}  // namespace longhand
