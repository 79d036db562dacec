// Errors: what happened, where, and what to do about it, on one line.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace longhand {

/// A run that failed: the program prints `longhand: <message>` and exits with 1.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Wrong usage (an unknown flag, an impossible combination of settings): exits with 2.
class UsageError : public Error {
 public:
  using Error::Error;
};

/// fail("{}: tensor {} has {} bytes, its shape needs {}", path, name, have, need);
template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void fail_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace longhand
