// The dense product on a card, by cuBLASLt. Built into the cuda device alone; on the host the CPU answers
// (product_host.cpp).
//
//   out [m, n] = a' b' + bias,   or   out += a' b'
//
// cuBLASLt reads columns first, so a row-major matrix is its own transpose there: out^T [n, m] = b'^T a'^T. Its first
// operand is therefore our b and its second our a, each under its own leading dimension (the stride of its rows), and
// an operand that is transposed here is not transposed there. The bias, one value a column of out, is then one value a
// row, which is what the bias epilogue adds.
// Sums are in fp32 (CUBLAS_COMPUTE_32F: fp32 operands do not pass through TF32). What the heuristic chose for a shape
// is kept: the search costs more than a small product. Moves and computes what the product needs; limit: the tensor
// cores, for few rows the memory bandwidth.
#include <cublasLt.h>
#include <algorithm>

#include <array>
#include <map>

#include "cuda/numeric.h"
#include "cuda/product.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr size_t workspace_bytes = 64 << 20;

/// bias + nothing: what is left of a product over no elements, and the bias where it is not of out's type.
template <class Out, class Bias>
__global__ void __launch_bounds__(256)
    add_bias_kernel(Out* out, const Bias* bias, int64_t rows, int64_t columns, int64_t stride, bool from_zero) {
  int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= rows * columns) return;
  Out* to = out + index / columns * stride + index % columns;
  *to = from_float<Out>((from_zero ? 0.0f : to_float(*to)) + (bias ? to_float(bias[index % columns]) : 0.0f));
}

cudaDataType_t cuda_type(const ConstTensor& t) { return t.type() == Dtype::bf16 ? CUDA_R_16BF : CUDA_R_32F; }

/// A tensor as cuBLASLt sees it: `rows` of ours are its columns.
struct Matrix {
  int64_t rows = 1, columns, stride;
  cudaDataType_t type;

  explicit Matrix(const ConstTensor& t) : type(cuda_type(t)) {
    int last = t.rank() - 1;
    columns = t.size(last), stride = t.stride(last - 1);
    for (int axis = 0; axis < last; ++axis) rows *= t.size(axis);
    if (rows == 1 || stride < columns) stride = columns;  // a single row may carry any stride
  }
};

/// The largest power of two up to 256 that divides an address.
uint32_t alignment_of(const void* p) {
  auto address = reinterpret_cast<uintptr_t>(p);
  return address ? static_cast<uint32_t>(std::min<uintptr_t>(address & -address, 256)) : 256;
}

/// Everything that the heuristic's choice depends on.
using Key = std::array<int64_t, 12>;

class CublasLtProduct final : public Product {
 public:
  CublasLtProduct() {
    if (cublasLtCreate(&handle_) != CUBLAS_STATUS_SUCCESS)
      fail("cuda: cuBLASLt does not start: is the library that the driver supports installed?");
    if (cudaMalloc(&workspace_, workspace_bytes) != cudaSuccess)
      fail("cuda: no memory for the {} bytes of cuBLASLt's workspace", workspace_bytes);
  }
  ~CublasLtProduct() override {
    cudaFree(workspace_);
    cublasLtDestroy(handle_);
  }

  void run(const Matmul& a, cudaStream_t stream) override;

 private:
  struct Plan;
  void multiply(const Matmul& a, bool fused_bias, cudaStream_t stream);
  const cublasLtMatmulAlgo_t& choose(const Key& key, const Plan& plan, const Matmul& a);

  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  std::map<Key, cublasLtMatmulAlgo_t> chosen_;
};

void check(cublasStatus_t status, const Matmul& a, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS)
    fail("cuda: matmul of {} {}{} and {} {}{} to {} {}: {}: {}", dtype_name(a.a.type()), a.a.shape().text(),
         a.transpose_a ? " transposed" : "", dtype_name(a.b.type()), a.b.shape().text(),
         a.transpose_b ? " transposed" : "", dtype_name(a.out.type()), a.out.shape().text(), what,
         cublasLtGetStatusString(status));
}

/// The descriptors of one product; cheap, on the host alone.
struct CublasLtProduct::Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, out = nullptr;

  Plan(const Matmul& a, bool fused_bias) {
    check(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), a, "describing the operation");
    set(a, CUBLASLT_MATMUL_DESC_TRANSA, a.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
    set(a, CUBLASLT_MATMUL_DESC_TRANSB, a.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
    if (fused_bias) {
      set(a, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
      set(a, CUBLASLT_MATMUL_DESC_BIAS_POINTER, a.bias.data());
      set(a, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, cuda_type(a.bias));
    }
    layout(first, a.b, a), layout(second, a.a, a), layout(out, a.out, a);
  }
  ~Plan() {
    for (cublasLtMatrixLayout_t l : {first, second, out})
      if (l) cublasLtMatrixLayoutDestroy(l);
    if (operation) cublasLtMatmulDescDestroy(operation);
  }
  Plan(const Plan&) = delete;

 private:
  template <class Value>
  void set(const Matmul& a, cublasLtMatmulDescAttributes_t attribute, Value value) {
    check(cublasLtMatmulDescSetAttribute(operation, attribute, &value, sizeof value), a, "describing the operation");
  }
  static void layout(cublasLtMatrixLayout_t& to, const ConstTensor& t, const Matmul& a) {
    Matrix m(t);
    check(cublasLtMatrixLayoutCreate(&to, m.type, m.columns, m.rows, m.stride), a, "describing a matrix");
  }
};

const cublasLtMatmulAlgo_t& CublasLtProduct::choose(const Key& key, const Plan& plan, const Matmul& a) {
  if (auto found = chosen_.find(key); found != chosen_.end()) return found->second;
  cublasLtMatmulPreference_t preference = nullptr;
  check(cublasLtMatmulPreferenceCreate(&preference), a, "stating a preference");
  auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value);
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes);
  // Where k is split, the parts are added in fp32 and in order.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment_of(a.b.data()));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment_of(a.a.data()));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of(a.out.data()));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of(a.out.data()));
  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.first, plan.second, plan.out,
                                                         plan.out, preference, 1, &result, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  check(status == CUBLAS_STATUS_SUCCESS && found == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : status, a,
        "choosing an algorithm");
  return chosen_.emplace(key, result.algo).first->second;
}

void CublasLtProduct::multiply(const Matmul& a, bool fused_bias, cudaStream_t stream) {
  Plan plan(a, fused_bias);
  Matrix left(a.a), right(a.b), out(a.out);
  int64_t alignments = alignment_of(a.a.data()) | alignment_of(a.b.data()) << 10 |
                       static_cast<int64_t>(alignment_of(a.out.data())) << 20;
  if (fused_bias) alignments |= static_cast<int64_t>(alignment_of(a.bias.data())) << 30;
  Key key{left.rows,
          left.columns,
          left.stride,
          right.rows,
          right.columns,
          right.stride,
          out.stride,
          left.type,
          out.type,
          alignments,
          a.transpose_a | a.transpose_b << 1 | a.accumulate << 2,
          fused_bias};
  const cublasLtMatmulAlgo_t& algorithm = choose(key, plan, a);
  float alpha = 1, beta = a.accumulate ? 1.0f : 0.0f;
  check(cublasLtMatmul(handle_, plan.operation, &alpha, a.b.data(), plan.first, a.a.data(), plan.second, &beta,
                       a.out.data(), plan.out, a.out.data(), plan.out, &algorithm, workspace_, workspace_bytes, stream),
        a, "starting it");
}

void CublasLtProduct::run(const Matmul& a, cudaStream_t stream) {
  Matrix left(a.a), out(a.out);
  if (out.rows == 0 || out.columns == 0) return;
  bool nothing = (a.transpose_a ? left.rows : left.columns) == 0;
  // The epilogue takes a bias of out's type.
  bool fused_bias = a.bias && a.bias.type() == a.out.type() && aligned16(a.bias.data());
  if (!nothing) multiply(a, fused_bias, stream);
  if (nothing ? a.accumulate : (a.bias.empty() || fused_bias)) return;
  for_type(a.out.type(), [&](auto out_zero) {
    for_type(a.bias.empty() ? a.out.type() : a.bias.type(), [&](auto bias_zero) {
      using Out = decltype(out_zero);
      using Bias = decltype(bias_zero);
      cudaError_t status =
          simt::launch(add_bias_kernel<Out, Bias>, dim3(ceil_div(out.rows * out.columns, 256)), dim3(256), 0, stream,
                       static_cast<Out*>(a.out.data()), static_cast<const Bias*>(a.bias.data()), out.rows, out.columns,
                       out.stride, nothing);
      if (status != cudaSuccess)
        fail("cuda: matmul to {}: adding the bias: {}", a.out.shape().text(), cudaGetErrorString(status));
    });
  });
}

}  // namespace

std::unique_ptr<Product> make_product(const DeviceOptions&) { return std::make_unique<CublasLtProduct>(); }

}  // namespace longhand::LONGHAND_GPU
