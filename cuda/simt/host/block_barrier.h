// Barriers of a block: __syncthreads, its three counting forms, and the named ones that ptx/named_barrier.h spells.
#pragma once
#include "place.h"

namespace simt {

/// Waits at barrier 0 for every thread of the block; returns in how many of them `predicate` holds.
int block_barrier(bool predicate, const char* what, Place place);
void named_barrier(int id, int threads, Place place);
void named_barrier_arrive(int id, int threads, Place place);

/// Threads of the running block, those that have returned too.
int block_threads();

}  // namespace simt

inline void __syncthreads(simt::Place place = simt::Place::here()) {
  simt::block_barrier(false, "__syncthreads", place);
}
inline int __syncthreads_count(int predicate, simt::Place place = simt::Place::here()) {
  return simt::block_barrier(predicate != 0, "__syncthreads_count", place);
}
inline int __syncthreads_or(int predicate, simt::Place place = simt::Place::here()) {
  return simt::block_barrier(predicate != 0, "__syncthreads_or", place) != 0;
}
inline int __syncthreads_and(int predicate, simt::Place place = simt::Place::here()) {
  return simt::block_barrier(predicate != 0, "__syncthreads_and", place) == simt::block_threads();
}
