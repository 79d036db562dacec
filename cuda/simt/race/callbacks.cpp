// What -fsanitize=thread calls at every load, store and atomic operation.
#include "detector.h"

namespace {

using simt::race::Use;

inline void note(const volatile void* p, size_t bytes, Use use, void* code) {
  if (simt::current_thread)
    simt::race::detector().access(const_cast<const void*>(p), bytes, use, static_cast<char*>(code) - 1);
}

}  // namespace

#define CALLER __builtin_return_address(0)

extern "C" {

void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}

#define PLAIN(BYTES)                                                                  \
  void __tsan_read##BYTES(void* p) { note(p, BYTES, Use::read, CALLER); }             \
  void __tsan_write##BYTES(void* p) { note(p, BYTES, Use::write, CALLER); }           \
  void __tsan_unaligned_read##BYTES(void* p) { note(p, BYTES, Use::read, CALLER); }   \
  void __tsan_unaligned_write##BYTES(void* p) { note(p, BYTES, Use::write, CALLER); } \
  void __tsan_volatile_read##BYTES(void* p) { note(p, BYTES, Use::read, CALLER); }    \
  void __tsan_volatile_write##BYTES(void* p) { note(p, BYTES, Use::write, CALLER); }
PLAIN(1)
PLAIN(2)
PLAIN(4)
PLAIN(8)
PLAIN(16)
void __tsan_read_range(void* p, unsigned long bytes) { note(p, bytes, Use::read, CALLER); }
void __tsan_write_range(void* p, unsigned long bytes) { note(p, bytes, Use::write, CALLER); }

#define ATOMIC(BITS, T)                                                                                \
  T __tsan_atomic##BITS##_load(const volatile T* p, int) {                                             \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                                       \
  }                                                                                                    \
  void __tsan_atomic##BITS##_store(volatile T* p, T value, int) {                                      \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    __atomic_store_n(p, value, __ATOMIC_SEQ_CST);                                                      \
  }                                                                                                    \
  T __tsan_atomic##BITS##_exchange(volatile T* p, T value, int) {                                      \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST);                                            \
  }                                                                                                    \
  T __tsan_atomic##BITS##_fetch_add(volatile T* p, T value, int) {                                     \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                    \
  T __tsan_atomic##BITS##_fetch_sub(volatile T* p, T value, int) {                                     \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_fetch_sub(p, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                    \
  T __tsan_atomic##BITS##_fetch_and(volatile T* p, T value, int) {                                     \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_fetch_and(p, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                    \
  T __tsan_atomic##BITS##_fetch_or(volatile T* p, T value, int) {                                      \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_fetch_or(p, value, __ATOMIC_SEQ_CST);                                              \
  }                                                                                                    \
  T __tsan_atomic##BITS##_fetch_xor(volatile T* p, T value, int) {                                     \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_fetch_xor(p, value, __ATOMIC_SEQ_CST);                                             \
  }                                                                                                    \
  int __tsan_atomic##BITS##_compare_exchange_strong(volatile T* p, T* expected, T value, int, int) {   \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_compare_exchange_n(p, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); \
  }                                                                                                    \
  int __tsan_atomic##BITS##_compare_exchange_weak(volatile T* p, T* expected, T value, int, int) {     \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    return __atomic_compare_exchange_n(p, expected, value, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);  \
  }                                                                                                    \
  T __tsan_atomic##BITS##_compare_exchange_val(volatile T* p, T expected, T value, int, int) {         \
    note(p, sizeof(T), Use::atomic, CALLER);                                                           \
    __atomic_compare_exchange_n(p, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
    return expected;                                                                                   \
  }
ATOMIC(8, uint8_t)
ATOMIC(16, uint16_t)
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)

}  // extern "C"
