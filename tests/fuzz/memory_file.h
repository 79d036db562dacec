// A fuzzer's bytes as a file that a reader can open by name.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>

namespace longhand::fuzz {

class MemoryFile {
 public:
  MemoryFile(const void* data, size_t bytes) : file_(memfd_create("fuzz", MFD_CLOEXEC)) {
    if (file_ < 0 || write(file_, data, bytes) != static_cast<ssize_t>(bytes)) std::abort();
  }
  explicit MemoryFile(const std::string& content) : MemoryFile(content.data(), content.size()) {}
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { close(file_); }
  std::string path() const { return "/proc/self/fd/" + std::to_string(file_); }

 private:
  int file_;
};

/// A safetensors file of readable parts, `header`, a zero byte, `data`: the length in front, which a fuzzer would
/// hardly ever get right, is put there.
inline std::string safetensors_of_parts(const uint8_t* input, size_t size) {
  const void* zero = size ? std::memchr(input, 0, size) : nullptr;
  uint64_t header = zero ? static_cast<size_t>(static_cast<const uint8_t*>(zero) - input) : size;
  std::string content(reinterpret_cast<const char*>(&header), 8);
  content.append(reinterpret_cast<const char*>(input), header);
  if (zero) content.append(reinterpret_cast<const char*>(input) + header + 1, size - header - 1);
  return content;
}

/// An error is an answer when it is one line.
inline void check_message(const char* message) {
  if (!*message || std::strchr(message, '\n')) std::abort();
}

}  // namespace longhand::fuzz
