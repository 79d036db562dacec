// race_rt.cpp -- exact shared-memory race / uninitialised-read / out-of-bounds detector, no source changes:
// kernels are compiled with -fsanitize=thread but linked WITHOUT libtsan; this file supplies the callbacks that the
// compiler inserted before every load and store.  Shadow: one cell per byte of the block's shared arena.
//   two accesses race  <=>  different threads, at least one writes, and nothing orders them:
//     no barrier both took part in (vector clocks per warp, so named barriers work), no __syncwarp of one warp
// Global memory: one cell per 4-byte word in a hash-free direct table keyed by address, same rule inside a block, and
// any conflicting pair from two blocks races.
#include "../simt_host.h"
#include "../hooks.h"
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace simt {
namespace {
struct Cell { uint16_t wt, rt; uint32_t we, ww, re, rw; uint8_t init, many; };   // writer/reader thread, block epoch, warp epoch
struct GCell { uint32_t wb = ~0u, rb = ~0u; uint16_t wt = 0, rt = 0; uint32_t we = 0, ww = 0, re = 0, rw = 0; bool manyb = false, atomic = false; };
constexpr uint16_t NOBODY = 0xffff;
char* arena; size_t arena_len; int nthreads; unsigned block; unsigned grid_id;
std::vector<Cell> shadow; std::vector<uint8_t> live;
// clocks: clk[t] counts barriers thread t has left; vc[t][w] = every access of warp w with clock below it happened before t
uint32_t clk[1024], wepoch[1024], vc[1024][32]; struct BarClock { uint32_t in[32], out[32]; } bc[16];
std::unordered_map<uintptr_t, GCell> global_shadow;
struct Region { char* p; size_t n; std::string name; }; std::vector<Region> regions;
std::unordered_set<uint64_t> seen; int reports;
bool global_on = !getenv("SIMT_RACE_SHARED_ONLY");

void where(const void* pc, char* out, size_t n) {
  Dl_info i; if (pc && dladdr(pc, &i) && i.dli_fname) snprintf(out, n, "%s+0x%zx", i.dli_fname, (size_t)((const char*)pc - (const char*)i.dli_fbase)); else snprintf(out, n, "cp.async");
}
void report(const char* kind, const void* addr, const void* pc, int me, int other, const char* how) {
  uint64_t key = (uint64_t)pc * 31 + kind[0] * 131 + how[0]; if (!seen.insert(key).second) return;
  char w[256]; where(pc, w, sizeof w); std::string in = "global memory";
  if ((char*)addr >= arena && (char*)addr < arena + arena_len) { in = "shared memory"; for (auto& r : regions) if ((char*)addr >= r.p && (char*)addr < r.p + r.n) { in = r.name + " byte " + std::to_string((char*)addr - r.p); break; } }
  fprintf(stderr, "simt %s: block %u thread %d %s (other thread %d) on %s at %s\n", kind, block, me, how, other, in.c_str(), w);
  reports++;
}
void block_begin(void* a, size_t len, int n, unsigned b) {
  if (block > b || b == 0) { global_shadow.clear(); }              // new launch (single worker, ascending blocks)
  arena = (char*)a; arena_len = len; nthreads = n; block = b;
  shadow.assign(len, Cell{NOBODY, NOBODY, 0, 0, 0, 0, 0, 0}); live.assign(len, 0); regions.clear();
  std::memset(clk, 0, sizeof clk); std::memset(wepoch, 0, sizeof wepoch); std::memset(vc, 0, sizeof vc); std::memset(bc, 0, sizeof bc);
}
void smem_region(void* p, size_t n, const char* name) { std::memset(&live[(char*)p - arena], 1, n); regions.push_back({(char*)p, n, name}); }
void bar_arrive(int id, unsigned t) {
  auto& in = bc[id].in; for (int w = 0; w < 32; w++) in[w] = std::max(in[w], vc[t][w]);
  in[t / 32] = std::max(in[t / 32], clk[t] + 1); clk[t]++;
}
void bar_release(int id) { std::memcpy(bc[id].out, bc[id].in, sizeof bc[id].out); std::memset(bc[id].in, 0, sizeof bc[id].in); }
void bar_leave(int id, unsigned t) { for (int w = 0; w < 32; w++) vc[t][w] = std::max(vc[t][w], bc[id].out[w]); }
void in_flight(void* p, size_t n) { for (size_t i = 0; i < n; i++) shadow[(char*)p - arena + i].init = 0; }
void warp_arrive(uint32_t, unsigned) {}
void warp_leave(uint32_t, unsigned t) { wepoch[t]++; }

inline bool ordered(unsigned me, uint32_t c, uint32_t w, unsigned other) {
  if (c < vc[me][other / 32]) return true;                         // a barrier both took part in lies between
  return me / 32 == other / 32 && w < wepoch[me];
}
void access(const void* p, size_t n, bool write, const void* pc) {
  if (!cur) return;
  const unsigned me = cur->linear;
  const char* c = (const char*)p;
  if (c >= arena && c < arena + arena_len) {
    size_t o = c - arena;
    for (size_t i = 0; i < n && o + i < arena_len; i++) {
      Cell& s = shadow[o + i];
      if (!live[o + i]) { report("OOB", c + i, pc, me, -1, write ? "writes outside every shared array" : "reads outside every shared array"); break; }
      if (s.wt != NOBODY && s.wt != me && !ordered(me, s.we, s.ww, s.wt)) { report("RACE", c + i, pc, me, s.wt, write ? "writes what was written" : "reads what was written"); }
      if (write) {
        if (s.rt != NOBODY && (s.rt != me || s.many) && !ordered(me, s.re, s.rw, s.rt == me ? (me ^ 32) : s.rt)) report("RACE", c + i, pc, me, s.rt, "overwrites what was read");
        s.wt = me; s.we = clk[me]; s.ww = wepoch[me]; s.init = 1;
      } else {
        if (!s.init) { report("UNINIT", c + i, pc, me, -1, "reads never written"); break; }
        bool same = s.re == clk[me];
        if (same && s.rt != NOBODY && s.rt != me && s.rt / 32 != me / 32) s.many = 1; else if (!same) s.many = 0;
        s.rt = me; s.re = clk[me]; s.rw = wepoch[me];
      }
    }
    return;
  }
  if (!global_on) return;
  // stack of the running fiber and everything private: skip by asking whether it lies on a fiber stack
  char probe; if (c > &probe - 65536 && c < &probe + 65536) return;
  for (uintptr_t a = (uintptr_t)p & ~3ull; a < (uintptr_t)p + n; a += 4) {
    GCell& g = global_shadow[a];
    if (g.wb != ~0u && (g.wb != block || (g.wt != me && !ordered(me, g.we, g.ww, g.wt)))) report("RACE", (void*)a, pc, me, g.wt, g.wb != block ? "touches what another block wrote" : write ? "writes what was written" : "reads what was written");
    if (write) {
      if (g.rb != ~0u && ((g.rb != block || g.manyb) || (g.rt != me && !ordered(me, g.re, g.rw, g.rt)))) report("RACE", (void*)a, pc, me, g.rt, g.rb != block ? "overwrites what another block read" : "overwrites what was read");
      g.wb = block; g.wt = me; g.we = clk[me]; g.ww = wepoch[me];
    } else { if (g.rb != ~0u && g.rb != block) g.manyb = true; g.rb = block; g.rt = me; g.re = clk[me]; g.rw = wepoch[me]; }
  }
}
struct Install { Install() { static RaceHooks h{block_begin, smem_region, bar_arrive, bar_release, bar_leave, warp_arrive, warp_leave, in_flight, access}; race_hooks = &h; } ~Install() { if (reports) fprintf(stderr, "simt: %d distinct race reports\n", reports); } } install;
}  // namespace
}  // namespace simt

#define PC __builtin_return_address(0)
extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define RW(n) \
  void __tsan_read##n(void* p) { if (simt::cur) simt::access(p, n, false, PC); } \
  void __tsan_write##n(void* p) { if (simt::cur) simt::access(p, n, true, PC); } \
  void __tsan_unaligned_read##n(void* p) { if (simt::cur) simt::access(p, n, false, PC); } \
  void __tsan_unaligned_write##n(void* p) { if (simt::cur) simt::access(p, n, true, PC); }
RW(1) RW(2) RW(4) RW(8) RW(16)
void __tsan_read_range(void* p, unsigned long n) { if (simt::cur) simt::access(p, n, false, PC); }
void __tsan_write_range(void* p, unsigned long n) { if (simt::cur) simt::access(p, n, true, PC); }
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
void* __tsan_memcpy(void* d, const void* s, size_t n) { if (simt::cur) { simt::access(s, n, false, PC); simt::access(d, n, true, PC); } return memcpy(d, s, n); }
void* __tsan_memset(void* d, int c, size_t n) { if (simt::cur) simt::access(d, n, true, PC); return memset(d, c, n); }
void* __tsan_memmove(void* d, const void* s, size_t n) { if (simt::cur) { simt::access(s, n, false, PC); simt::access(d, n, true, PC); } return memmove(d, s, n); }
// atomics never race with atomics; plain accesses to the same word are still caught against plain ones only
#define AT(n, T) \
  T __tsan_atomic##n##_load(const volatile T* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); } \
  void __tsan_atomic##n##_store(volatile T* p, T v, int) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##n##_exchange(volatile T* p, T v, int) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##n##_fetch_add(volatile T* p, T v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##n##_fetch_sub(volatile T* p, T v, int) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##n##_fetch_and(volatile T* p, T v, int) { return __atomic_fetch_and(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##n##_fetch_or(volatile T* p, T v, int) { return __atomic_fetch_or(p, v, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##n##_fetch_xor(volatile T* p, T v, int) { return __atomic_fetch_xor(p, v, __ATOMIC_SEQ_CST); } \
  int __tsan_atomic##n##_compare_exchange_strong(volatile T* p, T* c, T v, int, int) { return __atomic_compare_exchange_n(p, c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); } \
  int __tsan_atomic##n##_compare_exchange_weak(volatile T* p, T* c, T v, int, int) { return __atomic_compare_exchange_n(p, c, v, true, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); } \
  T __tsan_atomic##n##_compare_exchange_val(volatile T* p, T c, T v, int, int) { __atomic_compare_exchange_n(p, &c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); return c; }
AT(8, uint8_t) AT(16, uint16_t) AT(32, uint32_t) AT(64, uint64_t)
void __tsan_atomic_thread_fence(int) {}
void __tsan_atomic_signal_fence(int) {}
}
