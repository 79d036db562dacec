#include "scheduler.h"

#include <bit>
#include <map>
#include <string>

#include "context_switch.h"
#include "worker.h"

namespace simt {

constinit thread_local ThreadView* current_thread = nullptr;
constinit thread_local BlockView* current_block = nullptr;

namespace {

int lowest(uint32_t lanes) { return std::countr_zero(lanes); }
int highest(uint32_t lanes) { return 31 - std::countl_zero(lanes); }

Fiber* first_forward(Block& block, unsigned warp) {
  for (int i = 0; i < block.warps; ++i) {
    Warp& candidate = block.warp[(warp + i) % block.warps];
    if (candidate.ready) return &candidate.fibers[lowest(candidate.ready)];
  }
  return nullptr;
}

Fiber* first_reverse(Block& block, unsigned warp) {
  for (int i = 0; i < block.warps; ++i) {
    Warp& candidate = block.warp[(warp + block.warps - i) % block.warps];
    if (candidate.ready) return &candidate.fibers[highest(candidate.ready)];
  }
  return nullptr;
}

Fiber* first_random(Block& block, unsigned warp) {
  auto lane = [&](uint32_t ready) {
    ready = std::rotr(ready, block.rotation);
    return ((block.lanes_downwards ? highest(ready) : lowest(ready)) + block.rotation) & 31;
  };
  if (uint32_t ready = block.warp[warp].ready) return &block.warp[warp].fibers[lane(ready)];
  for (int i = 0; i < block.warps; ++i) {
    Warp& candidate = block.warp[block.priority[i]];
    if (candidate.ready) return &candidate.fibers[lane(candidate.ready)];
  }
  return nullptr;
}

void change_context(Context& from, Context& to) {
  from.sanitized.leave_for(to.sanitized);
  simt_switch(&from.stack_pointer, to.stack_pointer);
  from.sanitized.arrive();
}

}  // namespace

Fiber* next_fiber(Block& block, unsigned warp) {
  if (block.order == Order::forward) return first_forward(block, warp);
  if (block.order == Order::reverse) return first_reverse(block, warp);
  return first_random(block, warp);
}

void redraw_order(Block& block) {
  for (int i = 0; i < block.warps; ++i) block.priority[i] = static_cast<uint8_t>(i);
  for (int i = block.warps - 1; i > 0; --i) std::swap(block.priority[i], block.priority[(draw(block) >> 33) % (i + 1)]);
  block.rotation = static_cast<int>(draw(block) >> 59);
  block.lanes_downwards = draw(block) >> 63;
}

void switch_to(Fiber& to) {
  Fiber& from = running();
  if (&to == &from) return;
  current_thread = &to;
  change_context(from.context, to.context);
}

void switch_to_worker() {
  Fiber& from = running();
  current_thread = nullptr;
  change_context(from.context, current_worker->own_context());
}

void wait(const char* what, Place place) {
  Fiber& self = running();
  Warp& warp = *self.warp;
  Block& block = *self.block;
  self.waits_for = what, self.waits_at = place;
  warp.ready &= ~(1u << self.lane);
  const bool in_own_warp = warp.ready && block.order == Order::forward;  // the usual case, without a call
  Fiber* next = in_own_warp ? &warp.fibers[lowest(warp.ready)] : next_fiber(block, warp.index);
  if (!next) fail_deadlocked(block);
  switch_to(*next);
}

void yield() {
  Fiber& self = running();
  Warp& warp = *self.warp;
  Block& block = *self.block;
  warp.ready &= ~(1u << self.lane);
  Fiber* next = next_fiber(block, (warp.index + 1) % block.warps);
  warp.ready |= 1u << self.lane;
  if (next) switch_to(*next);
}

void fail_deadlocked(Block& block) {
  std::map<std::string, std::vector<int>> threads_at;
  for (int i = 0; i < block.threads; ++i) {
    const Warp& warp = block.warp[i / 32];
    const Fiber& fiber = warp.fibers[i % 32];
    std::string at = "that returned";
    if (warp.alive >> (i % 32) & 1)
      at = std::string("at ") + fiber.waits_for + " " + fiber.waits_at.file + ":" + std::to_string(fiber.waits_at.line);
    threads_at[at].push_back(i);
  }
  std::string report;
  for (auto& [at, threads] : threads_at) {
    report += (report.empty() ? "" : "; ") + std::to_string(threads.size()) + " threads " + at + " (";
    for (size_t i = 0; i < threads.size() && i < 6; ++i) report += (i ? ", " : "") + std::to_string(threads[i]);
    report += threads.size() > 6 ? ", ...)" : ")";
  }
  fail("deadlock, no thread can go on: %s", report.c_str());
}

}  // namespace simt
