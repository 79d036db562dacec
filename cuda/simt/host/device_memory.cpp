#include "device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "config.h"
#include "launch_log.h"
#include "observer.h"
#include "runtime_api.h"
#include "sanitizers.h"
#include "streams.h"

namespace simt {
namespace {

constexpr size_t alignment = 256, page = 4096;

size_t round_up(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

struct Allocation {
  size_t bytes;   // as asked for
  char* pages;    // what was mapped: whole pages and the one that faults
  size_t mapped;  // without that one
};

std::mutex mutex;
std::map<char*, Allocation>& allocations() {
  static auto* all = new std::map<char*, Allocation>;  // never destroyed: memory is freed until the very end
  return *all;
}

void protect_all(int protection) {
  std::lock_guard lock(mutex);
  for (auto& [memory, allocation] : allocations()) mprotect(allocation.pages, allocation.mapped, protection);
}

/// The memory lies at the end of its pages, as near to the page that faults as its alignment allows.
char* map_allocation(size_t bytes, Allocation& allocation) {
  allocation = {bytes, nullptr, round_up(round_up(bytes, alignment), page)};
  void* pages = mmap(nullptr, allocation.mapped + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) return nullptr;
  allocation.pages = static_cast<char*>(pages);
  mprotect(allocation.pages + allocation.mapped, page, PROT_NONE);
  return allocation.pages + allocation.mapped - round_up(bytes, alignment);
}

/// The sanitizer's own allocator puts red zones around; the bytes that rounding adds are forbidden too.
char* sanitized_allocation(size_t bytes, Allocation& allocation) {
  allocation = {bytes, nullptr, 0};
  auto* memory = static_cast<char*>(std::aligned_alloc(alignment, round_up(bytes, alignment)));
  if (memory) forbid(memory + bytes, round_up(bytes, alignment) - bytes);
  return memory;
}

}  // namespace

Accessible::Accessible() : guarded_(config().guard && !address_sanitizer) {
  if (guarded_) protect_all(PROT_READ | PROT_WRITE);
}
Accessible::~Accessible() {
  if (guarded_) protect_all(PROT_NONE);
}

void for_each_allocation(const std::function<void(char*, size_t)>& work) {
  std::lock_guard lock(mutex);
  for (auto& [memory, allocation] : allocations()) work(memory, allocation.bytes);
}

void host_wrote(const void* memory, size_t bytes) {
  if (observer) observer->memory_written(memory, bytes);
}

cudaError_t device_allocate(void** memory, size_t bytes) {
  *memory = nullptr;
  if (a_stream_is_recorded()) return cudaErrorStreamCaptureUnsupported;
  if (bytes == 0) return cudaSuccess;
  Allocation allocation;
  char* at = address_sanitizer ? sanitized_allocation(bytes, allocation) : map_allocation(bytes, allocation);
  if (!at) return cudaErrorMemoryAllocation;
  std::memset(at, 0xff, bytes);
  *memory = at;
  if (address_sanitizer) return cudaSuccess;  // not listed: the list would hide leaks
  std::lock_guard lock(mutex);
  allocations()[at] = allocation;
  if (observer) observer->memory_allocated(at, bytes);
  if (config().guard) mprotect(allocation.pages, allocation.mapped, PROT_NONE);
  return cudaSuccess;
}

void undefined_memory(void* memory, size_t bytes, cudaStream_t stream) {
  static const char kind = 0;
  put(stream, {&kind, [=] {
                 Accessible accessible;
                 std::memset(memory, 0xff, bytes);
                 if (observer) observer->memory_undefined(memory, bytes);
                 return cudaSuccess;
               }});
}

}  // namespace simt

cudaError_t cudaFree(void* memory) {
  using namespace simt;
  if (!memory) return cudaSuccess;
  run_everything();
  if (address_sanitizer) {
    std::free(memory);
    return cudaSuccess;
  }
  std::lock_guard lock(mutex);
  auto found = allocations().find(static_cast<char*>(memory));
  if (found == allocations().end()) return cudaErrorInvalidValue;
  if (observer) observer->memory_freed(memory);
  munmap(found->second.pages, found->second.mapped + page);
  allocations().erase(found);
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  simt::Accessible accessible;
  std::memmove(to, from, bytes);
  if (kind != cudaMemcpyDeviceToHost)
    simt::host_wrote(to, bytes);
  else if (simt::launches_are_logged())
    simt::log_download(to, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height,
                         cudaMemcpyKind kind) {
  for (size_t row = 0; row < height; ++row)
    cudaMemcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width, kind);
  return cudaSuccess;
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  simt::Accessible accessible;
  std::memset(memory, value, bytes);
  simt::host_wrote(memory, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *total = static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  *available = static_cast<size_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE);
  return cudaSuccess;
}
