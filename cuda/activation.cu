// The activation by itself, and its backward pass.
//
//   out = activation(x);   d_x = d_out * dropout mask * activation'(x)
//
// Forward: one thread takes eight elements; moves 2 n elements once. Backward: one thread takes a 16-byte piece of each
// of the three tensors, and a random block for four elements; moves 3 n elements once. Limit: memory bandwidth.
#include "cuda/activation.h"

#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int octet = 8;

template <class Out, class In>
__global__ void __launch_bounds__(256)
    activation_forward_kernel(Out* out, const In* x, int64_t n, Activation activation, bool aligned) {
  int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * octet, count = n - first;
  if (count <= 0) return;
  float y[octet];
#pragma unroll
  for (int i = 0; i < octet; i += piece<In>) {
    float part[piece<In>];
    load_part(part, x + first + i, count - i, aligned);
#pragma unroll
    for (int j = 0; j < piece<In>; ++j) y[i + j] = activate(activation, part[j]);
  }
#pragma unroll
  for (int i = 0; i < octet; i += piece<Out>) {
    float part[piece<Out>];
#pragma unroll
    for (int j = 0; j < piece<Out>; ++j) part[j] = y[i + j];
    store_part(out + first + i, part, count - i, aligned);
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    activation_backward_kernel(T* d_x, const T* d_out, const T* x, int64_t n, Activation activation, DropoutKey dropout,
                               bool aligned) {
  int64_t first = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) * piece<T>, count = n - first;
  if (count <= 0) return;
  float d[piece<T>];
  load_part(d, d_out + first, count, aligned);
  if (dropout.on) drop(d, dropout, first);
  if (activation != Activation::none) {
    float at[piece<T>];
    load_part(at, x + first, count, aligned);
#pragma unroll
    for (int i = 0; i < piece<T>; ++i) d[i] *= slope(activation, at[i]);
  }
  store_part(d_x + first, d, count, aligned);
}

}  // namespace

void GpuDevice::activation_forward(const ActivationForward& a) {
  check_activation_forward(a);
  int64_t n = a.out.elements();
  bool aligned = aligned16(a.out.data()) && aligned16(a.x.data());
  for_type(a.out.type(), [&](auto out_zero) {
    for_type(a.x.type(), [&](auto in_zero) {
      using Out = decltype(out_zero);
      using In = decltype(in_zero);
      launch({"activation_forward", dim3(ceil_div(n, 256 * octet)), dim3(256), 0, a.out.shape()},
             activation_forward_kernel<Out, In>, static_cast<Out*>(a.out.data()), static_cast<const In*>(a.x.data()), n,
             a.activation, aligned);
    });
  });
}

void GpuDevice::activation_backward(const ActivationBackward& a) {
  constexpr auto name = "activation_backward";
  check_activation_backward(a);
  int64_t n = a.d_x.elements();
  DropoutKey dropout = dropout_key(a.dropout, name);
  bool aligned = aligned16(a.d_x.data()) && aligned16(a.d_out.data()) && aligned16(a.x.data());
  for_type(a.d_x.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({name, dim3(ceil_div(n, 256 * piece<T>)), dim3(256), 0, a.d_x.shape()}, activation_backward_kernel<T>,
           static_cast<T*>(a.d_x.data()), static_cast<const T*>(a.d_out.data()), static_cast<const T*>(a.x.data()), n,
           a.activation, dropout, aligned);
  });
}

}  // namespace longhand::LONGHAND_GPU
