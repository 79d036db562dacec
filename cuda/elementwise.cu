// Operations without arithmetic to speak of: conversion, addition, the roll of the memory.
//
// One thread takes a piece: 16 bytes of each tensor (addition), eight elements (conversion). Tensors that do not begin
// at 16 bytes, and a tensor's end, go element by element. Bytes moved, each once: cast n (from + to), add 3 n, roll 2 n
// times the element's size; limit: memory bandwidth (the stochastic cast computes a quarter of a random block an
// element, which bf16 output at 6 bytes an element hides).
#include "cuda/fp16.h"
#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int octet = 8;

template <class T>
__device__ __forceinline__ void load_octet(T (&x)[octet], const T* from, int64_t count, bool aligned) {
  if (aligned && count >= octet) {
#pragma unroll
    for (int i = 0; i < octet; i += piece<T>) {
      uint4 words = *reinterpret_cast<const uint4*>(from + i);
      memcpy(&x[i], &words, 16);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < octet; ++i) x[i] = i < count ? from[i] : T{};
}

template <class T>
__device__ __forceinline__ void store_octet(T* to, const T (&x)[octet], int64_t count, bool aligned) {
  if (aligned && count >= octet) {
#pragma unroll
    for (int i = 0; i < octet; i += piece<T>) {
      uint4 words;
      memcpy(&words, &x[i], 16);
      *reinterpret_cast<uint4*>(to + i) = words;
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < octet; ++i)
    if (i < count) to[i] = x[i];
}

template <class To, class From, bool by_chance>
__global__ void __launch_bounds__(256)
    cast_kernel(To* out, const From* x, int64_t n, RandomStream stream, bool aligned) {
  int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * octet;
  if (first >= n) return;
  From from[octet];
  To to[octet];
  load_octet(from, x + first, n - first, aligned);
  if constexpr (by_chance) {
    uint32_t random[octet];
    random_words(random, stream, first);
#pragma unroll
    for (int i = 0; i < octet; ++i) to[i] = round_by_chance(to_float(from[i]), random[i]);
  } else {
#pragma unroll
    for (int i = 0; i < octet; ++i) to[i] = from_float<To>(to_float(from[i]));
  }
  store_octet(out + first, to, n - first, aligned);
}

template <class T>
__global__ void __launch_bounds__(256) add_kernel(T* out, const T* a, const T* b, int64_t n, bool aligned) {
  int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * piece<T>;
  if (first >= n) return;
  float x[piece<T>], y[piece<T>];
  load_part(x, a + first, n - first, aligned);
  load_part(y, b + first, n - first, aligned);
#pragma unroll
  for (int i = 0; i < piece<T>; ++i) x[i] += y[i];
  store_part(out + first, x, n - first, aligned);
}

/// work(T{}) with the C++ type of an fp32, bf16 or fp16 tensor.
template <class Work>
void for_cast_type(const ConstTensor& t, const char* what, const Work& work) {
  switch (t.type()) {
    case Dtype::fp32:
      return work(float{});
    case Dtype::bf16:
      return work(bf16_t{});
    case Dtype::fp16:
      return work(fp16_t{});
    default:
      fail("cast: {} is {}, fp32, bf16 or fp16 was expected", what, dtype_name(t.type()));
  }
}

}  // namespace

void GpuDevice::cast(const Cast& a) {
  int64_t n = a.x.elements();
  check_list(a.x, a.x.type(), n, "cast", "x");
  check_list(a.out, a.out.type(), n, "cast", "out");
  bool aligned = aligned16(a.x.data()) && aligned16(a.out.data());
  for_cast_type(a.x, "x", [&](auto from) {
    for_cast_type(a.out, "out", [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      Launch how{"cast", dim3(ceil_div(n, 256 * octet)), dim3(256), 0, a.x.shape()};
      To* out = static_cast<To*>(a.out.data());
      const From* x = static_cast<const From*>(a.x.data());
      if constexpr (std::is_same_v<To, bf16_t>)
        if (a.stochastic) return launch(how, cast_kernel<To, From, true>, out, x, n, a.stream, aligned);
      if constexpr (std::is_same_v<To, From>)
        copy(a.out, ConstTensor(a.x.data(), a.x.type(), a.out.shape()));
      else
        launch(how, cast_kernel<To, From, false>, out, x, n, a.stream, aligned);
    });
  });
}

void GpuDevice::add(const Add& a) {
  check_add(a);
  int64_t n = a.out.elements();
  bool aligned = aligned16(a.out.data()) && aligned16(a.a.data()) && aligned16(a.b.data());
  for_type(a.out.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({"add", dim3(ceil_div(n, 256 * piece<T>)), dim3(256), 0, a.out.shape()}, add_kernel<T>,
           static_cast<T*>(a.out.data()), static_cast<const T*>(a.a.data()), static_cast<const T*>(a.b.data()), n,
           aligned);
  });
}

void GpuDevice::memory_roll(const MemoryRoll& a) {
  if (a.memory.empty() || a.memory.elements() == 0) return;
  ConstTensor last = check_memory_roll(a);
  const char *to = static_cast<const char*>(a.memory.data()), *from = static_cast<const char*>(last.data());
  Operation operation(*this);
  if (to < from + last.bytes() && from < to + last.bytes()) {  // by way of scratch: a copy may not overlap
    Tensor aside(scratch<char>(last.bytes()), last.type(), last.shape());
    copy(aside, last);
    last = aside;
  }
  copy(a.memory, last);
}

}  // namespace longhand::LONGHAND_GPU
