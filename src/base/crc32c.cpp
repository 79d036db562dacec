// CRC-32C (Castagnoli polynomial 0x1EDC6F41, reflected 0x82F63B78), the checksum of tensors.
// With SSE4.2 the processor's own instruction, 8 bytes at a time; otherwise eight tables, 8 bytes at a time.
#include <array>
#include <cstdint>
#include <cstring>

#include "longhand/safetensors.h"

namespace longhand {
namespace {

using Tables = std::array<std::array<uint32_t, 256>, 8>;

constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t value = byte;
    for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0x82F63B78u : 0);
    tables[0][byte] = value;
  }
  for (int lane = 1; lane < 8; ++lane)
    for (int byte = 0; byte < 256; ++byte)
      tables[lane][byte] = tables[lane - 1][byte] >> 8 ^ tables[0][tables[lane - 1][byte] & 0xff];
  return tables;
}

constexpr Tables kTables = make_tables();

uint32_t by_tables(const unsigned char* data, int64_t bytes, uint32_t value) {
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    word ^= value;
    value = 0;
    for (int lane = 0; lane < 8; ++lane) value ^= kTables[7 - lane][word >> 8 * lane & 0xff];
  }
  for (; bytes > 0; ++data, --bytes) value = value >> 8 ^ kTables[0][(value ^ *data) & 0xff];
  return value;
}

#ifdef __x86_64__
__attribute__((target("sse4.2"))) uint32_t by_instruction(const unsigned char* data, int64_t bytes, uint32_t value) {
  uint64_t wide = value;
  for (; bytes >= 8; data += 8, bytes -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    wide = __builtin_ia32_crc32di(wide, word);
  }
  value = static_cast<uint32_t>(wide);
  for (; bytes > 0; ++data, --bytes) value = __builtin_ia32_crc32qi(value, *data);
  return value;
}
#endif

}  // namespace

uint32_t crc32c(const void* data, int64_t bytes, uint32_t seed) {
  const unsigned char* bytes_of = static_cast<const unsigned char*>(data);
#ifdef __x86_64__
  static const bool instruction = __builtin_cpu_supports("sse4.2");
  if (instruction) return ~by_instruction(bytes_of, bytes, ~seed);
#endif
  return ~by_tables(bytes_of, bytes, ~seed);
}

uint32_t crc32c_by_tables(const void* data, int64_t bytes, uint32_t seed) {
  return ~by_tables(static_cast<const unsigned char*>(data), bytes, ~seed);
}

}  // namespace longhand
