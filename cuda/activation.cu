// The activation's backward pass.
//
//   d_x = d_out * dropout mask * activation'(x)
//
// One thread takes a 16-byte piece of each of the three tensors, and a random block for four elements. Moves 3 n
// elements once; limit: memory bandwidth.
#include "cuda/activation.h"

#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

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
