#include "launch_log.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "symbols.h"

namespace simt {
namespace {

struct Line {
  uint64_t launches = 0, threads = 0, shared = 0;
  Counters counted;
};

class Log {
 public:
  explicit Log(const char* path) : path_(path) {}
  ~Log() {
    FILE* file = std::fopen(path_, "w");
    if (!file) {
      std::perror(path_);
      return;
    }
    std::fprintf(file, "downloads\t%016llx\n", static_cast<unsigned long long>(hash_));
    std::map<std::string, Line> by_name;
    for (auto& [kernel, line] : lines_) by_name[kernel_name(function_name(kernel))] = line;
    for (auto& [name, line] : by_name)
      std::fprintf(file, "%llu\t%llu\t%llu\t%llu\t%llu\t%s\n", static_cast<unsigned long long>(line.launches),
                   static_cast<unsigned long long>(line.threads), static_cast<unsigned long long>(line.shared),
                   static_cast<unsigned long long>(line.counted.ldmatrix_phases),
                   static_cast<unsigned long long>(line.counted.ldmatrix_conflicts), name.c_str());
    std::fclose(file);
  }
  Line& of(const void* kernel) { return lines_[kernel]; }
  void add(const unsigned char* bytes, size_t count) {
    for (size_t i = 0; i < count; ++i) hash_ = (hash_ ^ bytes[i]) * 1099511628211ull;  // FNV-1a
  }

 private:
  const char* path_;
  std::map<const void*, Line> lines_;
  uint64_t hash_ = 14695981039346656037ull;
};

Log& log() {
  static Log one(std::getenv("SIMT_LAUNCH_LOG"));
  return one;
}

}  // namespace

bool launches_are_logged() {
  static const bool logged = std::getenv("SIMT_LAUNCH_LOG");
  return logged;
}

void log_download(const void* bytes, size_t count) { log().add(static_cast<const unsigned char*>(bytes), count); }

void log_launch(const Launch& launch, const Counters& counted) {
  Line& line = log().of(launch.kernel);
  ++line.launches;
  line.threads = std::max<uint64_t>(line.threads, launch.block.x * launch.block.y * launch.block.z);
  line.shared = std::max<uint64_t>(line.shared, launch.shared);
  line.counted.ldmatrix_phases += counted.ldmatrix_phases;
  line.counted.ldmatrix_conflicts += counted.ldmatrix_conflicts;
}

}  // namespace simt
