// Sinusoids of distances, in fp64.
#include <vector>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {

template <class T>
static void encode(T* row, int64_t distance, const std::vector<double>& frequency) {
  int64_t half_width = static_cast<int64_t>(frequency.size());
  for (int64_t m = 0; m < half_width; ++m) {
    double angle = static_cast<double>(distance) * frequency[m];
    row[m] = T(static_cast<float>(std::sin(angle)));
    row[half_width + m] = T(static_cast<float>(std::cos(angle)));
  }
}

void CpuDevice::position_encoding(const PositionEncoding& a) {
  check_position_encoding(a);
  bool is_bf16 = a.out.type() == Dtype::bf16;
  int64_t distances = rows_of(a.out), width = width_of(a.out);
  std::vector<double> frequency(width / 2);
  for (int64_t m = 0; m < width / 2; ++m)
    frequency[m] = std::pow(10000.0, -2.0 * static_cast<double>(m) / static_cast<double>(width));
  for_pieces(pool_, distances, std::max<int64_t>(1, 512 / width), [&](int64_t first, int64_t count, int) {
    for (int64_t d = first; d < first + count; ++d) {
      if (is_bf16)
        encode(a.out.as<bf16>() + d * width, d, frequency);
      else
        encode(a.out.as<float>() + d * width, d, frequency);
    }
  });
}

}  // namespace longhand::cpu
