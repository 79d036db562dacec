// Copies between the host and the device, through pinned buffers and on a stream of their own, so that the bus works
// beside the kernels and the host need not wait for either.
//
//   upload:    from --host--> pinned half of a slot --copy stream--> its half on the device --compute stream--> to
//   download:  from --copy stream--> pinned half of a slot --host--> to
//
// What is ordered with what:
// * the compute stream's copy out of a slot waits for the copy stream's copy into it (the event `arrived`): kernels
//   called after the upload see its data, those before it run on meanwhile and may still read what `to` held;
// * the copy stream waits, before it fills a slot's device half again, until the compute stream has taken what it held
//   (the event `taken`);
// * the host waits, before it fills a pinned half again, until the bus has read it (`arrived`);
// * a download waits on the copy stream for all that the compute stream was given before, and the host for the
//   download.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "cuda/simt/simt.h"

namespace longhand::LONGHAND_GPU {

class Transfers {
 public:
  explicit Transfers(cudaStream_t compute);
  ~Transfers();
  Transfers(const Transfers&) = delete;

  /// `from` may change once this returns.
  void upload(void* to, const void* from, int64_t bytes);

  struct Download {
    void* to;
    const void* from;
    int64_t bytes;
  };
  /// Returns when all have arrived.
  void download(std::initializer_list<Download> pieces);

 private:
  /// Grown when a larger piece comes.
  struct Slot {
    char *pinned = nullptr, *device = nullptr;
    int64_t bytes = 0;
    cudaEvent_t arrived = nullptr, taken = nullptr;
  };
  static constexpr int slot_count = 4;
  static constexpr int64_t least_bytes = 64 << 10, most_bytes = 4 << 20;

  Slot& next_slot(int64_t bytes);

  cudaStream_t compute_, copy_ = nullptr;
  cudaEvent_t computed_ = nullptr;
  Slot slots_[slot_count];
  int64_t taken_slots_ = 0;
};

}  // namespace longhand::LONGHAND_GPU
