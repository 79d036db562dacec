// simt_host.cpp -- scheduler, barriers, warp collectives, shared-memory arena, device memory.
#include "simt_host.h"
#include "ptx.h"
#include "fiber.h"
#include "hooks.h"
#include <sys/mman.h>
#include <unistd.h>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIMT_ASAN 1
#endif
#endif
#if SIMT_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define POISON(p, n) __asan_poison_memory_region(p, n)
#define UNPOISON(p, n) __asan_unpoison_memory_region(p, n)
#else
#define POISON(p, n) ((void)0)
#define UNPOISON(p, n) ((void)0)
#endif
#if SIMT_TSAN   // kernels built with -fsanitize=thread and the real TSan runtime
#include <sanitizer/tsan_interface.h>
extern "C" void __tsan_read_range(void*, unsigned long); extern "C" void __tsan_write_range(void*, unsigned long);
#endif
#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#define SIMT_MSAN 1
#include <sanitizer/msan_interface.h>
#endif
#endif

namespace simt {
constinit thread_local FiberView* cur = nullptr;
constinit thread_local BlockView* cur_block = nullptr;
RaceHooks* race_hooks = nullptr;

static constexpr int kMaxThreads = 1024, kMaxBarriers = 16;
static constexpr size_t kArena = 256 * 1024, kRedzone = 64;
#if SIMT_ASAN
static constexpr size_t kStack = 256 * 1024;
#else
static constexpr size_t kStack = 64 * 1024;
#endif

struct Copy { void* d; const void* s; int n, srcn, group; };
struct alignas(64) Fiber : FiberView {                // FiberView (tid, linear, lane) + what a switch touches: one cache line
  int line = 0;
  void* sp = nullptr;
  Warp* warp = nullptr;
  Block* block = nullptr;
  const char* file = nullptr; const char* what = nullptr;                  // where it waits
  // colder
  char* stack_lo = nullptr;
  std::vector<Copy> copies; int group = 0;
#if SIMT_ASAN
  void* fake = nullptr;
#endif
#if SIMT_TSAN
  void* tsan = nullptr;
#endif
};
// one pending warp-level rendezvous; disjoint masks may be pending at the same time
struct alignas(64) Rendezvous { uint32_t mask, arrived; CollectiveFn fn; const char* what; const char* file; int line; bool aligned; alignas(64) void* rec[32]; };
struct Warp {
  uint32_t ready = 0, alive = 0, all = 0;
  unsigned id = 0, npend = 0;
  Fiber* fib = nullptr;                                // its 32 fibers
  uint32_t barwait[kMaxBarriers] = {};
  Rendezvous pend[32];
};
struct Barrier { char phase[2] = {}; int nphase = 0; int arrived = 0, expected = 0, acc_count = 0, result = 0; const char* what = nullptr; const char* file = nullptr; int line = 0; };
struct Block : BlockView {
  unsigned linear = 0;
  int nthreads = 0, nwarps = 0, alive = 0;
  Warp warp[kMaxThreads / 32];
  Barrier bar[kMaxBarriers];
  uint64_t rng = 1; uint8_t perm[kMaxThreads / 32] = {}; unsigned rot = 0; bool down = false;    // random order, redrawn at every barrier
  Order order = Order::forward; AsyncCopy cpasync = AsyncCopy::late; bool strict = true;
  char* arena = nullptr; size_t dyn = 0, used = 0, limit = 0, accounted = 0;
  std::vector<void*> slot;
  void (*invoke)(const void*) = nullptr; const void* pack = nullptr;
  bool failed = false;
  char sync_start = 0, sync_end = 0, pad_[6] = {};       // addresses for TSan only
};
struct Worker {
  Block blk;
  std::vector<Fiber> fib{kMaxThreads};
  char* stacks = nullptr; void* main_sp = nullptr; int made = 0;
  Stats stats;
#if SIMT_ASAN
  void* main_fake = nullptr; const void* main_bottom = nullptr; size_t main_size = 0;
#endif
#if SIMT_TSAN
  void* main_tsan = nullptr;
#endif
  Worker();
  ~Worker();
  void make(int i);
  void run_block(unsigned linear);
};
static thread_local Worker* tls_worker = nullptr;

static inline Fiber* self() { return static_cast<Fiber*>(cur); }
static inline uint64_t rnd(Block* b) { b->rng ^= b->rng << 13; b->rng ^= b->rng >> 7; b->rng ^= b->rng << 17; return b->rng * 0x2545F4914F6CDD1Dull; }

// ---------------------------------------------------------------- configuration and errors
static Config make_config() {
  Config c;
  if (const char* e = getenv("SIMT_ORDER")) {
    if (!strncmp(e, "rev", 3)) c.order = Order::reverse;
    if (!strncmp(e, "rand", 4)) { c.order = Order::random; if (e[4] == ':') c.seed = strtoull(e + 5, nullptr, 10); }
  }
  if (const char* e = getenv("SIMT_CPASYNC")) c.cpasync = !strcmp(e, "early") ? AsyncCopy::early : !strcmp(e, "rand") ? AsyncCopy::random : AsyncCopy::late;
  if (const char* e = getenv("SIMT_WORKERS")) c.workers = atoi(e);
  if (getenv("SIMT_GUARD")) c.guard_device_memory = true;
  return c;
}
Stats& stats() { static Stats s; return s; }
Config& config() { static Config c = make_config(); return c; }
static std::mutex g_err_mu;
static std::string g_err;
static std::atomic<int> g_failed{0};
const char* last_error() { std::lock_guard l(g_err_mu); static std::string copy; copy = g_err; return copy.c_str(); }

static inline void jump(Fiber* to);
static inline void jump_main();

void fail(const char* fmt, ...) {
  char msg[4096]; int n = 0;
  if (cur) {
    auto* f = self(); auto* b = f->block;
    n = snprintf(msg, sizeof msg, "block (%u,%u,%u) thread (%u,%u,%u): ", b->bid.x, b->bid.y, b->bid.z, f->tid.x, f->tid.y, f->tid.z);
  }
  va_list ap; va_start(ap, fmt); vsnprintf(msg + n, sizeof msg - n, fmt, ap); va_end(ap);
  if (!config().quiet) fprintf(stderr, "simt: %s\n", msg);
  { std::lock_guard l(g_err_mu); if (g_err.empty()) g_err = msg; }
  g_failed = 1;
  if (!cur) abort();
  self()->block->failed = true;
  jump_main();            // the other fibers of this block are abandoned; the worker rebuilds them
  __builtin_unreachable();
}

// ---------------------------------------------------------------- switching
static inline void switched_in(Fiber* f) {
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(f->fake, nullptr, nullptr);
#else
  (void)f;
#endif
}
static inline void jump(Fiber* to) {
  Fiber* from = self();
  if (to == from) return;
  cur = to;
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(&from->fake, to->stack_lo, kStack);
#endif
#if SIMT_TSAN
  __tsan_switch_to_fiber(to->tsan, __tsan_switch_to_fiber_no_sync);
#endif
  simt_switch(&from->sp, to->sp);
  switched_in(from);
}
static inline void jump_main() {
  Fiber* from = self(); Worker* w = tls_worker;
  cur = nullptr;
#if SIMT_ASAN
  __sanitizer_start_switch_fiber(&from->fake, w->main_bottom, w->main_size);
#endif
#if SIMT_TSAN
  __tsan_switch_to_fiber(w->main_tsan, __tsan_switch_to_fiber_no_sync);
#endif
  simt_switch(&from->sp, w->main_sp);
  switched_in(from);
}

// Random order = a random strict priority of warps (and a random lane order), redrawn at every barrier.  Choosing a
// random warp at every switch would keep the warps close together and hide exactly the races that need skew.
static void redraw(Block* b) {
  for (int i = 0; i < b->nwarps; i++) b->perm[i] = i;
  for (int i = b->nwarps - 1; i > 0; i--) std::swap(b->perm[i], b->perm[(rnd(b) >> 33) % (i + 1)]);
  b->rot = rnd(b) >> 59; b->down = rnd(b) >> 63;
}
static inline Fiber* lane_of(Warp& w, unsigned lane) { return w.fib + lane; }
static inline Fiber* pick(Block* b, unsigned w0) {
  const unsigned n = b->nwarps;
  if (b->order == Order::forward) {
    if (uint32_t r = b->warp[w0].ready) return lane_of(b->warp[w0], std::countr_zero(r));
    for (unsigned i = 1; i < n; i++) { unsigned w = w0 + i; if (w >= n) w -= n; if (uint32_t r = b->warp[w].ready) return lane_of(b->warp[w], std::countr_zero(r)); }
  } else if (b->order == Order::reverse) {
    if (uint32_t r = b->warp[w0].ready) return lane_of(b->warp[w0], 31 - std::countl_zero(r));
    for (unsigned i = 1; i < n; i++) { unsigned w = w0 >= i ? w0 - i : w0 + n - i; if (uint32_t r = b->warp[w].ready) return lane_of(b->warp[w], 31 - std::countl_zero(r)); }
  } else {
    auto lane = [b](uint32_t r) -> unsigned { r = std::rotr(r, b->rot); return ((b->down ? 31 - std::countl_zero(r) : std::countr_zero(r)) + b->rot) & 31; };
    if (uint32_t r = b->warp[w0].ready) return lane_of(b->warp[w0], lane(r));
    for (unsigned i = 0; i < n; i++) { Warp& w = b->warp[b->perm[i]]; if (w.ready) return lane_of(w, lane(w.ready)); }
  }
  return nullptr;
}
[[noreturn]] static void deadlock(Block* b) {
  std::string s; std::map<std::string, std::vector<int>> where;
  for (int t = 0; t < b->nthreads; t++) {
    Fiber& f = tls_worker->fib[t];
    if (!(b->warp[t / 32].alive >> (t & 31) & 1)) { where["returned"].push_back(t); continue; }
    char k[512]; snprintf(k, sizeof k, "at %s %s:%d", f.what ? f.what : "?", f.file ? f.file : "?", f.line); where[k].push_back(t);
  }
  for (auto& [k, v] : where) {
    s += "\n    " + std::to_string(v.size()) + " thread(s) " + k + " [";
    for (size_t i = 0; i < v.size() && i < 6; i++) s += (i ? "," : "") + std::to_string(v[i]);
    s += v.size() > 6 ? ",...]" : "]";
  }
  fail("deadlock, nobody can run:%s", s.c_str());
}
static inline void block_here(const char* what, const char* file, int line) {
  Fiber* f = self(); Warp* w = f->warp;
  f->what = what; f->file = file; f->line = line;
  const uint32_t r = w->ready &= ~(1u << f->lane);
  Fiber* nx = r && f->block->order == Order::forward ? w->fib + std::countr_zero(r) : pick(f->block, w->id);
  if (__builtin_expect(!nx, 0)) deadlock(f->block);
  jump(nx);
}
void yield() {
  Fiber* f = self(); Block* b = f->block; Warp* w = f->warp;
  w->ready &= ~(1u << f->lane);
  Fiber* nx = pick(b, (w->id + 1) % b->nwarps);
  w->ready |= 1u << f->lane;
  if (nx) jump(nx);
}

// ---------------------------------------------------------------- block barriers
static void release(Block* b, int id) {
  Barrier& r = b->bar[id];
  r.result = r.acc_count; r.acc_count = 0; r.arrived = 0; r.what = nullptr; r.nphase++;
  if (race_hooks) race_hooks->barrier_release(id);
  if (b->order == Order::random) redraw(b);
  for (int w = 0; w < b->nwarps; w++) { b->warp[w].ready |= b->warp[w].barwait[id]; b->warp[w].barwait[id] = 0; }
}
int barrier(int id, int nthreads, BarrierOp op, int pred, const char* what, const char* file, int line) {
  Fiber* f = self(); Block* b = f->block; Barrier& r = b->bar[id];
  const int want = nthreads ? nthreads : b->alive;
  if (!nthreads && b->strict && b->alive != b->nthreads)
    fail("%s at %s:%d reached after %d of %d threads have returned", what, file, line, b->nthreads - b->alive, b->nthreads);
  if (!r.what) { r.what = what; r.file = file; r.line = line; r.expected = want; }
  else if (nthreads == 0 && (r.line != line || r.file != file || r.what != what))
    fail("barrier divergence: this thread is at %s %s:%d while others of its block wait at %s %s:%d", what, file, line, r.what, r.file, r.line);
  const int me = op == BarrierOp::all ? pred == 0 : pred != 0;
  r.acc_count += me;
#if SIMT_TSAN
  char* const ph = &r.phase[r.nphase & 1];
  __tsan_release(ph);
#endif
  if (race_hooks) race_hooks->barrier_arrive(id, f->linear);
  if (++r.arrived == want) { release(b, id); }
  else { f->warp->barwait[id] |= 1u << f->lane; block_here(what, file, line); }
#if SIMT_TSAN
  __tsan_acquire(ph);
#endif
  if (race_hooks) race_hooks->barrier_leave(id, f->linear);
  const int c = r.result;
  return op == BarrierOp::all ? c == 0 : op == BarrierOp::any ? c != 0 : c;
}
void bar_arrive(int id, int n, const char* file, int line) {
  Fiber* f = self(); Barrier& r = f->block->bar[id];
  if (!r.what) { r.what = "bar"; r.file = file; r.line = line; }
#if SIMT_TSAN
  __tsan_release(&r.phase[r.nphase & 1]);
#endif
  if (race_hooks) race_hooks->barrier_arrive(id, f->linear);
  if (++r.arrived == n) release(f->block, id);
}

// ---------------------------------------------------------------- warp collectives
static inline void complete(Warp* w, unsigned i, uint32_t self_bit) {
  Rendezvous& r = w->pend[i];
  r.fn(r.rec, r.arrived);
  w->ready |= r.arrived & ~self_bit;
  if (i != --w->npend) w->pend[i] = w->pend[w->npend];
}
void collective(uint32_t mask, CollectiveFn fn, void* rec, bool aligned, const char* what, const char* file, int line) {
  Fiber* f = self(); Warp* w = f->warp; const uint32_t bit = 1u << f->lane;
  unsigned i = 0;
  if (__builtin_expect(!(mask & bit), 0)) fail("%s at %s:%d: the calling lane %u is not in its own mask", what, file, line, f->lane);
  if (__builtin_expect(w->npend != 1 || w->pend[0].mask != mask || w->pend[0].fn != fn, 0)) {
    mask &= w->all;
    if (mask & ~w->alive && (aligned || f->block->strict)) fail("%s at %s:%d names lanes %08x that have returned", what, file, line, mask & ~w->alive);
    // Lanes meet when mask and operation agree; anything else may legally be pending beside it (a sub-warp still busy
    // while the rest already waits at the next full-warp operation).  True divergence ends in deadlock(), which names
    // every lane's place.  .aligned instructions must also be the same instruction.
    for (; i < w->npend; i++) if (w->pend[i].mask == mask && w->pend[i].fn == fn) break;
    if (i == w->npend) { Rendezvous& r = w->pend[w->npend++]; r.mask = mask; r.arrived = 0; r.fn = fn; r.what = what; r.file = file; r.line = line; r.aligned = aligned; }
  }
  Rendezvous& r = w->pend[i];
  if (aligned && (r.line != line || r.file != file))
    fail("warp divergence: lane %u is at %s %s:%d while lanes %08x of the same warp wait at %s %s:%d", f->lane, what, file, line, r.arrived, r.what, r.file, r.line);
  r.rec[f->lane] = rec; r.arrived |= bit;
  if (r.arrived == (mask & w->alive)) { complete(w, i, bit); return; }
  block_here(what, file, line);
}
static void nop_fn(void* const*, uint32_t) {}
void syncwarp_memory(uint32_t mask, const char* file, int line) {
#if SIMT_TSAN
  __tsan_release(self()->warp);
#endif
  if (race_hooks) race_hooks->warp_arrive(mask, self()->linear);
  collective(mask, nop_fn, nullptr, false, "__syncwarp", file, line);
  if (race_hooks) race_hooks->warp_leave(mask, self()->linear);
#if SIMT_TSAN
  __tsan_acquire(self()->warp);
#endif
}
void shfl_fn(void* const* rec, uint32_t mask) {
  for (uint32_t m = mask; m; m &= m - 1) {
    auto* r = static_cast<ShflRec*>(rec[std::countr_zero(m)]);
    r->out = mask >> r->src & 1 ? static_cast<ShflRec*>(rec[r->src])->in : ~0ull;   // a lane outside the mask: undefined, so NaN bits
  }
}
#define SIMT_RED(name, T, init, expr)                                                                              \
  void name(void* const* rec, uint32_t mask) {                                                                     \
    T acc = init;                                                                                                  \
    for (uint32_t m = mask; m; m &= m - 1) { int l = std::countr_zero(m); T v = (T)static_cast<VoteRec*>(rec[l])->in; (void)l; acc = expr; } \
    for (uint32_t m = mask; m; m &= m - 1) static_cast<VoteRec*>(rec[std::countr_zero(m)])->out = (uint32_t)acc;   \
  }
SIMT_RED(ballot_fn, uint32_t, 0, acc | (v << l))
SIMT_RED(radd_fn, uint32_t, 0, acc + v)
SIMT_RED(rminu_fn, uint32_t, 0xffffffffu, v < acc ? v : acc)
SIMT_RED(rmaxu_fn, uint32_t, 0, v > acc ? v : acc)
SIMT_RED(rmini_fn, int32_t, INT32_MAX, v < acc ? v : acc)
SIMT_RED(rmaxi_fn, int32_t, INT32_MIN, v > acc ? v : acc)
SIMT_RED(rand_fn, uint32_t, 0xffffffffu, acc & v)
SIMT_RED(ror_fn, uint32_t, 0, acc | v)
SIMT_RED(rxor_fn, uint32_t, 0, acc ^ v)

// ldmatrix: lane 8m+i supplies row i of matrix m; lane l receives, of each matrix, row l/4 columns 2(l%4), 2(l%4)+1
// (.trans: the elements (2(l%4), l/4) and (2(l%4)+1, l/4)).
template <int NM, bool TRANS> void ldsm_fn(void* const* rec, uint32_t) {
  for (int m = 0; m < NM; m++) {
    const uint16_t* row[8];
    uint8_t bank[8] = {}; int worst = 0;                // eight 16-byte rows cover the 32 banks once when conflict-free
    for (int i = 0; i < 8; i++) { auto* r = static_cast<LdsmRec*>(rec[8 * m + i]); row[i] = r->row; int n = ++bank[(uintptr_t)r->at >> 4 & 7]; if (n > worst) worst = n; }
    tls_worker->stats.ldmatrix_phases++; tls_worker->stats.ldmatrix_conflicts += worst - 1;
    for (int l = 0; l < 32; l++) {
      const int g = l >> 2, t = (l & 3) * 2;
      uint32_t lo = TRANS ? row[t][g] : row[g][t], hi = TRANS ? row[t + 1][g] : row[g][t + 1];
      static_cast<LdsmRec*>(rec[l])->r[m] = lo | hi << 16;
    }
  }
}
template void ldsm_fn<1, false>(void* const*, uint32_t); template void ldsm_fn<1, true>(void* const*, uint32_t);
template void ldsm_fn<2, false>(void* const*, uint32_t); template void ldsm_fn<2, true>(void* const*, uint32_t);
template void ldsm_fn<4, false>(void* const*, uint32_t); template void ldsm_fn<4, true>(void* const*, uint32_t);

// mma.m16n8k16 bf16: g = lane/4, t = lane%4
//   A (16x16): a0 = (g, 2t..), a1 = (g+8, 2t..), a2 = (g, 2t+8..), a3 = (g+8, 2t+8..)    each two consecutive k
//   B (16x8) : b0 = (k = 2t.., n = g), b1 = (k = 2t+8.., n = g)
//   C (16x8) : c0,c1 = (g, 2t / 2t+1), c2,c3 = (g+8, 2t / 2t+1)
// bf16*bf16 is exact in float; the sum runs over k in order with one rounding per step (hardware: other order, truncated alignment).
typedef float v8f __attribute__((vector_size(32)));
typedef int v8i __attribute__((vector_size(32)));
void mma_bf16_16816_fn(void* const* rec, uint32_t) {
  alignas(32) float A[16][16], B[16][8], C[16][8];
  auto lo = [](uint32_t u) { return std::bit_cast<float>(u << 16); };
  auto hi = [](uint32_t u) { return std::bit_cast<float>(u & 0xffff0000u); };
  for (int l = 0; l < 32; l++) {
    auto* r = static_cast<const MmaRec*>(rec[l]); const int g = l >> 2, t = (l & 3) * 2;
    A[g][t] = lo(r->a[0]); A[g][t + 1] = hi(r->a[0]); A[g + 8][t] = lo(r->a[1]); A[g + 8][t + 1] = hi(r->a[1]);
    A[g][t + 8] = lo(r->a[2]); A[g][t + 9] = hi(r->a[2]); A[g + 8][t + 8] = lo(r->a[3]); A[g + 8][t + 9] = hi(r->a[3]);
    B[t][g] = lo(r->b[0]); B[t + 1][g] = hi(r->b[0]); B[t + 8][g] = lo(r->b[1]); B[t + 9][g] = hi(r->b[1]);
    C[g][t] = r->f[0]; C[g][t + 1] = r->f[1]; C[g + 8][t] = r->f[2]; C[g + 8][t + 1] = r->f[3];
  }
  v8f b[16]; std::memcpy(b, B, sizeof b);
  for (int i = 0; i < 16; i++) {
    v8f c; std::memcpy(&c, C[i], 32);
    for (int k = 0; k < 16; k++) c += A[i][k] * b[k];
    std::memcpy(C[i], &c, 32);
  }
  for (int l = 0; l < 32; l++) {
    auto* r = static_cast<MmaRec*>(rec[l]); const int g = l >> 2, t = (l & 3) * 2;
    r->f[0] = C[g][t]; r->f[1] = C[g][t + 1]; r->f[2] = C[g + 8][t]; r->f[3] = C[g + 8][t + 1];
  }
}
// mma.m16n8k32 s8: as above with four consecutive k per register: a0 = (g, 4t..), a1 = (g+8, 4t..), a2 = (g, 4t+16..), a3 = (g+8, 4t+16..)
void mma_s8_16832_fn(void* const* rec, uint32_t) {
  alignas(32) int A[16][32], B[32][8], C[16][8];
  for (int l = 0; l < 32; l++) {
    auto* r = static_cast<const MmaRec*>(rec[l]); const int g = l >> 2, t = l & 3;
    for (int j = 0; j < 4; j++) {
      auto s = [j](uint32_t u) { return (int)(int8_t)(u >> 8 * j); };
      A[g][4 * t + j] = s(r->a[0]); A[g + 8][4 * t + j] = s(r->a[1]); A[g][4 * t + 16 + j] = s(r->a[2]); A[g + 8][4 * t + 16 + j] = s(r->a[3]);
      B[4 * t + j][g] = s(r->b[0]); B[4 * t + 16 + j][g] = s(r->b[1]);
    }
    C[g][2 * t] = r->i[0]; C[g][2 * t + 1] = r->i[1]; C[g + 8][2 * t] = r->i[2]; C[g + 8][2 * t + 1] = r->i[3];
  }
  for (int i = 0; i < 16; i++)
    for (int k = 0; k < 32; k++)
      for (int j = 0; j < 8; j++) C[i][j] += A[i][k] * B[k][j];
  for (int l = 0; l < 32; l++) {
    auto* r = static_cast<MmaRec*>(rec[l]); const int g = l >> 2, t = (l & 3) * 2;
    r->i[0] = C[g][t]; r->i[1] = C[g][t + 1]; r->i[2] = C[g + 8][t]; r->i[3] = C[g + 8][t + 1];
  }
}

// ---------------------------------------------------------------- shared memory
// arena: [dynamic | redzone | static slots in order of first use, each followed by a redzone]
static std::atomic<int> g_sites{0};
void* shared_slot(SharedSite& s) {
  Block* b = self()->block;
  int id = s.id.load(std::memory_order_acquire);
  if (id < 0) {
    static std::mutex mu; std::lock_guard l(mu);
    id = s.id.load();
    if (id < 0) { id = g_sites++; s.id.store(id, std::memory_order_release); }
  }
  if ((size_t)id >= b->slot.size()) b->slot.resize(id + 1, nullptr);
  if (void* p = b->slot[id]) return p;
  size_t al = s.align < 4 ? 4 : s.align;
  size_t off = (b->used + kRedzone + 2 * al - 1) & ~(2 * al - 1);
  off += al;                                            // aligned to exactly `al`, never to 2*al: a missing alignas shows up
  b->accounted = ((b->accounted + s.align - 1) & ~(s.align - 1)) + s.bytes;      // what ptxas would report
  if (b->accounted > 48 * 1024) fail("static shared memory: %zu bytes with %s (%s:%d), ptxas allows 49152", b->accounted, s.name, s.file, s.line);
  if (b->accounted + b->dyn > b->limit) fail("shared memory: %zu static + %zu dynamic bytes, limit %zu", b->accounted, b->dyn, b->limit);
  if (off + s.bytes + kRedzone > kArena) fail("shared memory arena exhausted");
  b->used = off + s.bytes;
  void* p = b->arena + off;
  UNPOISON(p, s.bytes);
  if (race_hooks) race_hooks->smem_region(p, s.bytes, s.name);
  return b->slot[id] = p;
}
void* dyn_shared() { return self()->block->arena; }
void smem_check(const void* p, size_t n, const char* what, const char* file, int line) {
  Block* b = self()->block;
  if ((const char*)p < b->arena || (const char*)p + n > b->arena + b->used) fail("%s at %s:%d: %p is not shared memory of this block", what, file, line, p);
}
void ldsm_check(const void* row, const char* file, int line) {
  if ((uintptr_t)row & 15) fail("ldmatrix at %s:%d: row address %p is not 16-byte aligned", file, line, row);
  smem_check(row, 16, "ldmatrix", file, line);
}

// ---------------------------------------------------------------- cp.async
static void do_copy(const Copy& c) {
  UNPOISON(c.d, c.n);
  if (race_hooks) { race_hooks->access(c.s, c.srcn, false, nullptr); race_hooks->access(c.d, c.n, true, nullptr); }
#if SIMT_TSAN
  __tsan_read_range(const_cast<void*>(c.s), c.srcn); __tsan_write_range(c.d, c.n);
#endif
  std::memcpy(c.d, c.s, c.srcn);
  if (c.srcn < c.n) std::memset((char*)c.d + c.srcn, 0, c.n - c.srcn);
}
void cp_async_issue(void* d, const void* s, int n, int srcn, const char* file, int line) {
  Fiber* f = self(); Block* b = f->block;
  if (((uintptr_t)d | (srcn ? (uintptr_t)s : 0)) & (n - 1)) fail("cp.async at %s:%d: addresses %p <- %p are not %d-byte aligned", file, line, d, s, n);
  if (srcn < 0 || srcn > n) fail("cp.async at %s:%d: src-size %d", file, line, srcn);
  smem_check(d, n, "cp.async", file, line);
  Copy c{d, s, n, srcn, f->group};
  if (b->cpasync == AsyncCopy::early || (b->cpasync == AsyncCopy::random && (rnd(b) >> 40 & 1))) { do_copy(c); return; }
  if (race_hooks) { race_hooks->access(d, n, true, nullptr); race_hooks->in_flight(d, n); }
  std::memset(d, 0xff, n);                              // undefined until waited for
  f->copies.push_back(c);
}
void cp_async_commit_group() { self()->group++; }
void cp_async_wait_group(int n) {
  Fiber* f = self(); size_t k = 0;
  while (k < f->copies.size() && f->copies[k].group < f->group - n) do_copy(f->copies[k++]);
  f->copies.erase(f->copies.begin(), f->copies.begin() + k);
}

// ---------------------------------------------------------------- fibers and workers
static void fiber_main(void* arg) {
  Fiber* f = static_cast<Fiber*>(arg);
  switched_in(f);
  for (;;) {
    Block* b = f->block;
#if SIMT_TSAN
    __tsan_acquire(&b->sync_start);
#endif
    b->invoke(b->pack);
#if SIMT_TSAN
    __tsan_release(&b->sync_end);
#endif
    if (!f->copies.empty() && b->strict) fail("returned with %zu cp.async copies never waited for", f->copies.size());
    f->copies.clear();
    Warp* w = f->warp; const uint32_t bit = 1u << f->lane;
    w->alive &= ~bit; w->ready &= ~bit; b->alive--;
    for (unsigned i = 0; i < w->npend; i++)
      if (w->pend[i].mask & bit && b->strict) { auto& r = w->pend[i]; fail("returned while lanes %08x of its warp wait for it at %s %s:%d", r.arrived, r.what, r.file, r.line); }
    if (b->bar[0].arrived && b->strict) fail("returned while %d threads of its block wait at %s %s:%d", b->bar[0].arrived, b->bar[0].what, b->bar[0].file, b->bar[0].line);
    for (unsigned i = 0; i < w->npend;) if (w->pend[i].arrived == (w->pend[i].mask & w->alive)) complete(w, i, 0); else i++;
    if (b->bar[0].arrived && b->bar[0].arrived == b->alive) release(b, 0);
    if (b->alive == 0) { jump_main(); continue; }
    Fiber* nx = pick(b, w->id);
    if (!nx) deadlock(b);
    jump(nx);
  }
}
Worker::Worker() {
  const size_t stride = kStack + 4096;
  stacks = (char*)mmap(nullptr, stride * kMaxThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED) { perror("simt: mmap"); abort(); }
  blk.arena = (char*)mmap(nullptr, kArena + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(blk.arena + kArena, 4096, PROT_NONE);
  std::memset(blk.arena, 0xff, kArena);
  for (int i = 0; i < kMaxThreads; i++) { fib[i].linear = i; fib[i].lane = i & 31; fib[i].block = &blk; fib[i].warp = &blk.warp[i / 32]; }
  for (int i = 0; i < kMaxThreads / 32; i++) { blk.warp[i].id = i; blk.warp[i].fib = &fib[32 * i]; }
#if SIMT_TSAN
  main_tsan = __tsan_get_current_fiber();
#endif
}
Worker::~Worker() {
  munmap(stacks, (kStack + 4096) * kMaxThreads); munmap(blk.arena, kArena + 4096);
}
void Worker::make(int i) {
  char* lo = stacks + (kStack + 4096) * i;
  mprotect(lo, 4096, PROT_NONE);                        // guard page: overflow faults instead of corrupting the next lane
  fib[i].stack_lo = lo + 4096;
  UNPOISON(fib[i].stack_lo, kStack);
  // colour the stacks: with a power-of-two stride the hot top lines of all lanes would share one cache set
#ifndef SIMT_NO_COLOUR
  const size_t colour = (size_t)(i * 5 % 64) * 64;
#else
  const size_t colour = 0;
#endif
  fib[i].sp = simt_make_context(fib[i].stack_lo + kStack - 64 - colour, fiber_main, &fib[i]);
  fib[i].copies.clear();
#if SIMT_ASAN
  fib[i].fake = nullptr;
#endif
#if SIMT_TSAN
  if (fib[i].tsan) __tsan_destroy_fiber(fib[i].tsan);
  fib[i].tsan = __tsan_create_fiber(0);
#endif
}
void Worker::run_block(unsigned linear) {
  Block& b = blk;
  const dim3 bd = b.bdim, gd = b.gdim;
  b.linear = linear;
  b.bid = {linear % gd.x, linear / gd.x % gd.y, linear / (gd.x * gd.y)};
  b.nthreads = bd.x * bd.y * bd.z; b.nwarps = (b.nthreads + 31) / 32; b.alive = b.nthreads;
  b.rng = (config().seed * 0x9E3779B97F4A7C15ull ^ (uint64_t)linear * 0xD1B54A32D192ED03ull) | 1; rnd(&b); rnd(&b);
  while (made < b.nthreads) make(made++);
  for (int w = 0; w < b.nwarps; w++) {
    int n = b.nthreads - 32 * w; uint32_t m = n >= 32 ? 0xffffffffu : (1u << n) - 1;
    Warp& W = b.warp[w]; W.ready = W.alive = W.all = m; W.npend = 0; std::memset(W.barwait, 0, sizeof W.barwait);
  }
  for (auto& r : b.bar) r = Barrier{};
  unsigned x = 0, y = 0, z = 0;
  for (int t = 0; t < b.nthreads; t++) { fib[t].tid = {x, y, z}; fib[t].group = 0; if (++x == bd.x) { x = 0; if (++y == bd.y) { y = 0; z++; } } }
  // shared memory starts as NaN in every float format and -1 in every integer
  const size_t wipe = b.used;                           // of the previous block
  UNPOISON(b.arena, kArena);
  std::memset(b.arena, 0xff, wipe);                     // the rest has not been touched since it was last wiped
#if SIMT_MSAN
  __msan_poison(b.arena, kArena);
#endif
  POISON(b.arena + b.dyn, kArena - b.dyn);
  b.used = b.dyn; b.accounted = 0; b.failed = false;
  std::fill(b.slot.begin(), b.slot.end(), nullptr);
  if (race_hooks) { race_hooks->block_begin(b.arena, kArena, b.nthreads, linear); if (b.dyn) race_hooks->smem_region(b.arena, b.dyn, "dynamic shared memory"); }
  if (b.order == Order::random) redraw(&b);
  unsigned first = b.order == Order::reverse ? b.nwarps - 1 : b.order == Order::random ? b.perm[0] : 0;
#if SIMT_TSAN
  __tsan_release(&b.sync_start);
#endif
  Fiber* f = pick(&b, first);
  cur = f; cur_block = &b;
#if SIMT_ASAN
  { // learn this OS thread's own stack once
    pthread_attr_t a; void* lo; size_t sz; pthread_getattr_np(pthread_self(), &a); pthread_attr_getstack(&a, &lo, &sz); pthread_attr_destroy(&a);
    main_bottom = lo; main_size = sz;
  }
  __sanitizer_start_switch_fiber(&main_fake, f->stack_lo, kStack);
#endif
#if SIMT_TSAN
  __tsan_switch_to_fiber(f->tsan, __tsan_switch_to_fiber_no_sync);
#endif
  simt_switch(&main_sp, f->sp);
#if SIMT_ASAN
  __sanitizer_finish_switch_fiber(main_fake, nullptr, nullptr);
#endif
#if SIMT_TSAN
  __tsan_acquire(&b.sync_end);
#endif
  cur = nullptr; cur_block = nullptr;
  if (b.failed) { for (int i = 0; i < made; i++) make(i); }
}

// ---------------------------------------------------------------- launches
namespace {
struct Job { dim3 grid, block; size_t smem; void (*invoke)(const void*); const void* pack; unsigned nblocks; std::atomic<unsigned> next{0}; };
struct Pool {
  std::mutex mu; std::condition_variable go, done; std::vector<std::thread> th; Job* job = nullptr; unsigned gen = 0, busy = 0; bool stop = false;
  static void work(Job& j) {
    if (!tls_worker) { static thread_local struct Own { Worker w; } own; tls_worker = &own.w; }
    Worker& w = *tls_worker; Block& b = w.blk; const Config& c = config();
    b.gdim = j.grid; b.bdim = j.block; b.dyn = j.smem; b.invoke = j.invoke; b.pack = j.pack;
    b.order = c.order; b.cpasync = c.cpasync; b.strict = c.strict_exit; b.limit = c.smem_limit;
    for (unsigned i; !g_failed && (i = j.next.fetch_add(1)) < j.nblocks;)
      w.run_block(c.order == Order::reverse ? j.nblocks - 1 - i : i);
    static std::mutex smu; std::lock_guard sl(smu); Stats& S = simt::stats();
    S.ldmatrix_phases += w.stats.ldmatrix_phases; S.ldmatrix_conflicts += w.stats.ldmatrix_conflicts; w.stats = Stats{};
  }
  void loop() {
    unsigned seen = 0;
    for (;;) {
      std::unique_lock l(mu); go.wait(l, [&] { return stop || gen != seen; }); if (stop) return;
      seen = gen; Job* j = job; l.unlock();
      work(*j);
      l.lock(); if (--busy == 0) done.notify_one();
    }
  }
  void run(Job& j, unsigned n) {
    if (n > j.nblocks) n = j.nblocks;
    if (n <= 1) { work(j); return; }
    { std::unique_lock l(mu); while (th.size() < n - 1) th.emplace_back([this] { loop(); }); job = &j; busy = th.size(); gen++; }
    go.notify_all(); work(j);
    std::unique_lock l(mu); done.wait(l, [&] { return busy == 0; });
  }
  ~Pool() { { std::lock_guard l(mu); stop = true; } go.notify_all(); for (auto& t : th) t.join(); }
};
Pool& pool() { static Pool p; return p; }
std::mutex g_launch_mu;
cudaError_t g_last = cudaSuccess;

// device memory: page-backed, the end of every allocation sits against a guard page
struct Alloc { char* base; size_t len; };
std::map<void*, Alloc>& allocs() { static std::map<void*, Alloc> m; return m; }
std::mutex g_mem_mu;
void protect_all(int prot) { std::lock_guard l(g_mem_mu); for (auto& [p, a] : allocs()) mprotect(a.base, a.len, prot); }
struct Open {   // while one lives, device memory is accessible
  bool g = config().guard_device_memory;
  Open() { if (g) protect_all(PROT_READ | PROT_WRITE); }
  ~Open() { if (g) protect_all(PROT_NONE); }
};
}  // namespace

cudaError_t run_grid(dim3 grid, dim3 block, size_t smem, void (*invoke)(const void*), const void* pack) {
  std::lock_guard lk(g_launch_mu);
  const Config& c = config();
  uint64_t nt = (uint64_t)block.x * block.y * block.z, nb = (uint64_t)grid.x * grid.y * grid.z;
  if (!nt || nt > kMaxThreads || block.z > 64 || !nb || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu) return g_last = cudaErrorInvalidConfiguration;
  if (smem > c.smem_limit) return g_last = cudaErrorInvalidValue;
  if (nb > 0xffffffffull) return g_last = cudaErrorInvalidConfiguration;   // prototype limit
  { std::lock_guard l(g_err_mu); g_err.clear(); }
  g_failed = 0;
  Open open;
  Job j; j.grid = grid; j.block = block; j.smem = smem; j.invoke = invoke; j.pack = pack; j.nblocks = (unsigned)nb;
  unsigned n = c.workers ? c.workers : std::thread::hardware_concurrency();
  if (race_hooks) n = 1;
  pool().run(j, n ? n : 1);
  if (g_failed) g_last = cudaErrorLaunchFailure;
  return g_failed ? cudaErrorLaunchFailure : cudaSuccess;
}
}  // namespace simt

using namespace simt;
cudaError_t simt_malloc(void** p, size_t n) {
  if (!n) { *p = nullptr; return cudaSuccess; }
#if SIMT_ASAN
  *p = aligned_alloc(256, (n + 255) & ~size_t(255)); std::memset(*p, 0xff, n);
  __asan_poison_memory_region((char*)*p + n, ((n + 255) & ~size_t(255)) - n);
  return cudaSuccess;
#else
  size_t body = (((n + 255) & ~size_t(255)) + 4095) & ~size_t(4095);
  char* b = (char*)mmap(nullptr, body + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (b == MAP_FAILED) return cudaErrorMemoryAllocation;
  mprotect(b + body, 4096, PROT_NONE);
  char* q = b + body - ((n + 255) & ~size_t(255));
  std::memset(q, 0xff, (b + body) - q);
  *p = q;
  std::lock_guard l(g_mem_mu); allocs()[q] = {b, body};
  if (config().guard_device_memory) mprotect(b, body, PROT_NONE);
  return cudaSuccess;
#endif
}
cudaError_t cudaFree(void* p) {
  if (!p) return cudaSuccess;
#if SIMT_ASAN
  free(p); return cudaSuccess;
#else
  std::lock_guard l(g_mem_mu); auto it = allocs().find(p); if (it == allocs().end()) return cudaErrorInvalidValue;
  munmap(it->second.base, it->second.len + 4096); allocs().erase(it); return cudaSuccess;
#endif
}
cudaError_t cudaMemcpy(void* d, const void* s, size_t n, cudaMemcpyKind) { Open o; std::memcpy(d, s, n); return cudaSuccess; }
cudaError_t cudaMemset(void* d, int v, size_t n) { Open o; std::memset(d, v, n); return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) { *total = (size_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE); *available = *total; return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaGetLastError(); }   // (real CUDA keeps a launch failure for ever)
cudaError_t cudaGetLastError() { cudaError_t e = g_last; g_last = cudaSuccess; return e; }
cudaError_t cudaPeekAtLastError() { return g_last; }
cudaError_t cudaMemcpy2D(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind) {
  Open o;
  for (size_t row = 0; row < height; ++row) std::memcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
  return cudaSuccess;
}
struct simt_event_ { std::chrono::steady_clock::time_point at; };
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { *event = new simt_event_{}; return cudaSuccess; }
cudaError_t cudaEventDestroy(cudaEvent_t event) { delete event; return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) { event->at = std::chrono::steady_clock::now(); return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  *milliseconds = std::chrono::duration<float, std::milli>(end->at - start->at).count();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 8; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(config().smem_limit); return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}
