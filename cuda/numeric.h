// What every kernel file shares: types, 16-byte pieces, sums over warps and blocks in a fixed order, dropout.
#pragma once

#include <cstdint>

#include "cuda/simt/simt.h"
#include "longhand/device.h"

namespace longhand::LONGHAND_GPU {

using bf16_t = __nv_bfloat16;
constexpr unsigned all_lanes = 0xffffffffu;

__device__ __forceinline__ float to_float(float x) { return x; }
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
