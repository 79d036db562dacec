// Sinusoids of distances, in fp64: E(d) = [sin(d f) | cos(d f)], f_m = 10000^(-2m/D).
//
// One thread a pair (d, m) writes its sine and its cosine. The table is built once for a set of weights; limit: fp64
// operations, some 200 a pair.
#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

template <class T>
__global__ void __launch_bounds__(256) position_encoding_kernel(T* out, int64_t distances, int64_t width) {
  int64_t half = width / 2, index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= distances * half) return;
  int64_t distance = index / half, m = index % half;
  double frequency = pow(10000.0, -2.0 * static_cast<double>(m) / static_cast<double>(width));
  double angle = static_cast<double>(distance) * frequency;
  out[distance * width + m] = from_float<T>(static_cast<float>(sin(angle)));
  out[distance * width + half + m] = from_float<T>(static_cast<float>(cos(angle)));
}

}  // namespace

void GpuDevice::position_encoding(const PositionEncoding& a) {
  constexpr auto name = "position_encoding";
  check_position_encoding(a);
  int64_t distances = rows_of(a.out), width = width_of(a.out);
  for_type(a.out.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({name, dim3(ceil_div(distances * (width / 2), 256)), dim3(256), 0, a.out.shape()},
           position_encoding_kernel<T>, static_cast<T*>(a.out.data()), distances, width);
  });
}

}  // namespace longhand::LONGHAND_GPU
