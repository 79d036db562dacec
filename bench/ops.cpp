// Every operation of the table against this machine's ceilings: the time that its bytes and its operations take at
// least, over the time that it took.
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "longhand/ceilings.h"
#include "tests/ops/check.h"

namespace longhand::ops {
namespace {

struct Options {
  std::string device = "cpu", filter;
  int threads = 0;
  double seconds = 0.3;  // for each shape and type
  bool json = false, predict = false;
};

constexpr const char* usage =
    "ops [--device cpu] [--filter TEXT] [--threads N] [--seconds S] [--json]\n"
    "  --filter   only operations, shapes and types whose line contains TEXT\n"
    "  --seconds  time spent on each line (0.3)\n"
    "  --json     one JSON object a line\n"
    "  --predict  run nothing: a Markdown table of the least bytes and operations, and the times that cards would take";

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i];
    if (flag == "--json" || flag == "--predict") {
      (flag == "--json" ? options.json : options.predict) = true;
      continue;
    }
    if (i + 1 >= argc) fail_usage("{} is unknown or needs a value\n{}", flag, usage);
    std::string value = argv[++i];
    if (flag == "--device")
      options.device = value;
    else if (flag == "--filter")
      options.filter = value;
    else if (flag == "--threads")
      options.threads = std::atoi(value.c_str());
    else if (flag == "--seconds")
      options.seconds = std::atof(value.c_str());
    else
      fail_usage("unknown flag {}\n{}", flag, usage);
  }
  return options;
}

/// The median over runs that take `budget` seconds together, three at least.
double median_seconds(const Operation& row, Device& device, const Case& c, Bound& d, double budget) {
  using Clock = std::chrono::steady_clock;
  auto once = [&] {
    auto start = Clock::now();
    row.run(device, c, d);
    device.synchronize();
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  once();
  std::vector<double> times;
  double total = 0;
  while (times.size() < 3 || (total < budget && times.size() < 10000)) {
    times.push_back(once());
    total += times.back();
  }
  std::nth_element(times.begin(), times.begin() + static_cast<int64_t>(times.size()) / 2, times.end());
  return times[times.size() / 2];
}

void time_shape(const Options& options, const Ceilings& ceilings, Device& device, const Entry& entry,
                const Sizes& sizes, Dtype type) {
  std::string label = fmt::format("{} {} {}", entry.name, sizes.text(), dtype_name(type));
  if (label.find(options.filter) == std::string::npos) return;
  Case c(sizes, type);
  c.timing = true;
  Random random(1, 0);
  entry.row->inputs(c, random);
  Bound d(device, c);
  entry.row->derive(device, c, d);
  double seconds = median_seconds(*entry.row, device, c, d, options.seconds);
  Cost cost = entry.row->cost(sizes, type);
  double peak = type == Dtype::bf16 ? ceilings.dot_bf16 : ceilings.fma_fp32;
  double by_bytes = cost.bytes / ceilings.read_bytes, by_operations = cost.operations / peak;
  double share = 100 * std::max(by_bytes, by_operations) / seconds;
  const char* limit = by_bytes > by_operations ? "memory" : "arithmetic";
  if (options.json)
    fmt::print(
        "{{\"operation\": \"{}\", \"shape\": \"{}\", \"type\": \"{}\", \"microseconds\": {:.2f}, "
        "\"gigabytes_per_s\": {:.2f}, \"gigaflops\": {:.2f}, \"limit\": \"{}\", \"percent\": {:.1f}}}\n",
        entry.name, sizes.text(), dtype_name(type), seconds * 1e6, cost.bytes / seconds * 1e-9,
        cost.operations / seconds * 1e-9, limit, share);
  else
    fmt::print("{:<20} {:<4} {:>11.1f} {:>8.2f} {:>8.1f} {:>6.1f} {:<10}  {}\n", entry.name, dtype_name(type),
               seconds * 1e6, cost.bytes / seconds * 1e-9, cost.operations / seconds * 1e-9, share, limit,
               sizes.text());
  std::fflush(stdout);
}

/// A card as its data sheet has it. Kernels are expected to reach 90% of its bandwidth, or 60% of what its ordinary
/// cores (fp32) or mma.sync (bf16) can do; mma.sync reaches 63% of an H100's tensor cores, whose peak needs wgmma (Luo
/// et al. 2024, "Benchmarking and Dissecting the Nvidia Hopper GPU Architecture via Microbenchmarking").
struct Card {
  const char* name;
  double read_bytes, fp32, mma_bf16;
};
constexpr Card cards[] = {{"A100-80", 2.04e12, 19.5e12, 312e12}, {"H100 SXM", 3.35e12, 67e12, 0.63 * 989e12}};

std::string microseconds(const Card& card, const Cost& cost, Dtype type) {
  double memory = cost.bytes / (0.9 * card.read_bytes);
  double arithmetic = cost.operations / (0.6 * (type == Dtype::bf16 ? card.mma_bf16 : card.fp32));
  return fmt::format("{:.1f} ({})", 1e6 * std::max(memory, arithmetic), memory > arithmetic ? "bytes" : "operations");
}

int predict() {
  fmt::print("| operation | type | shape | MB | MFLOP | {}, us | {}, us |\n|---|---|---|---|---|---|---|\n",
             cards[0].name, cards[1].name);
  for (const Entry& entry : operation_table())
    for (const Sizes& sizes : entry.row->timed_shapes())
      for (Dtype type : entry.row->types(sizes)) {
        Cost cost = entry.row->cost(sizes, type);
        fmt::print("| {} | {} | {} | {:.2f} | {:.1f} | {} | {} |\n", entry.name, dtype_name(type), sizes.text(),
                   1e-6 * cost.bytes, 1e-6 * cost.operations, microseconds(cards[0], cost, type),
                   microseconds(cards[1], cost, type));
      }
  return 0;
}

int run(const Options& options) {
  if (options.predict) return predict();
  DeviceOptions device_options;
  device_options.threads = options.threads;
  auto device = make_device(options.device, device_options);
  Ceilings ceilings = device->ceilings();
  if (!options.json) {
    fmt::print("{}, {} threads: fp32 {:.1f} GFLOP/s, bf16 {:.1f} GFLOP/s, read {:.1f} GB/s\n", ceilings.processor,
               ceilings.threads, ceilings.fma_fp32 * 1e-9, ceilings.dot_bf16 * 1e-9, ceilings.read_bytes * 1e-9);
    fmt::print("{:<20} {:<4} {:>11} {:>8} {:>8} {:>6} {:<10}  {}\n", "operation", "type", "us", "GB/s", "GFLOP/s", "%",
               "limit", "shape");
  }
  for (const Entry& entry : operation_table())
    for (const Sizes& sizes : entry.row->timed_shapes())
      for (Dtype type : entry.row->types(sizes)) time_shape(options, ceilings, *device, entry, sizes, type);
  return 0;
}

}  // namespace
}  // namespace longhand::ops

int main(int argc, char** argv) {
  try {
    return longhand::ops::run(longhand::ops::parse(argc, argv));
  } catch (const longhand::UsageError& error) {
    fmt::print(stderr, "ops: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "ops: {}\n", error.what());
    return 1;
  }
}
