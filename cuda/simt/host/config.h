// How kernels run: which thread goes first, when asynchronous copies land, what is guarded. Results must not depend on
// it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace simt {

enum class Order { forward, reverse, random };
enum class AsyncCopy { late, early, random };
enum class Streams { now, late };

/// Read once from the environment; an unknown value ends the program.
struct Config {
  Order order = Order::forward;  // SIMT_ORDER=fwd|rev|rand:SEED, the order of threads, warps and blocks
  uint64_t seed = 1;
  AsyncCopy async_copy = AsyncCopy::late;  // SIMT_CPASYNC=late|early|rand: cp.async lands when waited for, or at once
  Streams streams = Streams::now;    // SIMT_STREAMS=now|late: work on a stream runs at once, or when it is waited for
  unsigned workers = 0;              // SIMT_WORKERS=N, threads of the host that blocks are spread over; 0: every core
  bool guard = false;                // SIMT_GUARD=1: the host cannot touch device memory but through cudaMemcpy
  size_t stack_bytes = 0;            // a thread's stack; 0: 64 KiB, 256 KiB under the address sanitizer
  size_t shared_limit = 227 * 1024;  // bytes of shared memory a block may have: sm_90's; sm_80 has 163 K, sm_89 99 K
};
Config& config();

/// What the launches since `counters() = {}` did. A phase reads eight 16-byte rows at once when they lie in different
/// banks; each conflict is one pass more.
struct Counters {
  uint64_t ldmatrix_phases = 0, ldmatrix_conflicts = 0;
  uint64_t graphs_built = 0, graphs_updated = 0, graphs_launched = 0;
};
Counters& counters();

}  // namespace simt
