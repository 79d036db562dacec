// A block at run time: its threads are fibers, grouped in warps, and wait at barriers or for the lanes of their warp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "config.h"
#include "launch.h"
#include "place.h"
#include "sanitizers.h"
#include "thread_view.h"
#include "warp.h"

namespace simt {

constexpr int max_threads = 1024, max_warps = max_threads / 32, max_barriers = 16;

struct Block;
struct Warp;

/// A stack and where on it execution stands.
struct Context {
  void* stack_pointer = nullptr;
  SanitizedStack sanitized;
};

struct AsyncCopyUnderWay {
  void* to;
  const void* from;
  int bytes, given, group;
};

/// One thread of the block. What a switch touches comes first.
struct alignas(64) Fiber : ThreadView {
  Context context;
  Warp* warp = nullptr;
  Block* block = nullptr;
  const char* waits_for = nullptr;
  Place waits_at;
  char* stack = nullptr;  // its lowest byte
  std::vector<AsyncCopyUnderWay> copies;
  int copy_group = 0;
};

/// An operation that some lanes of a warp have come to and others have not.
struct alignas(64) Meeting {
  uint32_t mask, arrived;
  WarpFunction function;
  bool aligned;
  const char* what;
  Place place;
  void* operand[32];
};

/// Masks have a bit a lane.
struct Warp {
  uint32_t ready = 0, alive = 0, exists = 0;
  unsigned index = 0;
  int meetings = 0;  // several when parts of the warp do different things
  Fiber* fibers = nullptr;
  uint32_t at_barrier[max_barriers] = {};
  Meeting meeting[32];
};

struct Barrier {
  int arrived = 0, expected = 0;
  int holds = 0, result = 0;   // threads whose predicate held: so far, and when it last opened
  const char* what = nullptr;  // null: nobody waits
  Place place;
};

struct Block : BlockView {
  const Launch* launch = nullptr;
  int threads = 0, warps = 0, alive = 0;
  bool failed = false;
  Warp warp[max_warps];
  Barrier barrier[max_barriers];

  // Order. A random one is a strict priority of warps and a rotation of lanes, redrawn at every barrier: choosing at
  // every switch would keep the warps close together and hide the races that need one to run ahead.
  Order order = Order::forward;
  AsyncCopy async_copy = AsyncCopy::late;
  uint64_t random_state = 1;
  uint8_t priority[max_warps] = {};
  int rotation = 0;
  bool lanes_downwards = false;

  // Shared memory: [dynamic | gap | piece | gap | piece ...], pieces in the order of their first use.
  char* arena = nullptr;
  size_t dynamic = 0, used = 0, limit = 0;
  size_t declared = 0;       // what ptxas would count as static
  std::vector<void*> piece;  // by site
};

/// A 64-bit random word (xorshift64*).
inline uint64_t draw(Block& block) {
  uint64_t& state = block.random_state;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state * 0x2545F4914F6CDD1Dull;
}

inline Fiber& running() { return *static_cast<Fiber*>(current_thread); }

}  // namespace simt
