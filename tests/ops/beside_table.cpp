#include "tests/ops/beside_table.h"

#include <fmt/format.h>

#include <cstring>
#include <numeric>

namespace longhand::ops {
namespace {

/// Columns [first, first + 5) of every row and plane of `from` [3, 4, 11] to those at `to`; the others stay.
void check_copy(Device& device, Dtype type, Report& report) {
  report.begin(fmt::format("copy between views {} {}", dtype_name(type), device.name()));
  const Shape shape{3, 4, 11};
  const int64_t width = dtype_bytes(type), bytes = shape.elements() * width, first = 2, to = 5, count = 5;
  std::vector<uint8_t> source(bytes), target(bytes, 0xa5), expected = target;
  std::iota(source.begin(), source.end(), uint8_t{1});
  for (int64_t row = 0; row < bytes; row += 11 * width)
    std::memcpy(&expected[row + to * width], &source[row + first * width], count * width);
  Tensor a(device.allocate(bytes), type, shape), b(device.allocate(bytes), type, shape);
  device.upload(a, source.data()), device.upload(b, target.data());
  device.copy(b.slice(2, to, count), a.slice(2, first, count));
  device.download(target.data(), b);
  device.release(a.data()), device.release(b.data());
  int64_t wrong = 0;
  for (int64_t i = 0; i < bytes; ++i) wrong += target[i] != expected[i];
  if (wrong) report.complain("bytes that are not the copy's", static_cast<double>(wrong), 0);
}

}  // namespace

void check_beside_table(Device& device, Report& report) {
  for (Dtype type : {Dtype::u8, Dtype::bf16, Dtype::fp32, Dtype::fp64}) check_copy(device, type, report);
  report.begin(fmt::format("ceilings {}", device.name()));
  const Ceilings c = device.ceilings();
  if (!(c.fma_fp32 > 0 && c.dot_bf16 > 0 && c.read_bytes > 0)) report.complain("ceilings of 0", 0, 1);
}

}  // namespace longhand::ops
