// Shared memory. Every declaration is a site; a block gives a site its piece of the arena when a thread first comes by.
// A piece has exactly its alignment, unaddressable bytes around it, and starts as NaN.
#pragma once
#include <atomic>
#include <cstddef>

#include "place.h"

namespace simt {

/// One declaration in one instance of its template. Constant-initialised: no guard variable is tested at each pass.
struct SharedSite {
  const char* name;
  Place place;
  size_t bytes, alignment;
  std::atomic<int> id{-1};
  constexpr SharedSite(const char* name_, Place place_, size_t bytes_, size_t alignment_)
      : name(name_), place(place_), bytes(bytes_), alignment(alignment_) {}
};
void* shared_piece(SharedSite& site);
void* dynamic_shared();

/// Fails when [p, p + bytes) does not lie in this block's shared memory.
void check_shared(const void* p, size_t bytes, const char* what, Place place);

}  // namespace simt

#define SIMT_SHARED_ALIGNED(alignment, T, name, ...)                                                \
  using simt_type_of_##name = T __VA_ARGS__;                                                        \
  static constinit ::simt::SharedSite simt_site_of_##name{#name, ::simt::Place{__FILE__, __LINE__}, \
                                                          sizeof(simt_type_of_##name), alignment};  \
  simt_type_of_##name& name = *static_cast<simt_type_of_##name*>(::simt::shared_piece(simt_site_of_##name))
#define SIMT_SHARED(T, name, ...) SIMT_SHARED_ALIGNED(alignof(T), T, name, __VA_ARGS__)
#define SIMT_DYN_SHARED(T, name) T* const name = static_cast<T*>(::simt::dynamic_shared())
