// The matrix product and what follows it.
//
//   out = dropout(activation(a' b' + bias))
//
// The product and its bias are Product's (cuBLASLt on a card). The activation is a kernel of its own, because
// cuBLASLt's GELU is the tanh form: one thread takes four neighbours of a row, one block of random numbers. It reads
// and writes each element once, rows·n·(2 + 2) bytes in bf16; limit: memory bandwidth.
#include "cuda/activation.h"
#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

struct Rows {
  int64_t rows, columns, out_stride, in_stride;
};

template <class Out, class In>
__global__ void __launch_bounds__(256)
    activation_kernel(Out* out, const In* in, Rows shape, Activation activation, DropoutKey dropout) {
  int64_t quads = (shape.columns + 3) / 4, index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= shape.rows * quads) return;
  int64_t row = index / quads, column = index % quads * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (column + i >= shape.columns) return;
    float y = activate(activation, to_float(in[row * shape.in_stride + column + i]));
    if (dropout.on) y *= dropout.factor(row * shape.columns + column + i);
    out[row * shape.out_stride + column + i] = from_float<Out>(y);
  }
}

}  // namespace

void GpuDevice::matmul(const Matmul& a) {
  for (auto [tensor, what] : {std::pair{&a.a, "a"}, std::pair{&a.b, "b"}}) float_index(*tensor, "matmul", what);
  float_index(a.out, "matmul", "out");
  check_matmul(a);
  Operation operation(*this);
  Matmul product{.out = a.pre_activation ? a.pre_activation : a.out,
                 .a = a.a,
                 .b = a.b,
                 .bias = a.bias,
                 .transpose_a = a.transpose_a,
                 .transpose_b = a.transpose_b,
                 .accumulate = a.accumulate};
  // Operands of different types meet in fp32.
  auto widen = [&](ConstTensor& t) {
    if (t.type() == Dtype::fp32) return;
    Tensor wide(scratch<float>(t.elements()), Dtype::fp32, t.shape());
    RowsOf from(t, "matmul", "operand");
    Rows rows{from.rows, from.columns, from.columns, from.stride};
    launch({"matmul", dim3(ceil_div(from.rows * ((from.columns + 3) / 4), 256)), dim3(256), 0, t.shape()},
           activation_kernel<float, bf16_t>, wide.as<float>(), static_cast<const bf16_t*>(t.data()), rows,
           Activation::none, DropoutKey{});
    t = wide;
  };
  if (a.a.type() != a.b.type()) widen(product.a), widen(product.b);
  product_->run(product, stream_);

  bool follows = a.pre_activation || a.activation != Activation::none || a.dropout;
  if (!follows) return;
  RowsOf out(a.out, "matmul", "out"), in(product.out, "matmul", "pre_activation");
  Rows rows{out.rows, out.columns, out.stride, in.stride};
  DropoutKey dropout = dropout_key(a.dropout, "matmul");
  for_type(a.out.type(), [&](auto out_zero) {
    for_type(product.out.type(), [&](auto in_zero) {
      using Out = decltype(out_zero);
      using In = decltype(in_zero);
      launch({"matmul", dim3(ceil_div(rows.rows * ((rows.columns + 3) / 4), 256)), dim3(256), 0, a.out.shape()},
             activation_kernel<Out, In>, static_cast<Out*>(a.out.data()), static_cast<const In*>(product.out.data()),
             rows, a.activation, dropout);
    });
  });
}

}  // namespace longhand::LONGHAND_GPU
