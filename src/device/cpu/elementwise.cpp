// Conversion, addition, and the roll of the memory.
#include "src/device/cpu/kernels/elementwise.h"

#include <cstring>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {

static int cast_index(const ConstTensor& t, const char* what) {
  switch (t.type()) {
    case Dtype::fp32:
      return 0;
    case Dtype::bf16:
      return 1;
    case Dtype::fp16:
      return 2;
    default:
      fail("cast: {} is {}, fp32, bf16 or fp16 was expected", what, dtype_name(t.type()));
  }
}

void CpuDevice::cast(const Cast& a) {
  int from = cast_index(a.x, "x"), to = cast_index(a.out, "out");
  int64_t n = a.x.elements();
  check_list(a.x, a.x.type(), n, "cast", "x");
  check_list(a.out, a.out.type(), n, "cast", "out");
  const auto& kernels = elementwise_kernels();
  RandomKey key = random_key(a.stream);
  bool chance = a.stochastic && a.out.type() == Dtype::bf16;
  for_pieces(pool_, n, piece_elements, [&](int64_t first, int64_t count, int) {
    if (chance)
      kernels.cast_by_chance[from](a.x.data(), a.out.data(), first, count, key);
    else
      kernels.cast[from][to](a.x.data(), a.out.data(), first, count);
  });
}

void CpuDevice::add(const Add& a) {
  check_add(a);
  int type = a.out.type() == Dtype::bf16;
  int64_t n = a.out.elements();
  auto kernel = elementwise_kernels().add[type];
  for_pieces(pool_, n, piece_elements,
             [&](int64_t first, int64_t count, int) { kernel(a.a.data(), a.b.data(), a.out.data(), first, count); });
}

void CpuDevice::memory_roll(const MemoryRoll& a) {
  if (a.memory.empty() || a.memory.elements() == 0) return;
  ConstTensor last = check_memory_roll(a);
  char* to = static_cast<char*>(a.memory.data());
  const char* from = static_cast<const char*>(last.data());
  int64_t bytes = last.bytes();
  if (to < from + bytes && from < to + bytes) {
    std::memmove(to, from, bytes);
  } else {
    for_pieces(pool_, bytes, 8 * piece_elements,
               [&](int64_t first, int64_t count, int) { std::memcpy(to + first, from + first, count); });
  }
}

}  // namespace longhand::cpu
