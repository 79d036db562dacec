// Relative attention, what is computed once a row: a query's segment terms and delta, and the sums of partial
// gradients.
//
//   terms_i = ((q_i + w) . S[0], (q_i + w) . S[1]);   delta_i = d_out_i . out_i: one warp a query.
//   to = (or +=) sum over n of partials[n], fp32: one block a row of a head and 32 channels. Its 4 warps take every
//   fourth summand each and meet in a fixed order.
// All of them read their input once; limit: memory bandwidth.
#include "cuda/attention.h"
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int warps = 4;

/// This warp's query: (lane * heads + head) * queries + query, below the count of all.
__device__ __forceinline__ int64_t query_of_warp() {
  return static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
}

template <class T>
__global__ void __launch_bounds__(32 * warps) segment_kernel(const Attention a, float2* terms) {
  int64_t index = query_of_warp();
  int pair = static_cast<int>(index / a.queries), query = static_cast<int>(index % a.queries);
  int lane = pair / a.heads, head = pair % a.heads;
  if (lane >= a.lanes) return;
  const T *q = a.q.row<const T>(query, lane, head), *bias = a.segment_bias.row<const T>(0, 0, head);
  const T *same = a.segment_table.row<const T>(0, 0, head), *other = a.segment_table.row<const T>(1, 0, head);
  float2 term = make_float2(0, 0);
  for (int c = threadIdx.x % 32; c < a.width; c += 32) {
    float x = to_float(q[c]) + to_float(bias[c]);
    term.x = fmaf(x, to_float(same[c]), term.x);
    term.y = fmaf(x, to_float(other[c]), term.y);
  }
  term.x = warp_sum(term.x), term.y = warp_sum(term.y);
  if (threadIdx.x % 32 == 0) terms[index] = term;
}

template <class T>
__global__ void __launch_bounds__(32 * warps) delta_kernel(const Attention a, float* deltas) {
  int64_t index = query_of_warp();
  int pair = static_cast<int>(index / a.queries), query = static_cast<int>(index % a.queries);
  int lane = pair / a.heads, head = pair % a.heads;
  if (lane >= a.lanes) return;
  const T *d_out = a.d_out.row<const T>(query, lane, head), *out = a.out.row<const T>(query, lane, head);
  float sum = 0;
  for (int c = threadIdx.x % 32; c < a.width; c += 32) sum = fmaf(to_float(d_out[c]), to_float(out[c]), sum);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) deltas[index] = sum;
}

/// Where the sums go: row and head of `to`.
struct Sums {
  int64_t row_stride, head_stride, count, given;
  int rows, heads, width;
  bool add;
};

template <class T>
__global__ void __launch_bounds__(32 * warps) sum_kernel(T* to, const float* partials, Sums s) {
  SIMT_SHARED(float, parts, [warps][32]);
  int row = blockIdx.x, head = blockIdx.y, warp = threadIdx.x / 32, channel = blockIdx.z * 32 + threadIdx.x % 32;
  // The summands: every given row that lands here, of every partial.
  int64_t rows = row + 1 == s.rows ? s.given - row : 1, summands = s.count * rows;
  float sum = 0;
  if (channel < s.width)
#pragma unroll 4
    for (int64_t n = warp; n < summands; n += warps)
      sum += partials[((n / rows * s.given + row + n % rows) * s.heads + head) * s.width + channel];
  parts[warp][threadIdx.x % 32] = sum;
  __syncthreads();
  if (warp > 0 || channel >= s.width) return;
  sum = 0;
#pragma unroll
  for (int part = 0; part < warps; ++part) sum += parts[part][threadIdx.x];
  T& entry = to[row * s.row_stride + head * s.head_stride + channel];
  entry = from_float<T>(s.add ? to_float(entry) + sum : sum);
}

}  // namespace

float2* GpuDevice::attention_segment_terms(const Attention& a) {
  if (!a.query_ids) return nullptr;
  int64_t queries = static_cast<int64_t>(a.lanes) * a.heads * a.queries;
  float2* terms = scratch<float2>(queries);
  for_type(a.half ? Dtype::bf16 : Dtype::fp32, [&](auto zero) {
    launch({"attention", dim3(ceil_div(queries, warps)), dim3(32 * warps), 0, {a.queries, a.lanes, a.heads, a.width}},
           segment_kernel<decltype(zero)>, a, terms);
  });
  return terms;
}

float* GpuDevice::attention_deltas(const Attention& a) {
  int64_t queries = static_cast<int64_t>(a.lanes) * a.heads * a.queries;
  float* deltas = scratch<float>(queries);
  for_type(a.half ? Dtype::bf16 : Dtype::fp32, [&](auto zero) {
    launch({"attention_backward",
            dim3(ceil_div(queries, warps)),
            dim3(32 * warps),
            0,
            {a.queries, a.lanes, a.heads, a.width}},
           delta_kernel<decltype(zero)>, a, deltas);
  });
  return deltas;
}

void GpuDevice::attention_sum(const Tensor& to, const float* partials, int64_t count, int64_t given, bool add) {
  if (to.empty()) return;
  int heads_axis = to.rank() - 2, width_axis = to.rank() - 1;
  Sums s{heads_axis > 0 ? to.stride(0) : 0,
         to.stride(heads_axis),
         count,
         given,
         static_cast<int>(heads_axis > 0 ? to.size(0) : 1),
         static_cast<int>(to.size(heads_axis)),
         static_cast<int>(to.size(width_axis)),
         add};
  dim3 grid(static_cast<unsigned>(s.rows), static_cast<unsigned>(s.heads), ceil_div(s.width, 32));
  for_type(to.type(), [&](auto zero) {
    using T = decltype(zero);
    launch({"attention_backward", grid, dim3(32 * warps), 0, to.shape()}, sum_kernel<T>, static_cast<T*>(to.data()),
           partials, s);
  });
}

}  // namespace longhand::LONGHAND_GPU
