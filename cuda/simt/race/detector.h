// Finds, in the very run that is observed: two accesses to one byte of which one writes and that nothing orders, reads
// of what was never written, and accesses outside every array of shared memory. Kernels are compiled with
// -fsanitize=thread, whose calls at every load and store come here (callbacks.cpp); nothing else is instrumented and
// libtsan is not linked.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "clocks.h"
#include "cuda/simt/host/observer.h"

namespace simt::race {

enum class Use { read, write, atomic };

class Detector final : public Observer {
 public:
  void launch_begins(const Launch& launch) override;
  const char* launch_ends() override;
  void block_begins(const void* arena, size_t bytes, unsigned block) override;
  void shared_declared(const void* p, size_t bytes, const char* name) override;
  void barrier_arrived(int id, unsigned thread) override { clocks_->barrier_arrived(id, thread); }
  void barrier_opened(int id) override { clocks_->barrier_opened(id); }
  void barrier_left(int id, unsigned thread) override { clocks_->barrier_left(id, thread); }
  void warp_barrier_met(uint32_t lanes, unsigned thread) override { clocks_->warp_barrier_met(lanes, thread); }
  void copy_under_way(const void* p, size_t bytes) override;
  void accessed(const void* p, size_t bytes, bool writes, const void* code) override {
    access(p, bytes, writes ? Use::write : Use::read, code);
  }
  void memory_allocated(const void* p, size_t bytes) override;
  void memory_freed(const void* p) override;
  void memory_written(const void* p, size_t bytes) override { set_initialised(p, bytes, true); }
  void memory_undefined(const void* p, size_t bytes) override { set_initialised(p, bytes, false); }

  void access(const void* p, size_t bytes, Use use, const void* code);

 private:
  struct Region {
    const char* first;
    size_t bytes;
    std::string name;
  };
  /// The access being looked at.
  struct Event {
    Access now;
    Use use;
    const void* code;
  };

  bool before(const Access& earlier, const Event& event, bool shared) const;
  bool check_byte(Cell& cell, const char* p, const Event& event, bool shared);
  void remember_reader(Cell& cell, const Event& event, bool shared);
  void meet_through_atomic(const void* p);
  Shadow* device_shadow(const void* p);
  const Region* shared_region(const char* p) const;
  void set_initialised(const void* p, size_t bytes, bool initialised);
  bool report(const char* what, const char* p, const Event& event, const Access* other);
  std::string describe(const char* p);

  std::unique_ptr<Clocks> clocks_ = std::make_unique<Clocks>();
  std::unique_ptr<Shadow> shared_;
  std::vector<Region> regions_;
  std::map<const void*, std::unique_ptr<Shadow>> device_;  // by the first address
  Shadow* last_device_ = nullptr;
  unsigned block_ = 0;
  uint32_t block_run_ = 0, launch_run_ = 0;

  // Blocks that meet at an atomic word: the later one comes after the earlier.
  std::map<const void*, std::set<unsigned>> released_;
  std::set<unsigned> acquired_;

  std::string kernel_;
  std::string first_report_;
  std::set<std::pair<const void*, std::string>> reported_;
};

/// The detector that this program has.
Detector& detector();

}  // namespace simt::race
