#include "config.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace simt {
namespace {

[[noreturn]] void refuse(const char* name, const char* choices, const char* value) {
  std::fprintf(stderr, "simt: %s is %s, not \"%s\"\n", name, choices, value);
  std::exit(2);
}

uint64_t number(const char* name, const char* text) {
  char* end = nullptr;
  const uint64_t value = std::strtoull(text, &end, 10);
  if (end == text || *end) refuse(name, "a number", text);
  return value;
}

void read_order(Config& config, const char* text) {
  const std::string_view value = text;
  if (value == "fwd") {
    config.order = Order::forward;
  } else if (value == "rev") {
    config.order = Order::reverse;
  } else if (value.starts_with("rand:")) {
    config.order = Order::random, config.seed = number("SIMT_ORDER", text + 5);
  } else {
    refuse("SIMT_ORDER", "fwd, rev or rand:SEED", text);
  }
}

void read_async_copy(Config& config, const char* text) {
  const std::string_view value = text;
  if (value == "late")
    config.async_copy = AsyncCopy::late;
  else if (value == "early")
    config.async_copy = AsyncCopy::early;
  else if (value == "rand")
    config.async_copy = AsyncCopy::random;
  else
    refuse("SIMT_CPASYNC", "late, early or rand", text);
}

void read_streams(Config& config, const char* text) {
  const std::string_view value = text;
  if (value != "now" && value != "late") refuse("SIMT_STREAMS", "now or late", text);
  config.streams = value == "late" ? Streams::late : Streams::now;
}

Config read_environment() {
  Config config;
  if (const char* text = std::getenv("SIMT_ORDER")) read_order(config, text);
  if (const char* text = std::getenv("SIMT_CPASYNC")) read_async_copy(config, text);
  if (const char* text = std::getenv("SIMT_STREAMS")) read_streams(config, text);
  if (const char* text = std::getenv("SIMT_WORKERS"))
    config.workers = static_cast<unsigned>(number("SIMT_WORKERS", text));
  if (const char* text = std::getenv("SIMT_SHARED")) config.shared_limit = number("SIMT_SHARED", text) * 1024;
  if (const char* text = std::getenv("SIMT_GUARD")) config.guard = number("SIMT_GUARD", text) != 0;
  return config;
}

}  // namespace

Config& config() {
  static Config config = read_environment();
  return config;
}

Counters& counters() {
  static Counters counters;
  return counters;
}

}  // namespace simt
