// Where in a kernel something happens, and what ends a kernel that does something wrong.
#pragma once

namespace simt {

/// The line that calls a function whose last parameter is `Place place = Place::here()`.
struct Place {
  const char* file = nullptr;
  int line = 0;

  static constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  friend bool operator==(const Place&, const Place&) = default;
};

/// The last parameter of operations that errors name the place of.
#define SIMT_PLACE_PARAMETER , ::simt::Place place = ::simt::Place::here()

/// Ends the running kernel: its launch returns cudaErrorLaunchFailure, and the text, with block and thread before it,
/// is what cudaGetErrorString says.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

/// The text of the last launch that failed.
const char* last_error();

}  // namespace simt
