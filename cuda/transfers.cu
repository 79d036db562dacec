#include "cuda/transfers.h"

#include <algorithm>
#include <cstring>

#include "longhand/error.h"

namespace longhand::LONGHAND_GPU {
namespace {

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail("{}: {}: {}", SIMT_HOST ? "simt" : "cuda", what, cudaGetErrorString(status));
}

}  // namespace

Transfers::Transfers(cudaStream_t compute) : compute_(compute) {
  check(cudaStreamCreateWithFlags(&copy_, cudaStreamNonBlocking), "creating a stream for copies");
  check(cudaEventCreateWithFlags(&computed_, cudaEventDisableTiming), "creating an event");
  for (Slot& slot : slots_)
    for (cudaEvent_t* event : {&slot.arrived, &slot.taken})
      check(cudaEventCreateWithFlags(event, cudaEventDisableTiming), "creating an event");
}

Transfers::~Transfers() {
  cudaStreamSynchronize(copy_);
  cudaStreamSynchronize(compute_);
  for (Slot& slot : slots_) {
    if (slot.pinned) cudaFreeHost(slot.pinned);
    cudaFree(slot.device);
    cudaEventDestroy(slot.arrived), cudaEventDestroy(slot.taken);
  }
  cudaEventDestroy(computed_);
  cudaStreamDestroy(copy_);
}

/// The next of the ring, its pinned half free.
Transfers::Slot& Transfers::next_slot(int64_t bytes) {
  Slot& slot = slots_[taken_slots_++ % slot_count];
  check(cudaEventSynchronize(slot.arrived), "waiting for a copy");
  if (slot.bytes >= bytes) return slot;
  check(cudaEventSynchronize(slot.taken), "waiting for a copy");
  if (slot.pinned) cudaFreeHost(slot.pinned);
  cudaFree(slot.device);
  slot.pinned = slot.device = nullptr, slot.bytes = 0;
  int64_t grown = least_bytes;
  while (grown < bytes) grown *= 2;
  check(cudaMallocHost(&slot.pinned, grown), "pinned memory for copies");
  check(cudaMalloc(&slot.device, grown), "memory for copies");
  slot.bytes = grown;
  return slot;
}

void Transfers::upload(void* to, const void* from, int64_t bytes) {
  for (int64_t at = 0; at < bytes; at += most_bytes) {
    int64_t count = std::min(most_bytes, bytes - at);
    Slot& slot = next_slot(count);
    std::memcpy(slot.pinned, static_cast<const char*>(from) + at, count);
    check(cudaStreamWaitEvent(copy_, slot.taken), "an upload");
    check(cudaMemcpyAsync(slot.device, slot.pinned, count, cudaMemcpyHostToDevice, copy_), "an upload");
    check(cudaEventRecord(slot.arrived, copy_), "an upload");
    check(cudaStreamWaitEvent(compute_, slot.arrived), "an upload");
    check(cudaMemcpyAsync(static_cast<char*>(to) + at, slot.device, count, cudaMemcpyDeviceToDevice, compute_),
          "an upload");
    check(cudaEventRecord(slot.taken, compute_), "an upload");
  }
}

void Transfers::download(std::initializer_list<Download> pieces) {
  check(cudaEventRecord(computed_, compute_), "a download");
  check(cudaStreamWaitEvent(copy_, computed_), "a download");
  struct Flight {
    Slot* slot = nullptr;
    char* to = nullptr;
    int64_t bytes = 0;
  } flying[slot_count];
  int64_t started = 0;
  auto land = [](Flight& flight) {
    if (!flight.slot) return;
    check(cudaEventSynchronize(flight.slot->arrived), "a download");
    std::memcpy(flight.to, flight.slot->pinned, flight.bytes);
    flight.slot = nullptr;
  };
  for (const Download& piece : pieces)
    for (int64_t at = 0; at < piece.bytes; at += most_bytes) {
      Flight& flight = flying[started++ % slot_count];
      land(flight);  // the slot that comes next is the one that this flight has
      int64_t count = std::min(most_bytes, piece.bytes - at);
      Slot& slot = next_slot(count);
      check(
          cudaMemcpyAsync(slot.pinned, static_cast<const char*>(piece.from) + at, count, cudaMemcpyDeviceToHost, copy_),
          "a download");
      check(cudaEventRecord(slot.arrived, copy_), "a download");
      flight = {&slot, static_cast<char*>(piece.to) + at, count};
    }
  for (int64_t i = 0; i < slot_count; ++i) land(flying[(started + i) % slot_count]);
}

}  // namespace longhand::LONGHAND_GPU
