// simt_host.h -- CUDA kernel sources as plain C++20.  Every thread of a block is a stackful fiber; all fibers of
// a block run on one OS thread, blocks are spread over OS threads.
#pragma once
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#define SIMT_HOST 1

// ---------------------------------------------------------------- keywords
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
// NOT defined on purpose: __noinline__ (libstdc++ spells __attribute__((__noinline__))) and __shared__ (see SIMT_SHARED)

// ---------------------------------------------------------------- vector types
#include "host/vector_types.h"
#include "host/fp16.h"
#include "host/intrinsics.h"
#include "bf16_host.h"

// ---------------------------------------------------------------- runtime API subset
using cudaStream_t = struct simt_stream_*;
using cudaEvent_t = struct simt_event_*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorMemoryAllocation = 2, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719 };
enum cudaMemcpyKind { cudaMemcpyHostToHost, cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice, cudaMemcpyDefault };

namespace simt {
struct Block; struct Warp; struct Fiber;

enum class Order { forward, reverse, random };
enum class AsyncCopy { late, early, random };    // when cp.async really writes shared memory
struct Config {                                  // environment: SIMT_ORDER=fwd|rev|rand:SEED SIMT_CPASYNC=late|early|rand SIMT_WORKERS=n
  Order order = Order::forward;
  uint64_t seed = 1;
  AsyncCopy cpasync = AsyncCopy::late;
  unsigned workers = 0;                          // 0: one per core
  size_t smem_limit = 227 * 1024;                // sm_90; 163K for sm_80, 99K for sm_86/89
  bool strict_exit = true;                       // a thread that returned while others wait at a block barrier is an error
  bool guard_device_memory = false;              // device memory is PROT_NONE while no kernel runs
  bool quiet = false;                            // do not print diagnostics (tests of the checker itself)
};
Config& config();
struct Stats { uint64_t ldmatrix_phases = 0, ldmatrix_conflicts = 0; };   // conflicts: extra shared-memory passes
Stats& stats();                                  // of the launches since it was last zeroed (single-threaded use)
const char* last_error();                        // text of the last failed launch ("" when none)

// one per declaration (and per template instantiation): constant-initialised, no guard variable
struct SharedSite {
  const char* name; const char* file; int line; size_t bytes, align; std::atomic<int> id{-1};
  constexpr SharedSite(const char* n, const char* f, int l, size_t b, size_t a) : name(n), file(f), line(l), bytes(b), align(a) {}
};
void* shared_slot(SharedSite&);
void* dyn_shared();
void smem_check(const void* p, size_t n, const char* what, const char* file, int line);   // inside this block's shared memory?

struct FiberView { uint3 tid; unsigned linear, lane; };      // what kernels read; first member of Fiber
struct BlockView { uint3 bid; dim3 bdim, gdim; };            // first member of Block
extern constinit thread_local FiberView* cur;                // constinit: no TLS wrapper call
extern constinit thread_local BlockView* cur_block;
#if defined(__GNUC__)
#define SIMT_HERE_PARAMS const char* file = __builtin_FILE(), int line = __builtin_LINE()
#endif

// ---- collectives: every lane named in mask arrives with a pointer to its operand record; the last one to arrive
//      runs fn once for the whole warp and makes the others runnable.
using CollectiveFn = void (*)(void* const* rec, uint32_t mask);
void collective(uint32_t mask, CollectiveFn fn, void* rec, bool aligned, const char* what, const char* file, int line);
enum class BarrierOp { none, count, all, any };
int barrier(int id, int nthreads, BarrierOp op, int pred, const char* what, const char* file, int line);
void syncwarp_memory(uint32_t mask, const char* file, int line);
void yield();
[[noreturn]] void fail(const char* fmt, ...) __attribute__((format(printf, 1, 2)));

void cp_async_issue(void* smem, const void* gmem, int bytes, int src_bytes, const char* file, int line);
void cp_async_commit_group();
void cp_async_wait_group(int n);

struct ShflRec { uint64_t in, out; int src; };
void shfl_fn(void* const* rec, uint32_t mask);
struct VoteRec { uint32_t in, out; };
void ballot_fn(void* const*, uint32_t), radd_fn(void* const*, uint32_t), rminu_fn(void* const*, uint32_t), rmaxu_fn(void* const*, uint32_t),
     rmini_fn(void* const*, uint32_t), rmaxi_fn(void* const*, uint32_t), rand_fn(void* const*, uint32_t), ror_fn(void* const*, uint32_t), rxor_fn(void* const*, uint32_t);

cudaError_t run_grid(dim3 grid, dim3 block, size_t smem, void (*invoke)(const void*), const void* pack);

template <class... KP, class... A>
inline cudaError_t launch(void (*kernel)(KP...), dim3 grid, dim3 block, size_t smem, cudaStream_t, A&&... args) {
  struct Pack { void (*k)(KP...); std::tuple<KP...> a; };
  const Pack p{kernel, std::tuple<KP...>(static_cast<KP>(std::forward<A>(args))...)};
  return run_grid(grid, block, smem, [](const void* q) { auto& p = *static_cast<const Pack*>(q); std::apply(p.k, p.a); }, &p);
}
template <class T> inline uint64_t to_bits(T v) { static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>); uint64_t b = 0; std::memcpy(&b, &v, sizeof v); return b; }
template <class T> inline T from_bits(uint64_t b) { T v; std::memcpy(&v, &b, sizeof v); return v; }
template <class T> inline T shfl(uint32_t mask, T v, int src, const char* what, const char* file, int line) {
  ShflRec r{to_bits(v), 0, src};
  collective(mask, shfl_fn, &r, false, what, file, line);
  return from_bits<T>(r.out);
}
inline uint32_t vote(uint32_t mask, CollectiveFn fn, uint32_t in, const char* what, const char* file, int line) {
  VoteRec r{in, 0}; collective(mask, fn, &r, false, what, file, line); return r.out;
}
}  // namespace simt

#define threadIdx (::simt::cur->tid)
#define blockIdx  (::simt::cur_block->bid)
#define blockDim  (::simt::cur_block->bdim)
#define gridDim   (::simt::cur_block->gdim)
#define warpSize  32

#define SIMT_SHARED_ALIGNED(al, T, name, ...)                                                                     \
  using simt_ty_##name = T __VA_ARGS__;                                                                           \
  static constinit ::simt::SharedSite simt_site_##name{#name, __FILE__, __LINE__, sizeof(simt_ty_##name), al};    \
  simt_ty_##name& name = *static_cast<simt_ty_##name*>(::simt::shared_slot(simt_site_##name))
#define SIMT_SHARED(T, name, ...) SIMT_SHARED_ALIGNED(alignof(T), T, name, __VA_ARGS__)
#define SIMT_DYN_SHARED(T, name) T* const name = static_cast<T*>(::simt::dyn_shared())

// ---------------------------------------------------------------- device builtins
inline void __syncthreads(SIMT_HERE_PARAMS) { simt::barrier(0, 0, simt::BarrierOp::none, 0, "__syncthreads", file, line); }
inline int __syncthreads_count(int p, SIMT_HERE_PARAMS) { return simt::barrier(0, 0, simt::BarrierOp::count, p, "__syncthreads_count", file, line); }
inline int __syncthreads_and(int p, SIMT_HERE_PARAMS) { return simt::barrier(0, 0, simt::BarrierOp::all, p, "__syncthreads_and", file, line); }
inline int __syncthreads_or(int p, SIMT_HERE_PARAMS) { return simt::barrier(0, 0, simt::BarrierOp::any, p, "__syncthreads_or", file, line); }
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE_PARAMS) { simt::syncwarp_memory(mask, file, line); }

template <class T> inline T __shfl_sync(unsigned mask, T v, int src, int width = 32, SIMT_HERE_PARAMS) {
  int lane = simt::cur->lane; return simt::shfl(mask, v, (lane & ~(width - 1)) | (src & (width - 1)), "__shfl_sync", file, line); }
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int m, int width = 32, SIMT_HERE_PARAMS) {
  int lane = simt::cur->lane, s = lane ^ m; if (s >= (lane & ~(width - 1)) + width) s = lane; return simt::shfl(mask, v, s, "__shfl_xor_sync", file, line); }
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32, SIMT_HERE_PARAMS) {
  int lane = simt::cur->lane, s = lane + (int)d; if (s >= (lane & ~(width - 1)) + width) s = lane; return simt::shfl(mask, v, s, "__shfl_down_sync", file, line); }
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32, SIMT_HERE_PARAMS) {
  int lane = simt::cur->lane, s = lane - (int)d; if (s < (lane & ~(width - 1))) s = lane; return simt::shfl(mask, v, s, "__shfl_up_sync", file, line); }
inline unsigned __ballot_sync(unsigned mask, int p, SIMT_HERE_PARAMS) { return simt::vote(mask, simt::ballot_fn, p != 0, "__ballot_sync", file, line); }
inline int __any_sync(unsigned mask, int p, SIMT_HERE_PARAMS) { return simt::vote(mask, simt::ballot_fn, p != 0, "__any_sync", file, line) != 0; }
inline int __all_sync(unsigned mask, int p, SIMT_HERE_PARAMS) { return simt::vote(mask, simt::ballot_fn, p == 0, "__all_sync", file, line) == 0; }
inline unsigned __reduce_add_sync(unsigned m, unsigned v, SIMT_HERE_PARAMS) { return simt::vote(m, simt::radd_fn, v, "__reduce_add_sync", file, line); }
inline int      __reduce_add_sync(unsigned m, int v, SIMT_HERE_PARAMS) { return (int)simt::vote(m, simt::radd_fn, (unsigned)v, "__reduce_add_sync", file, line); }
inline unsigned __reduce_min_sync(unsigned m, unsigned v, SIMT_HERE_PARAMS) { return simt::vote(m, simt::rminu_fn, v, "__reduce_min_sync", file, line); }
inline int      __reduce_min_sync(unsigned m, int v, SIMT_HERE_PARAMS) { return (int)simt::vote(m, simt::rmini_fn, (unsigned)v, "__reduce_min_sync", file, line); }
inline unsigned __reduce_max_sync(unsigned m, unsigned v, SIMT_HERE_PARAMS) { return simt::vote(m, simt::rmaxu_fn, v, "__reduce_max_sync", file, line); }
inline int      __reduce_max_sync(unsigned m, int v, SIMT_HERE_PARAMS) { return (int)simt::vote(m, simt::rmaxi_fn, (unsigned)v, "__reduce_max_sync", file, line); }
inline unsigned __reduce_and_sync(unsigned m, unsigned v, SIMT_HERE_PARAMS) { return simt::vote(m, simt::rand_fn, v, "__reduce_and_sync", file, line); }
inline unsigned __reduce_or_sync(unsigned m, unsigned v, SIMT_HERE_PARAMS) { return simt::vote(m, simt::ror_fn, v, "__reduce_or_sync", file, line); }
inline unsigned __reduce_xor_sync(unsigned m, unsigned v, SIMT_HERE_PARAMS) { return simt::vote(m, simt::rxor_fn, v, "__reduce_xor_sync", file, line); }

template <class T> inline T atomicAdd(T* p, std::type_identity_t<T> v) { return std::atomic_ref<T>(*p).fetch_add(v, std::memory_order_relaxed); }
template <class T> inline T atomicExch(T* p, std::type_identity_t<T> v) { return std::atomic_ref<T>(*p).exchange(v, std::memory_order_relaxed); }
template <class T> inline T atomicCAS(T* p, std::type_identity_t<T> c, std::type_identity_t<T> v) { std::atomic_ref<T>(*p).compare_exchange_strong(c, v, std::memory_order_relaxed); return c; }
template <class T> inline T atomicMax(T* p, std::type_identity_t<T> v) { std::atomic_ref<T> r(*p); T o = r.load(std::memory_order_relaxed); while (o < v && !r.compare_exchange_weak(o, v, std::memory_order_relaxed)) {} return o; }
template <class T> inline T atomicMin(T* p, std::type_identity_t<T> v) { std::atomic_ref<T> r(*p); T o = r.load(std::memory_order_relaxed); while (v < o && !r.compare_exchange_weak(o, v, std::memory_order_relaxed)) {} return o; }
template <class T> inline T atomicSub(T* p, std::type_identity_t<T> v) { return std::atomic_ref<T>(*p).fetch_sub(v, std::memory_order_relaxed); }
template <class T> inline T atomicOr(T* p, std::type_identity_t<T> v) { return std::atomic_ref<T>(*p).fetch_or(v, std::memory_order_relaxed); }
template <class T> inline T atomicAnd(T* p, std::type_identity_t<T> v) { return std::atomic_ref<T>(*p).fetch_and(v, std::memory_order_relaxed); }
template <class T> inline T atomicXor(T* p, std::type_identity_t<T> v) { return std::atomic_ref<T>(*p).fetch_xor(v, std::memory_order_relaxed); }
inline unsigned atomicInc(unsigned* p, unsigned lim) { std::atomic_ref<unsigned> r(*p); unsigned o = r.load(); while (!r.compare_exchange_weak(o, o >= lim ? 0 : o + 1)) {} return o; }
template <class T> inline T __ldg(const T* p) { return *p; }
template <class T> inline T __ldcs(const T* p) { return *p; }
template <class T> inline T __ldcg(const T* p) { return *p; }
template <class T> inline T __ldca(const T* p) { return *p; }
template <class T> inline T __ldlu(const T* p) { return *p; }
template <class T> inline void __stwb(T* p, std::type_identity_t<T> v) { *p = v; }
template <class T> inline void __stcs(T* p, std::type_identity_t<T> v) { *p = v; }
template <class T> inline void __stcg(T* p, std::type_identity_t<T> v) { *p = v; }
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_signal_fence(std::memory_order_seq_cst); }
inline void __nanosleep(unsigned) { simt::yield(); }
inline void __trap() { simt::fail("__trap()"); }

// ---------------------------------------------------------------- memory, streams: synchronous
cudaError_t simt_malloc(void** p, size_t n);
template <class T> inline cudaError_t cudaMalloc(T** p, size_t n) { return simt_malloc((void**)p, n); }
cudaError_t cudaFree(void* p);
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind);
cudaError_t cudaMemset(void* d, int v, size_t n);
inline cudaError_t cudaMemcpyAsync(void* d, const void* s, size_t n, cudaMemcpyKind k, cudaStream_t) { return cudaMemcpy(d, s, n, k); }
inline cudaError_t cudaMemsetAsync(void* d, int v, size_t n, cudaStream_t) { return cudaMemset(d, v, n); }
cudaError_t cudaDeviceSynchronize();
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* s, unsigned) { *s = nullptr; return cudaSuccess; }
inline cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total);
inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaDeviceSynchronize(); }
cudaError_t cudaGetLastError();
inline const char* cudaGetErrorString(cudaError_t e) { return e == cudaSuccess ? "no error" : simt::last_error(); }
cudaError_t cudaPeekAtLastError();
enum { cudaStreamNonBlocking = 1, cudaEventDefault = 0, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind);
inline cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind, cudaStream_t) {
  return cudaMemcpy2D(to, to_pitch, from, from_pitch, width, height, kind);
}
template <class T> inline cudaError_t cudaMallocAsync(T** p, size_t n, cudaStream_t) { return cudaMalloc(p, n); }
inline cudaError_t cudaFreeAsync(void* p, cudaStream_t) { return cudaFree(p); }
template <class T> inline cudaError_t cudaMallocHost(T** p, size_t n) { *p = static_cast<T*>(std::malloc(n)); return *p || !n ? cudaSuccess : cudaErrorMemoryAllocation; }
inline cudaError_t cudaFreeHost(void* p) { std::free(p); return cudaSuccess; }
inline cudaError_t cudaStreamCreate(cudaStream_t* s) { *s = nullptr; return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned = 0) { return cudaSuccess; }
// Events: work is done when it is recorded, so an event is the time of day.
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags);
inline cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventDestroy(cudaEvent_t event);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t = nullptr);
inline cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end);
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrComputeCapabilityMajor = 75, cudaDevAttrComputeCapabilityMinor = 76, cudaDevAttrMaxSharedMemoryPerBlockOptin = 97 };
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
inline cudaError_t cudaGetDevice(int* device) { *device = 0; return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
