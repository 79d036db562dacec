#include "shared_memory.h"

#include <algorithm>
#include <mutex>

#include "observer.h"
#include "scheduler.h"
#include "worker.h"

namespace simt {
namespace {

constexpr size_t gap = 64;                  // unaddressable bytes between pieces
constexpr size_t static_limit = 48 * 1024;  // ptxas refuses more

std::atomic<int> sites{0};

int number_of(SharedSite& site) {
  int id = site.id.load(std::memory_order_acquire);
  if (id >= 0) return id;
  static std::mutex mutex;
  std::lock_guard lock(mutex);
  id = site.id.load();
  if (id < 0) site.id.store(id = sites++, std::memory_order_release);
  return id;
}

size_t round_up(size_t value, size_t alignment) { return (value + alignment - 1) / alignment * alignment; }

void* new_piece(Block& block, SharedSite& site) {
  block.declared = round_up(block.declared, site.alignment) + site.bytes;
  if (block.declared > static_limit)
    fail("%zu bytes of static shared memory with %s (%s:%d); ptxas allows %zu", block.declared, site.name,
         site.place.file, site.place.line, static_limit);
  if (block.declared + block.dynamic > block.limit)
    fail("%zu static and %zu dynamic bytes of shared memory with %s (%s:%d); the limit is %zu", block.declared,
         block.dynamic, site.name, site.place.file, site.place.line, block.limit);
  // An odd multiple of the alignment, so that an access which needs more of it is noticed.
  const size_t alignment = std::max<size_t>(site.alignment, 4);
  const size_t at = round_up(block.used + gap, 2 * alignment) + alignment;
  if (at + site.bytes + gap > arena_bytes) fail("the arena of shared memory is too small for %s", site.name);
  block.used = at + site.bytes;
  void* piece = block.arena + at;
  permit(piece, site.bytes);
  if (observer) observer->shared_declared(piece, site.bytes, site.name);
  return piece;
}

}  // namespace

void* shared_piece(SharedSite& site) {
  Block& block = *running().block;
  const size_t id = number_of(site);
  if (id >= block.piece.size()) block.piece.resize(id + 1, nullptr);
  if (!block.piece[id]) block.piece[id] = new_piece(block, site);
  return block.piece[id];
}

void* dynamic_shared() { return running().block->arena; }

void check_shared(const void* p, size_t bytes, const char* what, Place place) {
  const Block& block = *running().block;
  auto* first = static_cast<const char*>(p);
  if (first < block.arena || first + bytes > block.arena + block.used)
    fail("%s at %s:%d: %p is not in this block's shared memory", what, place.file, place.line, p);
}

}  // namespace simt
