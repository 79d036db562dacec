#include "detector.h"

#include "cuda/simt/host/symbols.h"

namespace simt::race {

Detector& detector() {
  static auto* one = new Detector;  // lives to the program's end: memory is freed late
  return *one;
}

namespace {

const bool installed = (observer = &detector(), true);

}  // namespace

void Detector::launch_begins(const Launch& launch) {
  kernel_ = kernel_name(function_name(launch.kernel));
  first_report_.clear(), reported_.clear(), released_.clear();
  ++launch_run_;
}

const char* Detector::launch_ends() {
  if (first_report_.empty()) return nullptr;
  if (reported_.size() > 1) first_report_ += "; " + std::to_string(reported_.size() - 1) + " more";
  return first_report_.c_str();
}

void Detector::block_begins(const void* arena, size_t bytes, unsigned block) {
  if (!shared_ || shared_->first() != arena) shared_ = std::make_unique<Shadow>(arena, bytes);
  block_ = block, ++block_run_;
  clocks_->reset(), regions_.clear(), acquired_.clear();
}

void Detector::shared_declared(const void* p, size_t bytes, const char* name) {
  regions_.push_back({static_cast<const char*>(p), bytes, name});
}

void Detector::copy_under_way(const void* p, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i) shared_->at(static_cast<const char*>(p) + i).initialised = 0;
}

void Detector::memory_allocated(const void* p, size_t bytes) { device_[p] = std::make_unique<Shadow>(p, bytes); }

void Detector::memory_freed(const void* p) {
  last_device_ = nullptr;
  device_.erase(p);
}

Shadow* Detector::device_shadow(const void* p) {
  if (last_device_ && last_device_->contains(p)) return last_device_;
  auto after = device_.upper_bound(p);
  if (after == device_.begin()) return nullptr;
  Shadow* shadow = std::prev(after)->second.get();
  return shadow->contains(p) ? last_device_ = shadow : nullptr;
}

void Detector::set_initialised(const void* p, size_t bytes, bool initialised) {
  Shadow* shadow = device_shadow(p);
  if (!shadow) return;
  for (size_t i = 0; i < bytes; ++i) shadow->at(static_cast<const char*>(p) + i).initialised = initialised;
}

const Detector::Region* Detector::shared_region(const char* p) const {
  for (const Region& region : regions_)
    if (p >= region.first && p < region.first + region.bytes) return &region;
  return nullptr;
}

std::string Detector::describe(const char* p) {
  if (!shared_->contains(p)) {
    Shadow* shadow = device_shadow(p);
    return "byte " + std::to_string(p - shadow->first()) + " of " + std::to_string(shadow->bytes()) +
           " of device memory";
  }
  const Region* region = shared_region(p);
  return region ? "byte " + std::to_string(p - region->first) + " of " + region->name : "shared memory of no array";
}

/// Notes the first of each kind and place; returns false, so that a check ends with it.
bool Detector::report(const char* what, const char* p, const Event& event, const Access* other) {
  if (!reported_.insert({event.code, what}).second || !first_report_.empty()) return false;
  first_report_ =
      std::string(what) + ": block " + std::to_string(block_) + " thread " + std::to_string(event.now.thread);
  first_report_ += event.use == Use::read ? " reads " : event.use == Use::write ? " writes " : " changes ";
  first_report_ += describe(p);
  if (other)
    first_report_ += ", as does thread " + std::to_string(other->thread) +
                     (other->block == event.now.block ? "" : " of block " + std::to_string(other->block));
  first_report_ += " (" + kernel_ + ", " + (event.code ? code_place(event.code) : std::string("cp.async")) + ")";
  return false;
}

bool Detector::before(const Access& earlier, const Event& event, bool shared) const {
  if (!shared && earlier.block != event.now.block) return acquired_.count(earlier.block);
  return clocks_->before(earlier, event.now.thread);
}

void Detector::remember_reader(Cell& cell, const Event& event, bool shared) {
  for (Access& reader : cell.reader)
    if (!reader.any || before(reader, event, shared)) {
      reader = event.now;
      return;
    }
  cell.reader[event.now.thread / 32 % 2] = event.now;
}

bool Detector::check_byte(Cell& cell, const char* p, const Event& event, bool shared) {
  const uint32_t run = shared ? block_run_ : launch_run_;
  if (cell.run != run) {
    cell.writer = cell.reader[0] = cell.reader[1] = Access{};
    cell.run = run;
    if (shared) cell.initialised = 0;
  }
  if (event.use != Use::write && !cell.initialised) return report("never written", p, event, nullptr);
  auto races = [&](const Access& earlier) {
    return earlier.any && !(earlier.atomic && event.use == Use::atomic) && !before(earlier, event, shared);
  };
  if (races(cell.writer)) return report("race", p, event, &cell.writer);
  if (event.use == Use::read) {
    remember_reader(cell, event, shared);
    return true;
  }
  for (const Access& reader : cell.reader)
    if (races(reader)) return report("race", p, event, &reader);
  cell.writer = event.now;
  cell.initialised = 1;
  return true;
}

void Detector::meet_through_atomic(const void* p) {
  auto& released = released_[p];
  acquired_.insert(released.begin(), released.end());
  released.insert(block_);
}

void Detector::access(const void* p, size_t bytes, Use use, const void* code) {
  if (!current_thread || bytes == 0) return;
  auto* first = static_cast<const char*>(p);
  const bool shared = shared_->contains(p);
  Shadow* shadow = shared ? shared_.get() : device_shadow(p);
  if (!shadow) return;  // a stack, a constant
  Event event{clocks_->now(current_thread->linear), use, code};
  event.now.block = block_, event.now.atomic = use == Use::atomic;
  if (shared) {
    const Region* region = shared_region(first);
    if (!region || first + bytes > region->first + region->bytes) {
      report("outside every array", first, event, nullptr);
      return;
    }
  } else if (use == Use::atomic) {
    meet_through_atomic(p);
  }
  // The bytes of a word mostly have one history: what the first comes to, the others come to.
  Cell* cells = &shadow->at(first);
  const Cell earlier = cells[0];
  if (!check_byte(cells[0], first, event, shared)) return;
  for (size_t i = 1; i < bytes && shadow->contains(first + i); ++i)
    if (std::memcmp(&cells[i], &earlier, sizeof earlier) == 0)
      cells[i] = cells[0];
    else if (!check_byte(cells[i], first + i, event, shared))
      return;
}

}  // namespace simt::race
