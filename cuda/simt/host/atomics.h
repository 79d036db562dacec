// Atomic operations, fences, and loads and stores with cache hints.
#pragma once
#include <atomic>
#include <type_traits>

#include "place.h"

namespace simt {

/// Replaces *p by change(*p); returns what was there.
template <class T, class Change>
inline T atomic_change(T* p, Change change) {
  std::atomic_ref<T> word(*p);
  T old = word.load(std::memory_order_relaxed);
  while (!word.compare_exchange_weak(old, change(old), std::memory_order_relaxed)) {
  }
  return old;
}

void yield();

}  // namespace simt

// The second operand's type follows from the first, so that literals convert: atomicAdd(&unsigned_word, 1).
#define SIMT_ATOMIC(NAME, RESULT)                                          \
  template <class T>                                                       \
  inline T NAME(T* p, std::type_identity_t<T> value) {                     \
    return simt::atomic_change(p, [value](T old) -> T { return RESULT; }); \
  }
SIMT_ATOMIC(atomicAdd, old + value)
SIMT_ATOMIC(atomicSub, old - value)
SIMT_ATOMIC(atomicMin, value < old ? value : old)
SIMT_ATOMIC(atomicMax, old < value ? value : old)
SIMT_ATOMIC(atomicAnd, old& value)
SIMT_ATOMIC(atomicOr, old | value)
SIMT_ATOMIC(atomicXor, old ^ value)
SIMT_ATOMIC(atomicInc, old >= value ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef SIMT_ATOMIC
template <class T>
inline T atomicExch(T* p, std::type_identity_t<T> value) {
  return std::atomic_ref<T>(*p).exchange(value, std::memory_order_relaxed);
}
template <class T>
inline T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  std::atomic_ref<T>(*p).compare_exchange_strong(expected, value, std::memory_order_relaxed);
  return expected;
}

inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_signal_fence(std::memory_order_seq_cst); }

// clang-format off
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldca(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldlu(const T* p) { return *p; }
template <class T> inline void __stwb(T* p, std::type_identity_t<T> value) { *p = value; }
template <class T> inline void __stcg(T* p, std::type_identity_t<T> value) { *p = value; }
template <class T> inline void __stcs(T* p, std::type_identity_t<T> value) { *p = value; }
template <class T> inline void __stwt(T* p, std::type_identity_t<T> value) { *p = value; }
// clang-format on

inline void __nanosleep(unsigned) { simt::yield(); }
inline void __trap() { simt::fail("__trap()"); }
