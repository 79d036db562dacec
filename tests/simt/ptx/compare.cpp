// Runs every launch twice: the kernel as the host's compiler built it, then nvcc's PTX of it on the same memory, and
// compares all of the device's memory afterwards. At the program's end one line a kernel, and the exit status 1 when
// one differs.
//
// A kernel of exact instructions must give the same bits. Where nvcc expands a function itself (expf, logf, erfcf, ...)
// or divides approximately, its last bits are its own, and what is computed from them differs a little: of such kernels
// a number may differ by `tolerance` of the larger of the two and of the root mean square of its kind in the 4 KiB
// around it. A word is one fp32, unless the PTX stored it as bits: then its halves are held to bf16's tolerance.
#include <sys/mman.h>

#include <unistd.h>
#include <algorithm>
#include <array>
#include <bitset>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "cuda/simt/host/config.h"
#include "cuda/simt/host/device_memory.h"
#include "cuda/simt/host/symbols.h"
#include "tests/simt/ptx/machine.h"

namespace ptx {
namespace {

constexpr size_t page = 4096;
constexpr double tolerance_fp32 = 2e-5, tolerance_bf16 = 1.0 / 127;

const bool part = std::getenv("PTX_PART");  // of the kernels: the rest is not compared

struct Result {
  const Kernel* kernel = nullptr;
  uint64_t launches = 0, written = 0, differ = 0, wrong = 0;  // words
  double worst_fp32 = 0, worst_bf16 = 0;
  std::string error;
};

std::map<std::string, const Kernel*>& kernels() {
  static auto* all = new std::map<std::string, const Kernel*>;  // what is said at the program's end reads it
  return *all;
}

/// Device memory as it was before the launch, an allocation each. Only pages that a launch has changed are copied.
class Snapshot {
 public:
  explicit Snapshot(size_t bytes) : bytes_(bytes), copy_(map(bytes)) {}
  ~Snapshot() { munmap(copy_, bytes_); }
  Snapshot(const Snapshot&) = delete;

  size_t bytes() const { return bytes_; }

  /// work(offset, size) of the pages in which memory differs from the snapshot.
  template <class Work>
  void for_changed(const char* memory, Work work) const {
    for (size_t at = 0; at < bytes_; at += page) {
      const size_t size = std::min(page, bytes_ - at);
      if (std::memcmp(copy_ + at, memory + at, size) != 0) work(at, size);
    }
  }
  char* copy() const { return copy_; }

 private:
  static char* map(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    return static_cast<char*>(memory);
  }
  size_t bytes_;
  char* copy_;
};

double half_as_float(uint32_t bits) { return std::bit_cast<float>(bits << 16); }

bool near(double a, double b, double scale, double tolerance, double& worst) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  const double larger = std::max({std::fabs(a), std::fabs(b), scale}), error = a == b ? 0 : std::fabs(a - b) / larger;
  if (!(error <= tolerance)) return false;
  worst = std::max(worst, error);
  return true;
}

/// The halves of words that the PTX stored as bits in the launch under way, by pages of the address space.
class Halves {
 public:
  void add(uintptr_t first, size_t bytes) {
    std::lock_guard lock(mutex_);
    for (uintptr_t at = first; at < first + bytes; at += 2) pages_[at / page][at % page / 2] = true;
  }
  bool has(const void* p) const {
    const auto at = reinterpret_cast<uintptr_t>(p);
    auto found = pages_.find(at / page);
    return found != pages_.end() && found->second[at % page / 2];
  }
  void clear() { pages_.clear(); }

 private:
  std::mutex mutex_;
  std::unordered_map<uintptr_t, std::bitset<page / 2>> pages_;
};

Halves& halves() {
  static auto* all = new Halves;
  return *all;
}

/// The root mean square of ordinary numbers.
class Scale {
 public:
  void add(double value) {
    if (std::isfinite(value) && std::fabs(value) < 1e6 && std::fabs(value) > 1e-20) sum_ += value * value, ++count_;
  }
  double value() const { return count_ ? std::sqrt(sum_ / count_) : 0; }

 private:
  double sum_ = 0;
  size_t count_ = 0;
};

/// What either build left of `bytes` at `memory`, at most a page.
void compare_words(Result& result, const char* expected, const char* got, const char* memory, size_t bytes) {
  std::array<uint32_t, page / 4> a{}, b{};
  std::memcpy(a.data(), expected, std::min(bytes, page)), std::memcpy(b.data(), got, std::min(bytes, page));
  auto is_half = [&](size_t i, int half) { return halves().has(memory + 4 * i + 2 * half); };
  Scale fp32, bf16;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!is_half(i, 0) && !is_half(i, 1)) fp32.add(std::bit_cast<float>(a[i]));
    for (int half = 0; half < 2; ++half)
      if (is_half(i, half)) bf16.add(half_as_float(a[i] >> 16 * half & 0xffffu));
  }
  auto close = [&](size_t i) {
    if (!is_half(i, 0) && !is_half(i, 1))
      return near(std::bit_cast<float>(a[i]), std::bit_cast<float>(b[i]), fp32.value(), tolerance_fp32,
                  result.worst_fp32);
    for (int half = 0; half < 2; ++half) {
      const uint32_t one = a[i] >> 16 * half & 0xffffu, other = b[i] >> 16 * half & 0xffffu;
      if (one == other) continue;
      if (!is_half(i, half) ||
          !near(half_as_float(one), half_as_float(other), bf16.value(), tolerance_bf16, result.worst_bf16))
        return false;
    }
    return true;
  };
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    ++result.differ;
    result.wrong += !*result.kernel->approximate || !close(i);
  }
}

/// Without the return type, the namespaces that all kernels are in, and the parameters.
std::string short_name(std::string name) {
  for (const char* common : {"void ", "longhand::simt_device::", "longhand::"})
    for (size_t at; (at = name.find(common)) != std::string::npos;) name.erase(at, std::strlen(common));
  int depth = 0;
  for (size_t i = 0; i < name.size(); ++i) {
    depth += name[i] == '<' ? 1 : name[i] == '>' ? -1 : 0;
    if (name[i] == '(' && depth == 0) return name.substr(0, i);
  }
  return name;
}

class Comparison {
 public:
  cudaError_t run(const simt::Launch& launch) {
    const std::string name = simt::kernel_name(simt::function_name(launch.kernel));
    Result& result = results_[name];
    ++result.launches;
    auto found = kernels().find(name);
    if (found == kernels().end()) {
      if (!part) result.error = "there is no PTX of it";
      return simt::run_grid(launch);
    }
    result.kernel = found->second;
    take_snapshots();
    const cudaError_t status = simt::run_grid(launch);
    if (status != cudaSuccess) return status;
    std::vector<Page> written = changed_pages();
    for (const Page& at : written) std::memcpy(at.memory, at.snapshot, at.size);
    halves().clear();
    run_ptx(launch, result);
    compare(result, written);
    return cudaSuccess;
  }

  /// Prints a line a kernel, those that were never launched too; returns how many do not agree.
  int report() const {
    int bad = 0;
    for (auto& [name, result] : results_) {
      if (part && !result.kernel) continue;
      const bool good = result.error.empty() && result.wrong == 0;
      bad += !good;
      std::printf("%s %s: %llu launches, %llu words written", good ? "ok" : "not ok", short_name(name).c_str(),
                  static_cast<unsigned long long>(result.launches), static_cast<unsigned long long>(result.written));
      if (!result.error.empty()) std::printf(", %s", result.error.c_str());
      if (result.differ == 0)
        std::printf(", same bits");
      else
        std::printf(", %llu differ, at most %.1e in fp32, %.1e in bf16, %llu too far",
                    static_cast<unsigned long long>(result.differ), result.worst_fp32, result.worst_bf16,
                    static_cast<unsigned long long>(result.wrong));
      if (result.kernel && *result.kernel->approximate) std::printf("; %s", result.kernel->approximate);
      std::printf("\n");
    }
    for (auto& [name, kernel] : kernels())
      if (!results_.count(name)) std::printf("not run %s: no case of these launches it\n", short_name(name).c_str());
    return bad;
  }

 private:
  struct Page {
    char* memory;
    const char* snapshot;
    size_t size;
    std::vector<char> result;  // what the host's build wrote
  };

  void take_snapshots() {
    std::map<char*, std::unique_ptr<Snapshot>> kept;
    simt::for_each_allocation([&](char* memory, size_t bytes) {
      auto old = snapshots_.find(memory);
      if (old != snapshots_.end() && old->second->bytes() == bytes)
        kept[memory] = std::move(old->second);
      else
        kept[memory] = std::make_unique<Snapshot>(bytes);
      Snapshot& snapshot = *kept[memory];
      snapshot.for_changed(memory,
                           [&](size_t at, size_t size) { std::memcpy(snapshot.copy() + at, memory + at, size); });
    });
    snapshots_ = std::move(kept);
  }

  std::vector<Page> changed_pages() const {
    std::vector<Page> pages;
    for (auto& [memory, snapshot] : snapshots_)
      snapshot->for_changed(memory, [&, memory = memory, &snapshot = snapshot](size_t at, size_t size) {
        pages.push_back({memory + at, snapshot->copy() + at, size, std::vector<char>(memory + at, memory + at + size)});
      });
    return pages;
  }

  void run_ptx(const simt::Launch& launch, Result& result) {
    struct Call : simt::Launch {
      const Kernel* kernel;
    };
    const size_t alignment = result.kernel->dynamic_alignment;
    Call call{launch, result.kernel};
    call.shared = (result.kernel->shared + alignment - 1) / alignment * alignment + launch.shared;
    call.call = [](const simt::Launch& l) { static_cast<const Call&>(l).kernel->run(l.parameters); };
    if (simt::run_grid(call) != cudaSuccess) result.error = std::string("the PTX fails: ") + simt::last_error();
  }

  /// Every page that either build changed; memory is left as the host's build left it.
  void compare(Result& result, const std::vector<Page>& written) {
    std::map<char*, const Page*> expected;
    for (const Page& at : written) {
      expected[at.memory] = &at;
      for (size_t i = 0; i < at.size; i += 4)
        result.written += std::memcmp(&at.result[i], at.snapshot + i, std::min<size_t>(4, at.size - i)) != 0;
    }
    for (const Page& at : changed_pages()) {
      if (!expected.count(at.memory)) {
        compare_words(result, at.snapshot, at.memory, at.memory, at.size);
        std::memcpy(at.memory, at.snapshot, at.size);
      }
    }
    for (const Page& at : written) {
      if (std::memcmp(at.result.data(), at.memory, at.size) != 0)
        compare_words(result, at.result.data(), at.memory, at.memory, at.size);
      std::memcpy(at.memory, at.result.data(), at.size);
    }
  }

  std::map<char*, std::unique_ptr<Snapshot>> snapshots_;
  std::map<std::string, Result> results_;
};

Comparison& comparison() {
  static auto* one = new Comparison;
  return *one;
}

const bool installed = [] {
  simt::config().stack_bytes = 1 << 20;  // every register of a kernel may have a place on the stack
  simt::launch_interceptor = [](const simt::Launch& launch) { return comparison().run(launch); };
  std::atexit([] {
    const int bad = comparison().report();
    std::fflush(stdout);
    if (bad) _exit(1);
  });
  return true;
}();

}  // namespace

void wrote_halves(const void* p, size_t bytes) { halves().add(reinterpret_cast<uintptr_t>(p), bytes); }

Kernel::Kernel(const char* name_, void (*run_)(const void* const*), size_t shared_, size_t dynamic_alignment_,
               const char* approximate_)
    : name(name_), run(run_), shared(shared_), dynamic_alignment(dynamic_alignment_), approximate(approximate_) {
  const std::string known_as = simt::kernel_name(simt::demangle(name));
  if (!kernels().emplace(known_as, this).second) {
    std::fprintf(stderr, "two kernels are called %s: rename one\n", known_as.c_str());
    std::exit(2);
  }
}

}  // namespace ptx
