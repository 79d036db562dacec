// What every kernel file shares: types, 16-byte pieces, sums over warps and blocks in a fixed order, dropout.
#pragma once

#include <cstdint>

#include "cuda/simt/simt.h"
#include "longhand/device.h"

namespace longhand::LONGHAND_GPU {

using bf16_t = __nv_bfloat16;
constexpr unsigned all_lanes = 0xffffffffu;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(int8_t x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(bf16_t x) { return __bfloat162float(x); }
template <class T>
__device__ __forceinline__ T from_float(float x) {
  if constexpr (sizeof(T) == 4)
    return x;
  else
    return __float2bfloat16_rn(x);
}

/// Elements of T in 16 bytes, what a thread reads or writes at once.
template <class T>
constexpr int piece = 16 / static_cast<int>(sizeof(T));

/// A piece of a row as floats; `from` is 16-byte aligned.
template <class T>
__device__ __forceinline__ void load_piece(float (&x)[piece<T>], const T* from) {
  uint4 words = *reinterpret_cast<const uint4*>(from);
  const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4) {
      x[i] = __uint_as_float(word[i]);
    } else if constexpr (sizeof(T) == 1) {
#pragma unroll
      for (int byte = 0; byte < 4; ++byte) x[4 * i + byte] = static_cast<int8_t>(word[i] >> (8 * byte) & 255);
    } else {
      x[2 * i] = __uint_as_float(word[i] << 16);
      x[2 * i + 1] = __uint_as_float(word[i] & 0xffff0000u);
    }
  }
}

__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, 4);
  return word;
}

template <class T>
__device__ __forceinline__ void store_piece(T* to, const float (&x)[piece<T>]) {
  uint32_t word[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (sizeof(T) == 4)
      word[i] = __float_as_uint(x[i]);
    else
      word[i] = pack_bf16(x[2 * i], x[2 * i + 1]);
  }
  *reinterpret_cast<uint4*>(to) = make_uint4(word[0], word[1], word[2], word[3]);
}

/// The first `count` elements of a piece, 0 for the others: at once where the tensor's pieces are `aligned` and all of
/// them are there, one by one otherwise.
template <class T>
__device__ __forceinline__ void load_part(float (&x)[piece<T>], const T* from, int64_t count, bool aligned) {
  if (aligned && count >= piece<T>) {
    load_piece<T>(x, from);
    return;
  }
#pragma unroll
  for (int i = 0; i < piece<T>; ++i) x[i] = i < count ? to_float(from[i]) : 0.0f;
}
template <class T>
__device__ __forceinline__ void store_part(T* to, const float (&x)[piece<T>], int64_t count, bool aligned) {
  if (aligned && count >= piece<T>) {
    store_piece<T>(to, x);
    return;
  }
#pragma unroll
  for (int i = 0; i < piece<T>; ++i)
    if (i < count) to[i] = from_float<T>(x[i]);
}

/// A row of any width at any address as aligned pieces: the first one begins at or before the row, the last one ends at
/// or after it; what lies outside the row is neither read nor written.
template <class T>
struct RowPieces {
  T* row;
  int64_t width, count;
  int lead;

  __device__ __forceinline__ RowPieces(T* row, int64_t width) : row(row), width(width) {
    lead = static_cast<int>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
    count = (width + lead + piece<T> - 1) / piece<T>;
  }
  /// The column of the first element of a piece, negative where the piece begins before the row.
  __device__ __forceinline__ int64_t column(int64_t p) const { return p * piece<T> - lead; }
  __device__ __forceinline__ bool whole(int64_t first) const { return first >= 0 && first + piece<T> <= width; }
  __device__ __forceinline__ void load(float (&x)[piece<T>], int64_t p, float outside) const {
    int64_t first = column(p);
    if (whole(first)) {
      load_piece<T>(x, row + first);
      return;
    }
#pragma unroll
    for (int i = 0; i < piece<T>; ++i) x[i] = first + i >= 0 && first + i < width ? to_float(row[first + i]) : outside;
  }
  __device__ __forceinline__ void store(int64_t p, const float (&x)[piece<T>]) const {
    int64_t first = column(p);
    if (whole(first)) {
      store_piece<T>(row + first, x);
      return;
    }
#pragma unroll
    for (int i = 0; i < piece<T>; ++i)
      if (first + i >= 0 && first + i < width) row[first + i] = from_float<T>(x[i]);
  }
};

/// The sum over a warp, in every lane; always the same tree.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(all_lanes, x, step);
  return x;
}
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(all_lanes, x, step));
  return x;
}

/// The sum over a block of `threads`, in every thread; `shared` has one float a warp and is free again on return.
template <int threads>
__device__ __forceinline__ float block_sum(float x, float* shared) {
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < threads / 32; ++warp) sum += shared[warp];
  __syncthreads();
  return sum;
}
template <int threads>
__device__ __forceinline__ float block_max(float x, float* shared) {
  x = warp_max(x);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  float largest = shared[0];
#pragma unroll
  for (int warp = 1; warp < threads / 32; ++warp) largest = fmaxf(largest, shared[warp]);
  __syncthreads();
  return largest;
}

/// Dropout as kernels take it: element e is kept when its random word is at least `threshold`.
struct DropoutKey {
  RandomStream stream;
  uint32_t threshold = 0;
  float scale = 1;
  bool on = false;

  __device__ __forceinline__ float factor(uint64_t element) const {
    return stream.bits(element) >= threshold ? scale : 0.0f;
  }
};

inline DropoutKey dropout_key(const Dropout& d, const char* operation) {
  if (!(d.rate >= 0 && d.rate < 1)) fail("{}: a dropout rate of {} is not in [0, 1)", operation, d.rate);
  return {d.stream, d.threshold(), d.scale(), d.rate > 0};
}

/// The random words of elements [first, first + n), n a multiple of 4: one block for four of them.
template <int n>
__device__ __forceinline__ void random_words(uint32_t (&word)[n], const RandomStream& stream, uint64_t first) {
  uint32_t all[n + 4];
  int skip = static_cast<int>(first & 3);
#pragma unroll
  for (int b = 0; b <= n / 4; ++b) {
    PhiloxBlock block{};
    if (b < n / 4 || skip) block = stream.block((first >> 2) + b);
#pragma unroll
    for (int i = 0; i < 4; ++i) all[4 * b + i] = block.word[i];
  }
#pragma unroll
  for (int i = 0; i < n; ++i) {
    uint32_t low = skip & 1 ? all[i + 1] : all[i], high = skip & 1 ? all[i + 3] : all[i + 2];
    word[i] = skip & 2 ? high : low;
  }
}

/// x times the dropout factors of elements [first, first + n).
template <int n>
__device__ __forceinline__ void drop(float (&x)[n], const DropoutKey& dropout, uint64_t first) {
  uint32_t word[n];
  random_words(word, dropout.stream, first);
#pragma unroll
  for (int i = 0; i < n; ++i) x[i] *= word[i] >= dropout.threshold ? dropout.scale : 0.0f;
}

/// x in bf16, rounded stochastically: the upper half of the random word is added to the lower half of x, which is then
/// cut off.
__device__ __forceinline__ bf16_t round_by_chance(float x, uint32_t random) {
  uint32_t word = __float_as_uint(x);
  bool special = (word & 0x7f800000u) == 0x7f800000u, is_nan = (word & 0x7fffffffu) > 0x7f800000u;
  uint32_t moved = special ? word : word + (random >> 16);
  return __ushort_as_bfloat16(static_cast<unsigned short>(moved >> 16 | (is_nan ? 0x40u : 0u)));
}

/// work(T{}) with the C++ type of an fp32 or bf16 tensor.
template <class Work>
void for_type(Dtype type, const Work& work) {
  if (type == Dtype::fp32)
    work(float{});
  else
    work(bf16_t{});
}

inline bool aligned16(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }
inline unsigned ceil_div(int64_t a, int64_t b) { return static_cast<unsigned>((a + b - 1) / b); }

}  // namespace longhand::LONGHAND_GPU
