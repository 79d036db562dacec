// Device memory on the host: every allocation ends at a page that faults, or between a sanitizer's red zones.
#pragma once
#include <cstddef>
#include <functional>

namespace simt {

/// While one lives, device memory is accessible; with SIMT_GUARD it is not otherwise.
class Accessible {
 public:
  Accessible();
  ~Accessible();
  Accessible(const Accessible&) = delete;

 private:
  bool guarded_;
};

/// Tells the checks that the host has written device memory by itself.
void host_wrote(const void* memory, size_t bytes);

/// Every allocation, in the order of addresses.
void for_each_allocation(const std::function<void(char* memory, size_t bytes)>& work);

}  // namespace simt
