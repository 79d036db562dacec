#include "src/device/cpu/cpu_device.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <cstdlib>
#include <cstring>
#include <new>

#include "src/device/cpu/kernels/isa.h"
#include "src/device/devices.h"

namespace longhand::cpu {

Isa current_isa() {
  static const Isa isa = [] {
    Isa best = __builtin_cpu_supports("x86-64-v4")   ? Isa::avx512
               : __builtin_cpu_supports("x86-64-v3") ? Isa::avx2
                                                     : Isa::generic;
    const char* wanted = std::getenv("LONGHAND_ISA");
    if (!wanted || !*wanted) return best;
    std::string_view name = wanted;
    Isa asked = name == "avx512" ? Isa::avx512 : name == "avx2" ? Isa::avx2 : Isa::generic;
    if (name != "avx512" && name != "avx2" && name != "generic")
      fail_usage("LONGHAND_ISA is \"{}\": it takes generic, avx2 or avx512", name);
    if (asked > best) fail_usage("LONGHAND_ISA asks for {}, which this processor does not have", name);
    return asked;
  }();
  return isa;
}

CpuDevice::CpuDevice(const DeviceOptions& options) : pool_(options.threads), scratch_(pool_.size() + 1) {}

CpuDevice::~CpuDevice() {
  for (auto& [memory, bytes] : scratch_) std::free(memory);
}

void* CpuDevice::scratch(int thread, int64_t bytes) {
  auto& [memory, have] = scratch_[thread];
  if (have < bytes) {
    std::free(memory);
    memory = nullptr, have = 0;
    int64_t rounded = (bytes + 4095) / 4096 * 4096;
    memory = std::aligned_alloc(4096, rounded);
    if (!memory) fail("the cpu device could not get {} bytes of scratch", rounded);
    have = rounded;
    std::memset(memory, 0xff, rounded);  // NaN: what is read before it is written shows
  }
  return memory;
}

double CpuDevice::read_rate() {
  if (!probe_) probe_ = std::make_unique<ReadProbe>(pool_.size());
  return probe_->pass();
}

void* CpuDevice::allocate(int64_t bytes) {
  // Large pieces ask for large pages: weights are read in strides that small pages' address translation is slow at.
  constexpr int64_t small_page = 4096, large_page = 2 << 20;
  int64_t page = bytes >= 2 * large_page ? large_page : small_page, rounded = (bytes + page - 1) / page * page;
  void* memory = rounded > 0 ? std::aligned_alloc(page, rounded) : nullptr;
  if (rounded > 0 && !memory) fail("the cpu device could not allocate {} bytes", bytes);
  if (memory && page == large_page) madvise(memory, rounded, MADV_HUGEPAGE);
  if (memory) std::memset(memory, 0, rounded);
  return memory;
}

void CpuDevice::release(void* memory) { std::free(memory); }

int64_t CpuDevice::memory_bytes() const {
  struct sysinfo info {};
  sysinfo(&info);
  return static_cast<int64_t>(info.totalram) * info.mem_unit;
}

void CpuDevice::upload(const Tensor& to, const void* from) { std::memcpy(to.data(), from, to.bytes()); }
void CpuDevice::download(void* to, const ConstTensor& from) { std::memcpy(to, from.data(), from.bytes()); }
void CpuDevice::zero(const Tensor& tensor) { std::memset(tensor.data(), 0, tensor.bytes()); }

void CpuDevice::copy(const Tensor& to, const ConstTensor& from) {
  if (to.type() != from.type() || to.shape() != from.shape())
    fail("copy of {} {} to {} {}", dtype_name(from.type()), from.shape().text(), dtype_name(to.type()),
         to.shape().text());
  if (to.contiguous() && from.contiguous()) {
    std::memcpy(to.data(), from.data(), to.bytes());
  } else if (to.rank() == 1) {
    int64_t width = dtype_bytes(to.type());
    for (int64_t i = 0; i < to.size(0); ++i)
      std::memcpy(static_cast<char*>(to.data()) + i * to.stride(0) * width,
                  static_cast<const char*>(from.data()) + i * from.stride(0) * width, width);
  } else {
    auto drop_first = [](auto view, int64_t i) {
      auto row = view.rows(i, 1);
      Shape shape;
      for (int axis = 1; axis < view.rank(); ++axis) shape.size[shape.rank++] = view.size(axis);
      return row.reshape(shape);
    };
    for (int64_t i = 0; i < to.size(0); ++i) copy(drop_first(to, i), drop_first(from, i));
  }
}

}  // namespace longhand::cpu

namespace longhand {

std::unique_ptr<Device> make_cpu_device(const DeviceOptions& options) {
  return std::make_unique<cpu::CpuDevice>(options);
}

}  // namespace longhand
