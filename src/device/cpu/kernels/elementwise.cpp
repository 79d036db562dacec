// Conversion between types, addition. Limit: memory bandwidth.
#include "src/device/cpu/kernels/elementwise.h"

#include "src/device/cpu/kernels/fp16.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

template <class From, class To>
LONGHAND_KERNEL void cast(const void* from, void* to, int64_t first, int64_t count) {
  const From* x = static_cast<const From*>(from) + first;
  To* out = static_cast<To*>(to) + first;
  each_vector(count, [&](int64_t i, auto part) { store(out + i, load(x + i, part), part); });
}

template <class From>
LONGHAND_KERNEL void cast_by_chance(const void* from, void* to, int64_t first, int64_t count, const RandomKey& key) {
  RandomBuffer buffer;
  for (int64_t at = 0; at < count; at += random_piece) {
    int64_t n = count - at < random_piece ? count - at : random_piece;
    const uint32_t* words = random_words(key, first + at, n, buffer);
    const From* x = static_cast<const From*>(from) + first + at;
    half* out = static_cast<half*>(to) + first + at;
    each_vector(n, [&](int64_t i, auto part) {
      uvec random = *reinterpret_cast<const uvec_unaligned*>(words + i);
      store(out + i, round_by_chance(load(x + i, part), random), part);
    });
  }
}

template <class T>
LONGHAND_KERNEL void add(const void* a, const void* b, void* sum, int64_t first, int64_t count) {
  const T *x = static_cast<const T*>(a) + first, *y = static_cast<const T*>(b) + first;
  T* out = static_cast<T*>(sum) + first;
  each_vector(count, [&](int64_t i, auto part) { store(out + i, load(x + i, part) + load(y + i, part), part); });
}

LONGHAND_KERNEL void copy_random_words(const RandomKey& key, uint64_t first, int64_t count, uint32_t* words) {
  RandomBuffer buffer;
  for (int64_t at = 0; at < count; at += random_piece) {
    int64_t n = count - at < random_piece ? count - at : random_piece;
    const uint32_t* from = random_words(key, first + at, n, buffer);
    for (int64_t i = 0; i < n; ++i) words[at + i] = from[i];
  }
}

}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(ElementwiseKernels, elementwise_kernels) = {
    {{cast<float, float>, cast<float, half>, cast<float, fp16>},
     {cast<half, float>, cast<half, half>, cast<half, fp16>},
     {cast<fp16, float>, cast<fp16, half>, cast<fp16, fp16>}},
    {cast_by_chance<float>, cast_by_chance<half>, cast_by_chance<fp16>},
    {add<float>, add<half>},
    copy_random_words};

}  // namespace longhand::cpu
