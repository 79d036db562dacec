// The dense matrix product behind GpuDevice::matmul: cuBLASLt on a card (product_cublaslt.cu), the CPU's own product
// on the host (product_host.cpp). What follows a product beyond the bias is the kernels' work (matmul.cu).
#pragma once

#include "cuda/simt/simt.h"
#include "longhand/device.h"

namespace longhand::LONGHAND_GPU {

/// out [m, n] = a' b' + bias, or out += a' b'. Both operands have one type, fp32 or bf16; out may be the other. Rows
/// may be strided, the last axis is contiguous; bias is of out's type. Activation, pre_activation and dropout are not
/// for it.
class Product {
 public:
  virtual ~Product() = default;
  virtual void run(const Matmul& a, cudaStream_t stream) = 0;
};

std::unique_ptr<Product> make_product(const DeviceOptions& options);

}  // namespace longhand::LONGHAND_GPU
