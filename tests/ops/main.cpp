// Runs the operation table: every shape of every operation, in every type, on every device of this build.
#include <charconv>
#include <cstring>
#include <string>

#include "tests/ops/beside_table.h"
#include "tests/ops/check.h"

namespace longhand::ops {
namespace {

struct Options {
  std::string device, filter;
  bool list = false, quick = false;
  uint64_t seed = 1;
  int threads = 0;
};

constexpr const char* usage =
    "ops [--device cpu|simt|cuda] [--filter TEXT] [--threads N] [--seed N] [--quick] [--list]\n"
    "  --device   one device (default: every one of this build)\n"
    "  --filter   only operations, shapes and types whose line contains TEXT\n"
    "  --threads  threads of the cpu device (0 = every core)\n"
    "  --quick    small shapes only, for sanitizers\n"
    "  --list     print the cases, run none\n";

uint64_t number(const char* flag, const char* text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text, text + std::strlen(text), value);
  if (error != std::errc() || *end) fail_usage("{} takes a number, not \"{}\"", flag, text);
  return value;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string flag = argv[i];
    auto next = [&]() -> const char* {
      if (i + 1 >= argc) fail_usage("{} needs a value", flag);
      return argv[++i];
    };
    if (flag == "--device")
      options.device = next();
    else if (flag == "--filter")
      options.filter = next();
    else if (flag == "--threads")
      options.threads = static_cast<int>(number("--threads", next()));
    else if (flag == "--seed")
      options.seed = number("--seed", next());
    else if (flag == "--quick")
      options.quick = true;
    else if (flag == "--list")
      options.list = true;
    else
      fail_usage("unknown flag {}\n{}", flag, usage);
  }
  return options;
}

/// The devices asked for, or every one that this build and machine have.
std::vector<std::unique_ptr<CountingDevice>> open_devices(const Options& options) {
  std::vector<std::unique_ptr<CountingDevice>> devices;
  DeviceOptions device_options;
  device_options.threads = options.threads;
  if (!options.device.empty()) {
    devices.push_back(std::make_unique<CountingDevice>(make_device(options.device, device_options)));
    return devices;
  }
  for (const char* name : {"cpu", "simt", "cuda"}) {
    try {
      devices.push_back(std::make_unique<CountingDevice>(make_device(name, device_options)));
    } catch (const Error& error) {
      fmt::print("without {}: {}\n", name, error.what());
    }
  }
  return devices;
}

class Runner {
 public:
  explicit Runner(Options options) : options_(std::move(options)), devices_(open_devices(options_)) {}

  int run() {
    uint32_t place = 0;
    for (const Entry& entry : operation_table()) {
      for (const Sizes& sizes : entry.row->shapes()) run_shape(entry, sizes, place++);
      place = (place + 999) / 1000 * 1000;  // a new shape leaves the other operations' inputs as they are
    }
    if (options_.list) return 0;
    if (options_.filter.empty())
      for (auto& device : devices_) check_beside_table(*device, report_);
    check_every_operation_ran();
    report_.finish();
    fmt::print("{} cases of operation, shape, type and device\n{} passed, {} failed\n", report_.passed + report_.failed,
               report_.passed, report_.failed);
    return report_.failed ? 1 : 0;
  }

 private:
  bool wanted(const Entry& entry, const Sizes& sizes, Dtype type, const std::string& label) const {
    if (label.find(options_.filter) == std::string::npos) return false;
    return !options_.quick || entry.row->cost(sizes, type).operations < 1e6;
  }

  void run_shape(const Entry& entry, const Sizes& sizes, uint32_t place) {
    for (Dtype type : entry.row->types(sizes)) {
      std::string label = fmt::format("{} {} {}", entry.name, sizes.text(), dtype_name(type));
      if (!wanted(entry, sizes, type, label)) continue;
      if (options_.list)
        fmt::print("{}\n", label);
      else
        run_case(entry, make_case(*entry.row, sizes, type, options_.seed, place), label);
    }
    std::string label = fmt::format("{} {} finite differences", entry.name, sizes.text());
    if (!options_.list && wanted(entry, sizes, Dtype::fp64, label)) run_gradients(entry, sizes, place, label);
  }

  void run_case(const Entry& entry, const Case& c, const std::string& label) {
    std::vector<Arrays> results;
    for (auto& device : devices_) {
      report_.begin(fmt::format("{} {}", label, device->name()));
      guarded([&] { results.push_back(check_on_device(*entry.row, c, *device, complaint())); });
    }
    if (results.size() != devices_.size()) return;
    for (size_t other = 1; other < results.size(); ++other) {
      report_.begin(fmt::format("{} {} and {}", label, devices_[0]->name(), devices_[other]->name()));
      check_agreement(*entry.row, c, results[0], results[other], complaint());
    }
  }

  void run_gradients(const Entry& entry, const Sizes& sizes, uint32_t place, const std::string& label) {
    if (entry.row->cost(sizes, Dtype::fp64).operations > 2e6) return;
    Case c = make_case(*entry.row, sizes, Dtype::fp64, options_.seed, place);
    if (entry.row->gradients(c).empty()) return;
    report_.begin(label);
    Random random(options_.seed + 1, place);
    guarded([&] { check_gradients(*entry.row, c, random, complaint()); });
  }

  /// An operation whose row runs something else, or that has no shape, is not tested.
  void check_every_operation_ran() {
    if (!options_.filter.empty() || options_.quick) return;
    for (const Entry& entry : operation_table())
      for (auto& device : devices_) {
        report_.begin(fmt::format("{} on {}", entry.name, device->name()));
        if (!device->calls[entry.name]) report_.complain("its row never runs it", 0, 1);
      }
  }

  template <class Work>
  void guarded(Work work) {
    try {
      work();
    } catch (const std::exception& error) {
      report_.complain(error.what(), 1, 0);
    }
  }
  Complaint complaint() {
    return [this](const std::string& what, double error, double limit) { report_.complain(what, error, limit); };
  }

  Options options_;
  std::vector<std::unique_ptr<CountingDevice>> devices_;
  Report report_;
};

}  // namespace
}  // namespace longhand::ops

int main(int argc, char** argv) {
  try {
    return longhand::ops::Runner(longhand::ops::parse(argc, argv)).run();
  } catch (const longhand::UsageError& error) {
    fmt::print(stderr, "ops: {}\n", error.what());
    return 2;
  } catch (const std::exception& error) {
    fmt::print(stderr, "ops: {}\n", error.what());
    return 1;
  }
}
