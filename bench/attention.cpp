// Relative attention against the processor's ceiling, and what the two top-k modes save.
//   build/bench/attention [threads] [part of a line's name]
// A model operation is what the mathematics needs for the visible pairs of the dense mode, 6 dh forward and 12 dh
// backward; executed are those of the tiles and of the recomputation: 6 dh and 16 dh for dense, 4 dh a visible and
// 2 dh (forward) or 16 dh (backward) a kept pair for exact top-k.
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "longhand/ceilings.h"
#include "longhand/device.h"

using namespace longhand;

namespace {

struct Line {
  const char* name;
  int64_t B, T, M, H, dh;
  int64_t topk = 0;
  TopkMode mode = TopkMode::exact;
  Dtype type = Dtype::fp32;
  float dropout = 0;
};

const Line lines[] = {
    {"tiny", 4, 256, 256, 4, 32},
    {"small", 2, 512, 512, 5, 64},
    {"base 64", 4, 64, 64, 4, 64},
    {"base 256", 2, 256, 256, 12, 64},
    {"base 256 bf16", 2, 256, 256, 12, 64, 0, TopkMode::exact, Dtype::bf16},
    {"base 256 dropout", 2, 256, 256, 12, 64, 0, TopkMode::exact, Dtype::fp32, 0.1f},
    {"base 1024", 1, 1024, 1024, 6, 64},
    {"base 2048", 1, 2048, 2048, 4, 64},
    {"base 2048 exact 256", 1, 2048, 2048, 4, 64, 256},
    {"base 2048 exact 512", 1, 2048, 2048, 4, 64, 512},
    {"base 2048 block 256", 1, 2048, 2048, 4, 64, 256, TopkMode::block},
    {"base 2048 block 512", 1, 2048, 2048, 4, 64, 512, TopkMode::block},
    {"7b 1024", 1, 1024, 1024, 4, 128},
    {"small exact 64", 2, 512, 512, 5, 64, 64},
};

// One thread is timed by its processor time, which other programs on the machine disturb less.
bool one_thread = false;

double now() {
  timespec time;
  clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double median(std::vector<double>& x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

// Tensors of one call, in one allocation of the device.
class Workspace {
 public:
  Workspace(Device& device, int64_t bytes) : device_(device), memory_(static_cast<char*>(device.allocate(bytes))) {}
  ~Workspace() { device_.release(memory_); }
  Tensor take(Dtype type, Shape shape, bool random) {
    Tensor t(memory_ + used_, type, shape);
    used_ += (t.bytes() + 63) / 64 * 64;
    if (random)
      for (int64_t i = 0; i < t.elements(); ++i) {
        float x = normal_(generator_);
        type == Dtype::bf16 ? void(t.as<bf16>()[i] = bf16(x)) : void(t.as<float>()[i] = x);
      }
    return t;
  }

 private:
  Device& device_;
  char* memory_;
  int64_t used_ = 0;
  std::mt19937 generator_{1};
  std::normal_distribution<float> normal_;
};

struct Times {
  double forward, backward;
};

Times measure(Device& device, const Line& l) {
  int64_t K = l.M + l.T;
  Shape queries{l.T, l.B, l.H, l.dh}, keys{K, l.B, l.H, l.dh}, distances{K, l.H, l.dh}, biases{l.H, l.dh};
  Workspace w(device, 4 * (5 * queries.elements() + 5 * keys.elements() + 3 * distances.elements()) + (1 << 20) +
                          l.B * l.H * l.T * (K / 8 + 16));
  AttentionForward f;
  f.q = w.take(l.type, queries, true), f.k = w.take(l.type, keys, true), f.value = w.take(l.type, keys, true);
  f.r = w.take(l.type, distances, true), f.u = w.take(l.type, biases, true), f.v = w.take(l.type, biases, true);
  f.out = w.take(l.type, queries, false), f.lse = w.take(Dtype::fp32, {l.B, l.H, l.T}, false);
  f.topk = l.topk, f.topk_mode = l.mode;
  f.dropout = {l.dropout, {1, 1, RandomUse::attention_dropout, 0}};
  if (l.topk && l.mode == TopkMode::exact)
    f.selected = w.take(Dtype::u64, {l.B, l.H, l.T, (K + 63) / 64}, false);
  else if (l.topk)
    f.selected = w.take(Dtype::u64, {l.B, l.H, (l.T + 63) / 64, ((K + 63) / 64 + 63) / 64}, false);
  AttentionBackward b;
  b.q = f.q, b.k = f.k, b.value = f.value, b.r = f.r, b.u = f.u, b.v = f.v, b.out = f.out, b.lse = f.lse;
  b.selected = f.selected, b.topk = f.topk, b.topk_mode = f.topk_mode, b.dropout = f.dropout;
  b.d_out = w.take(l.type, queries, true), b.d_q = w.take(l.type, queries, false);
  b.d_k = w.take(l.type, keys, false), b.d_value = w.take(l.type, keys, false);
  b.d_r = w.take(Dtype::fp32, distances, false), b.d_u = w.take(Dtype::fp32, biases, false);
  b.d_v = w.take(Dtype::fp32, biases, false);
  std::vector<double> forward, backward;
  double spent = 0;
  for (int turn = 0; turn < 50 && (turn < 4 || spent < 0.7); ++turn) {
    double t0 = now();
    device.attention_forward(f);
    double t1 = now();
    device.attention_backward(b);
    double t2 = now();
    if (turn > 0) forward.push_back(t1 - t0), backward.push_back(t2 - t1), spent += t2 - t0;
  }
  return {median(forward), median(backward)};
}

void report(Device& device, const Line& l, const Ceilings& limit) {
  Times t = measure(device, l);
  double pairs = 0, kept = 0;
  for (int64_t i = 0; i < l.T; ++i) {
    double visible = static_cast<double>(i + l.M + 1);
    pairs += visible, kept += l.topk ? std::min<double>(visible, static_cast<double>(l.topk)) : visible;
  }
  double unit = static_cast<double>(l.B * l.H * l.dh), peak = limit.fma_fp32 / 100;
  bool exact = l.topk && l.mode == TopkMode::exact;
  double forward = (exact ? 4 * pairs + 2 * kept : 6 * kept) * unit, backward = 16 * kept * unit;
  fmt::print(
      "{:<20} {:2} {:5} {:5} {:2} {:4} | {:8.2f} {:7.1f} {:5.1f} {:5.1f} | {:8.2f} {:7.1f} {:5.1f} {:5.1f} | {:5.1f}",
      l.name, l.B, l.T, l.M, l.H, l.dh, t.forward * 1e3, forward / t.forward / 1e9, 6 * pairs * unit / t.forward / peak,
      forward / t.forward / peak, t.backward * 1e3, backward / t.backward / 1e9, 12 * pairs * unit / t.backward / peak,
      backward / t.backward / peak, 18 * pairs * unit / (t.forward + t.backward) / peak);
  if (l.topk) {
    Line dense = l;
    dense.topk = 0;
    Times d = measure(device, dense);
    fmt::print(" | {:4.2f} {:4.2f} {:4.2f}", d.forward / t.forward, d.backward / t.backward,
               (d.forward + d.backward) / (t.forward + t.backward));
  }
  fmt::print("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  auto device = make_device("cpu", {.threads = argc > 1 ? std::atoi(argv[1]) : 0});
  one_thread = device->threads() == 1;
  Ceilings limit = measure_ceilings(device->threads());
  fmt::print("{}, {} threads: fp32 {:.1f} GFLOP/s. ms; executed GFLOP/s; % of the peak by model and by executed\n",
             limit.processor, limit.threads, limit.fma_fp32 / 1e9);
  fmt::print("operations; both passes by model operations; how much faster than our dense: forward, backward, both.\n");
  fmt::print("{:<20} {:>2} {:>5} {:>5} {:>2} {:>4} | {:>8} {:>7} {:>5} {:>5} | {:>8} {:>7} {:>5} {:>5} | {:>5} |\n", "",
             "B", "T", "M", "H", "dh", "forward", "GFLOP/s", "model", "exec", "backward", "GFLOP/s", "model", "exec",
             "both");
  for (const Line& line : lines)
    if (argc < 3 || std::string(line.name).find(argv[2]) != std::string::npos) report(*device, line, limit);
}
