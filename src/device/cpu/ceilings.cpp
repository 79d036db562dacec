#include "longhand/ceilings.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "longhand/error.h"
#include "longhand/threads.h"
#include "src/device/cpu/kernels/ceilings.h"

namespace longhand {
namespace {

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  std::string family, model, name, line;
  while (std::getline(info, line) && !line.empty()) {
    size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1), value = line.substr(colon + 2);
    if (key == "model name") name = value;
    if (key == "cpu family") family = value;
    if (key == "model") model = value;
  }
  return name.empty() ? "unknown processor" : fmt::format("{} ({}/{})", name, family, model);
}

double thread_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// What all threads do a second when all of them work: `amount` a call, about `seconds` long in all. Each thread's rate
/// is its median by its own processor time, so that other programs on the machine do not lower the ceiling.
double rate(ThreadPool& pool, double seconds, double amount, const std::function<float(int64_t)>& work) {
  std::vector<float> kept(pool.size());
  std::vector<double> rates(pool.size());
  pool.parallel_for(
      pool.size(),
      [&](int64_t i, int) {
        std::vector<double> times;
        double begin = thread_seconds(), last = begin;
        while (times.size() < 5 || last - begin < seconds) {
          kept[i] += work(i);
          double now = thread_seconds();
          times.push_back(now - last), last = now;
        }
        std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
        rates[i] = amount / times[times.size() / 2];
      },
      false);
  return std::accumulate(rates.begin(), rates.end(), 0.0);
}

std::filesystem::path cache_file() {
  const char* base = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (base && *base) return std::filesystem::path(base) / "longhand" / "ceilings.txt";
  if (home && *home) return std::filesystem::path(home) / ".cache" / "longhand" / "ceilings.txt";
  return {};
}

/// Lines of four fields, tabs between them: whose ceilings, fma_fp32, dot_bf16, read_bytes. Other lines do not count.
using Cache = std::map<std::string, std::array<double, 3>>;

Cache read_cache(const std::filesystem::path& file) {
  Cache all;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) {
    std::istringstream fields(line);
    std::string key;
    std::array<double, 3> rates{};
    if (std::getline(fields, key, '\t') && fields >> rates[0] >> rates[1] >> rates[2]) all[key] = rates;
  }
  return all;
}

void write_cache(const std::filesystem::path& file, const Cache& all) {
  std::error_code ignored;
  std::filesystem::create_directories(file.parent_path(), ignored);
  std::filesystem::path beside = file;
  beside += fmt::format(".{}", getpid());
  std::ofstream stream(beside);
  for (const auto& [key, rates] : all) stream << fmt::format("{}\t{}\t{}\t{}\n", key, rates[0], rates[1], rates[2]);
  stream.close();
  if (stream)
    std::filesystem::rename(beside, file, ignored);
  else
    std::filesystem::remove(beside, ignored);
}

}  // namespace

struct ReadProbe::State {
  // Far more than the last-level cache, and in large pages, as weights lie (CpuDevice::allocate).
  static constexpr int64_t page = 2 << 20, all = 512 << 20;
  const cpu::CeilingKernels& kernels = cpu::ceiling_kernels();
  ThreadPool pool;
  int64_t part;  // a thread's
  std::unique_ptr<char, decltype(&std::free)> memory{nullptr, &std::free};
  std::vector<float> kept;

  explicit State(int threads)
      : pool(threads), part((all + pool.size() * page - 1) / (pool.size() * page) * page), kept(pool.size()) {
    int64_t bytes = part * pool.size();
    memory.reset(static_cast<char*>(std::aligned_alloc(page, bytes)));
    if (!memory) fail("the read bandwidth could not be measured: {} bytes of memory are missing", bytes);
    madvise(memory.get(), bytes, MADV_HUGEPAGE);
    pool.parallel_for(
        pool.size(), [&](int64_t i, int) { std::memset(memory.get() + i * part, 1, part); }, false);
  }
};

ReadProbe::ReadProbe(int threads) : state_(std::make_unique<State>(threads)) {}
ReadProbe::~ReadProbe() = default;

double ReadProbe::pass() {
  State& s = *state_;
  auto start = std::chrono::steady_clock::now();
  s.pool.parallel_for(
      s.pool.size(),
      [&](int64_t i, int) {
        s.kept[i] += s.kernels.read(reinterpret_cast<const float*>(s.memory.get() + i * s.part), s.part / 4);
      },
      false);
  double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return static_cast<double>(s.part * s.pool.size()) / seconds;
}

/// Three passes in four are slower than the one that counts, since other programs can only take bandwidth away.
static double read_rate(int threads, double seconds) {
  ReadProbe probe(threads);
  std::vector<double> rates;
  using clock = std::chrono::steady_clock;
  for (auto begin = clock::now(); rates.size() < 8 || clock::now() - begin < std::chrono::duration<double>(seconds);)
    rates.push_back(probe.pass());
  auto upper = rates.begin() + static_cast<int64_t>(rates.size()) * 3 / 4;
  std::nth_element(rates.begin(), upper, rates.end());
  return *upper;
}

Ceilings measure_ceilings(int threads) {
  const cpu::CeilingKernels& kernels = cpu::ceiling_kernels();
  ThreadPool pool(threads);
  Ceilings c{.threads = pool.size(), .processor = processor_name()};
  constexpr int64_t rounds = 100000;
  c.fma_fp32 = rate(pool, 0.3, static_cast<double>(rounds * kernels.fma_operations),
                    [&](int64_t) { return kernels.fma(rounds); });
  c.dot_bf16 = c.fma_fp32;
  if (kernels.dot_operations > 0 && __builtin_cpu_supports("avx512bf16"))
    c.dot_bf16 = rate(pool, 0.3, static_cast<double>(rounds * kernels.dot_operations),
                      [&](int64_t) { return kernels.dot(rounds); });
  c.read_bytes = read_rate(pool.size(), 0.4);
  return c;
}

Ceilings cached_ceilings(int threads) {
  if (threads <= 0) threads = ThreadPool(0).size();
  std::string processor = processor_name();
  std::string key = fmt::format("{}, {} threads, {}", processor, threads, static_cast<int>(cpu::current_isa()));
  std::filesystem::path file = cache_file();
  if (file.empty()) return measure_ceilings(threads);
  Cache all = read_cache(file);
  if (auto found = all.find(key); found != all.end()) {
    Ceilings c{found->second[0], found->second[1], found->second[2], threads, processor};
    if (c.fma_fp32 > 0 && c.dot_bf16 > 0 && c.read_bytes > 0) return c;
  }
  Ceilings c = measure_ceilings(threads);
  all[key] = {c.fma_fp32, c.dot_bf16, c.read_bytes};
  write_cache(file, all);
  return c;
}

}  // namespace longhand
