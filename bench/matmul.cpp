// The matrix product beside OpenBLAS and this machine's ceiling: medians of runs that alternate in one process.
//   build/bench/matmul [threads] [part of a shape's name]
// OpenBLAS is loaded where it is installed (libopenblas.so.0); without it its columns stay empty.
#include <dlfcn.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "longhand/ceilings.h"
#include "longhand/device.h"

using namespace longhand;

namespace {

struct Line {
  const char* name;
  int64_t m, n, k;
  bool transpose_a = false, transpose_b = true;
  bool accumulate = false;
};

const Line lines[] = {
    {"square 512", 512, 512, 512},
    {"square 1024", 1024, 1024, 1024},
    {"square 2048", 2048, 2048, 2048},
    {"square 4096", 4096, 4096, 4096},
    {"base qkv 256", 256, 2304, 768},
    {"base out 256", 256, 768, 768},
    {"base up 256", 256, 3072, 768},
    {"base down 256", 256, 768, 3072},
    {"base qkv 1024", 1024, 2304, 768},
    {"base up 1024", 1024, 3072, 768},
    {"base down 1024", 1024, 768, 3072},
    {"base d_x qkv 256", 256, 768, 2304, false, false},
    {"base d_x up 256", 256, 768, 3072, false, false},
    {"base d_x down 512", 512, 3072, 768, false, false},
    {"base dW qkv 256", 2304, 768, 256, true, false, true},
    {"base dW up 256", 3072, 768, 256, true, false, true},
    {"base dW up 1024", 3072, 768, 1024, true, false, true},
    {"base dW down 512", 768, 3072, 512, true, false, true},
    {"logits 256", 256, 50304, 768},
    {"logits d_x 256", 256, 768, 50304, false, false},
    {"logits dW 256", 50304, 768, 256, true, false, true},
    {"small qkv 512", 512, 960, 320},
    {"small up 512", 512, 1280, 320},
    {"small down 512", 512, 320, 1280},
    {"small logits 512", 512, 16384, 320},
    {"tiny qkv 256", 256, 384, 128},
    {"tiny up 2048", 2048, 512, 128},
    {"tiny logits 256", 256, 8192, 128},
    {"rows 1", 1, 3072, 768},
    {"rows 2", 2, 3072, 768},
    {"rows 4", 4, 3072, 768},
    {"rows 8", 8, 3072, 768},
    {"rows 8 large", 8, 8192, 4096},
    {"rows 1 large", 1, 8192, 4096},
    {"rows 16", 16, 3072, 768},
    {"rows 32", 32, 3072, 768},
    {"rows 64", 64, 3072, 768},
};

using Sgemm = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);

struct Blas {
  Sgemm sgemm = nullptr;
  explicit Blas(int threads) {
    setenv("OPENBLAS_NUM_THREADS", std::to_string(threads).c_str(), 1);
    if (void* library = dlopen("libopenblas.so.0", RTLD_NOW))
      sgemm = reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
  }
  void operator()(const Line& l, const float* a, const float* b, float* out) const {
    constexpr int row_major = 101, plain = 111, transposed = 112;
    sgemm(row_major, l.transpose_a ? transposed : plain, l.transpose_b ? transposed : plain, l.m, l.n, l.k, 1, a,
          l.transpose_a ? l.m : l.k, b, l.transpose_b ? l.k : l.n, l.accumulate ? 1 : 0, out, l.n);
  }
};

// One thread is timed by its processor time, which other programs on the machine disturb less.
bool one_thread = false;

double now() {
  timespec time;
  clock_gettime(one_thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class F>
double seconds(F&& work) {
  double begin = now();
  work();
  return now() - begin;
}

double median(std::vector<double>& x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

/// Operands that are far larger than the caches are met cold in training; each run takes the next of several copies.
void measure(Device& device, const Blas& blas, const Line& l, const Ceilings& limit) {
  int64_t copies = std::clamp<int64_t>((48 << 20) / (l.n * l.k * 4), 1, 16);
  std::vector<float> a(l.m * l.k), b(copies * l.n * l.k), out(l.m * l.n);
  std::vector<bf16> a16(a.size()), b16(b.size());
  for (size_t i = 0; i < a.size(); ++i) a16[i] = bf16(a[i] = static_cast<float>(i % 97) / 97 - 0.5f);
  for (size_t i = 0; i < b.size(); ++i) b16[i] = bf16(b[i] = static_cast<float>(i % 89) / 89 - 0.5f);
  Shape as = l.transpose_a ? Shape{l.k, l.m} : Shape{l.m, l.k}, bs = l.transpose_b ? Shape{l.n, l.k} : Shape{l.k, l.n};
  auto run = [&](Dtype at, Dtype bt, int64_t copy) {
    const void* from = bt == Dtype::bf16 ? static_cast<const void*>(&b16[copy * l.n * l.k]) : &b[copy * l.n * l.k];
    device.matmul({.out = Tensor(out.data(), Dtype::fp32, {l.m, l.n}),
                   .a = ConstTensor(at == Dtype::bf16 ? static_cast<const void*>(a16.data()) : a.data(), at, as),
                   .b = ConstTensor(from, bt, bs),
                   .transpose_a = l.transpose_a,
                   .transpose_b = l.transpose_b,
                   .accumulate = l.accumulate});
  };
  std::vector<double> ours, mixed, half, peer;
  double flops = 2.0 * l.m * l.n * l.k, spent = 0;
  for (int turn = 0; turn < 200 && (turn < 5 || spent < 0.8); ++turn) {
    int64_t copy = turn % copies;
    ours.push_back(seconds([&] { run(Dtype::fp32, Dtype::fp32, copy); }));
    if (blas.sgemm) peer.push_back(seconds([&] { blas(l, a.data(), &b[copy * l.n * l.k], out.data()); }));
    mixed.push_back(seconds([&] { run(Dtype::fp32, Dtype::bf16, copy); }));
    half.push_back(seconds([&] { run(Dtype::bf16, Dtype::bf16, copy); }));
    spent += ours.back() + mixed.back() + half.back() + (peer.empty() ? 0 : peer.back());
  }
  double t = median(ours), bound = std::max(flops / limit.fma_fp32, 4.0 * l.n * l.k / limit.read_bytes);
  std::string beside =
      peer.empty() ? "       -      -" : fmt::format("{:8.1f} {:6.2f}", flops / median(peer) / 1e9, median(peer) / t);
  fmt::print("{:<18} {:6} {:6} {:6} {}{} {:9.1f} {:6.1f}% {} {:10.1f} {:9.1f}\n", l.name, l.m, l.n, l.k,
             l.transpose_a ? 'T' : 'N', l.transpose_b ? 'T' : 'N', flops / t / 1e9, 100 * bound / t, beside,
             flops / median(mixed) / 1e9, flops / median(half) / 1e9);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  int threads = argc > 1 ? std::atoi(argv[1]) : 0;
  auto device = make_device("cpu", {.threads = threads});
  one_thread = device->threads() == 1;
  Ceilings limit = measure_ceilings(device->threads());
  fmt::print("{}, {} threads: fp32 {:.1f} GFLOP/s, bf16 {:.1f} GFLOP/s, read {:.1f} GB/s\n", limit.processor,
             limit.threads, limit.fma_fp32 / 1e9, limit.dot_bf16 / 1e9, limit.read_bytes / 1e9);
  fmt::print("GFLOP/s; \"of limit\" counts the FMA peak and one reading of b; ratio: OpenBLAS time over ours\n");
  fmt::print("{:<18} {:>6} {:>6} {:>6} {:>2} {:>9} {:>7} {:>8} {:>6} {:>10} {:>9}\n", "product", "m", "n", "k", "",
             "fp32", "limit", "OpenBLAS", "ratio", "fp32*bf16", "bf16");
  Blas blas(device->threads());
  for (const Line& line : lines)
    if (argc < 3 || std::string(line.name).find(argv[2]) != std::string::npos) measure(*device, blas, line, limit);
}
