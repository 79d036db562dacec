#include "src/device/cpu/kernels/ring.h"

#include "src/device/cpu/kernels/int8.h"
#include "src/device/cpu/kernels/rows.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace ring {

LONGHAND_INLINE vec load_row(const int8_t* row, Whole) { return load(row); }
LONGHAND_INLINE vec load_row(const int8_t* row, Part part) { return load_part(row, part.count); }
template <class T, class Extent>
LONGHAND_INLINE vec load_row(const T* row, Extent extent) {
  return load(row, extent);
}

template <class T>
static void bounds_of(HeadRows rows, HeadRows scales, int64_t count, int64_t width, float* low, float* high) {
  each_vector(width, [&](int64_t c, auto part) {
    vec least = splat(__builtin_inff()), most = splat(-__builtin_inff());
    for (int64_t i = 0; i < count; ++i) {
      vec x = load_row(static_cast<const T*>(rows.data) + i * rows.stride + c, part);
      if constexpr (sizeof(T) == 1) x = x * splat(static_cast<const float*>(scales.data)[i * scales.stride]);
      least = minimum(least, x), most = maximum(most, x);
    }
    store(low + c, least, part), store(high + c, most, part);
  });
}

static void bounds(HeadRows rows, HeadRows scales, RingType type, int64_t count, int64_t width, float* low,
                   float* high) {
  if (type == RingType::fp32)
    bounds_of<float>(rows, scales, count, width, low, high);
  else if (type == RingType::bf16)
    bounds_of<half>(rows, scales, count, width, low, high);
  else
    bounds_of<int8_t>(rows, scales, count, width, low, high);
}

}  // namespace ring
}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(RingKernels, ring_kernels) = {ring::bounds};

}  // namespace longhand::cpu
