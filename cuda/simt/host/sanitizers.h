// What the sanitizers must be told: that a stack is left for another one, and which bytes may not be touched. Nothing
// in ordinary builds.
#pragma once
#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define SIMT_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SIMT_TSAN 1
#endif
#endif

#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if SIMT_TSAN
#include <sanitizer/tsan_interface.h>
#endif

namespace simt {

#if SIMT_ASAN
constexpr bool address_sanitizer = true;
/// A stack as the sanitizer knows it.
struct SanitizedStack {
  const void* bottom = nullptr;
  size_t bytes = 0;
  void* fake = nullptr;
  void begin(const void* low, size_t size) { bottom = low, bytes = size, fake = nullptr; }
  void leave_for(const SanitizedStack& to) { __sanitizer_start_switch_fiber(&fake, to.bottom, to.bytes); }
  void arrive() { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
};
inline void forbid(void* p, size_t bytes) { __asan_poison_memory_region(p, bytes); }
inline void permit(void* p, size_t bytes) { __asan_unpoison_memory_region(p, bytes); }
#else
constexpr bool address_sanitizer = false;
inline void forbid(void*, size_t) {}
inline void permit(void*, size_t) {}
#endif

#if SIMT_TSAN
struct SanitizedStack {
  void* fiber = nullptr;
  void begin(const void*, size_t) {
    if (fiber) __tsan_destroy_fiber(fiber);
    fiber = __tsan_create_fiber(0);
  }
  void leave_for(const SanitizedStack& to) {
    if (!fiber) fiber = __tsan_get_current_fiber();  // a worker's own stack
    __tsan_switch_to_fiber(to.fiber, 0);
  }
  void arrive() {}
};
#elif !SIMT_ASAN
struct SanitizedStack {
  void begin(const void*, size_t) {}
  void leave_for(const SanitizedStack&) {}
  void arrive() {}
};
#endif

}  // namespace simt
