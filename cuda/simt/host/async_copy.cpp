#include "async_copy.h"

#include <cstring>

#include "observer.h"
#include "scheduler.h"
#include "shared_memory.h"

namespace simt {
namespace {

void land(const AsyncCopyUnderWay& copy) {
  if (observer) {
    observer->accessed(copy.from, copy.given, false, nullptr);
    observer->accessed(copy.to, copy.bytes, true, nullptr);
  }
  std::memcpy(copy.to, copy.from, copy.given);
  std::memset(static_cast<char*>(copy.to) + copy.given, 0, copy.bytes - copy.given);
}

bool lands_at_once(Block& block) {
  if (block.async_copy == AsyncCopy::random) return draw(block) >> 40 & 1;
  return block.async_copy == AsyncCopy::early;
}

}  // namespace

void copy_async(void* to, const void* from, int bytes, int given, Place place) {
  Fiber& self = running();
  if (given < 0 || given > bytes) fail("cp.async at %s:%d copies %d of %d bytes", place.file, place.line, given, bytes);
  const uintptr_t misaligned =
      (reinterpret_cast<uintptr_t>(to) | (given ? reinterpret_cast<uintptr_t>(from) : 0)) % bytes;
  if (misaligned) fail("cp.async at %s:%d: %p <- %p are not %d-byte aligned", place.file, place.line, to, from, bytes);
  check_shared(to, bytes, "cp.async", place);
  AsyncCopyUnderWay copy{to, from, bytes, given, self.copy_group};
  if (lands_at_once(*self.block)) return land(copy);
  if (observer) {
    observer->accessed(to, bytes, true, nullptr);
    observer->copy_under_way(to, bytes);
  }
  std::memset(to, 0xff, bytes);
  self.copies.push_back(copy);
}

void copy_async_commit() { ++running().copy_group; }

void copy_async_wait(int groups_left) {
  Fiber& self = running();
  auto copy = self.copies.begin();
  for (; copy != self.copies.end() && copy->group < self.copy_group - groups_left; ++copy) land(*copy);
  self.copies.erase(self.copies.begin(), copy);
}

}  // namespace simt
