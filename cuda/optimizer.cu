// AdamW over many tensors in one launch, the norm of their gradients, a step up a gradient.
//
//   m = beta1 m + (1 - beta1) g;   v = beta2 v + (1 - beta2) g^2
//   w -= lr (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps) + decay w)
//
// The tensors stand in a table; they are cut into chunks, counted through all tensors, one a block, so that small
// tensors share the card and big ones are shared. A block finds its tensor by bisection over the first chunk of each.
// One thread takes four entries of every array at a time; where something is rounded stochastically, an entry has one
// random block. Moves, an entry: weight, moments and master twice, the gradient once (14 bytes with everything in bf16,
// 28 in fp32); limit: memory bandwidth, and with bf16 moments close to that the random numbers (some 80 operations an
// entry). Norm: squares add in fp32 over a piece of 16 bytes unless they leave its range, in fp64 from there on; a
// block leaves the sum of its chunk, a second kernel adds these in a fixed order. Moves n elements; limit: memory
// bandwidth. FGM's step: x += epsilon (g / norm), four entries a thread; moves 3 n elements; limit: memory bandwidth.
#include <cfloat>
#include <cmath>
#include <vector>

#include "cuda/gpu_device.h"
#include "cuda/numeric.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int block_threads = 256, quad = 4;
constexpr int64_t adamw_chunk = 4096, norm_chunk = 16384;

/// The last entry of a table whose first chunk is not beyond `chunk`.
template <class Entry>
__device__ __forceinline__ const Entry& entry_of(const Entry* table, int count, int64_t chunk) {
  int low = 0, high = count - 1;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (table[middle].first_chunk <= chunk)
      low = middle;
    else
      high = middle - 1;
  }
  return table[low];
}

/// Four entries of an fp32 or bf16 array.
struct FloatArray {
  void* data;
  bool is_bf16;

  __device__ __forceinline__ void load(float (&x)[quad], int64_t at, int64_t count, bool aligned) const {
    const float* wide = static_cast<const float*>(data) + at;
    const bf16_t* narrow = static_cast<const bf16_t*>(data) + at;
    if (!aligned || count < quad) {
#pragma unroll
      for (int i = 0; i < quad; ++i) x[i] = i >= count ? 0.0f : is_bf16 ? to_float(narrow[i]) : wide[i];
    } else if (is_bf16) {
      uint2 words = *reinterpret_cast<const uint2*>(narrow);
      x[0] = __uint_as_float(words.x << 16), x[1] = __uint_as_float(words.x & 0xffff0000u);
      x[2] = __uint_as_float(words.y << 16), x[3] = __uint_as_float(words.y & 0xffff0000u);
    } else {
      load_piece<float>(x, wide);
    }
  }
  /// bf16 is rounded to nearest or stochastically.
  __device__ __forceinline__ void store(const float (&x)[quad], bool by_chance, const uint32_t (&random)[quad],
                                        int64_t at, int64_t count, bool aligned) const {
    float* wide = static_cast<float*>(data) + at;
    bf16_t* narrow = static_cast<bf16_t*>(data) + at;
    if (!is_bf16) {
      store_part(wide, x, count, aligned);
      return;
    }
    uint32_t half[quad];
#pragma unroll
    for (int i = 0; i < quad; ++i)
      half[i] = __bfloat16_as_ushort(by_chance ? round_by_chance(x[i], random[i]) : from_float<bf16_t>(x[i]));
    if (aligned && count >= quad) {
      *reinterpret_cast<uint2*>(narrow) = uint2{half[0] | half[1] << 16, half[2] | half[3] << 16};
      return;
    }
#pragma unroll
    for (int i = 0; i < quad; ++i)
      if (i < count) narrow[i] = __ushort_as_bfloat16(static_cast<unsigned short>(half[i]));
  }
};

struct Parameter {
  FloatArray weight, m, v, gradient;
  float* master;
  int64_t elements, first_chunk;
  float learning_rate, weight_decay;
  uint32_t index;
  bool aligned;
};

struct Settings {
  float beta1, beta2, eps, gradient_scale, m_correction, v_correction;
  RandomStream rounding;
};

__global__ void __launch_bounds__(block_threads) adamw_kernel(const Parameter* table, int count, Settings a) {
  const Parameter p = entry_of(table, count, blockIdx.x);
  const bool weight_by_chance = p.weight.is_bf16 && !p.master, by_chance = weight_by_chance || p.m.is_bf16;
  a.rounding.layer = p.index;
  int64_t first = (blockIdx.x - p.first_chunk) * adamw_chunk,
          end = p.elements < first + adamw_chunk ? p.elements : first + adamw_chunk;
  for (int64_t at = first + threadIdx.x * quad; at < end; at += block_threads * quad) {
    int64_t left = p.elements - at;
    float w[quad], m[quad], v[quad], g[quad];
    p.gradient.load(g, at, left, p.aligned);
    p.m.load(m, at, left, p.aligned);
    p.v.load(v, at, left, p.aligned);
    if (p.master)
      load_part(w, p.master + at, left, p.aligned);
    else
      p.weight.load(w, at, left, p.aligned);
    uint32_t random[3][quad] = {};
#pragma unroll
    for (int i = 0; i < quad; ++i) {
      g[i] *= a.gradient_scale;
      m[i] = a.beta1 * m[i] + (1 - a.beta1) * g[i];
      v[i] = a.beta2 * v[i] + (1 - a.beta2) * g[i] * g[i];
      float step = m[i] * a.m_correction / (sqrtf(v[i] * a.v_correction) + a.eps);
      w[i] -= p.learning_rate * (step + p.weight_decay * w[i]);
      if (!by_chance) continue;
      PhiloxBlock block = a.rounding.block(at + i);
      random[0][i] = block.word[0], random[1][i] = block.word[1], random[2][i] = block.word[2];
    }
    if (p.master) store_part(p.master + at, w, left, p.aligned);
    p.weight.store(w, weight_by_chance, random[0], at, left, p.aligned);
    p.m.store(m, true, random[1], at, left, p.aligned);
    p.v.store(v, true, random[2], at, left, p.aligned);
  }
}

struct Values {
  const void* data;
  int64_t elements, first_chunk;
  bool is_bf16, aligned;
};

/// In fp32 unless the squares leave its range; NaN and infinities go the wide way too, and stay.
template <int n>
__device__ __forceinline__ double sum_of_squares(const float (&x)[n]) {
  float sum = 0, largest = 0;
#pragma unroll
  for (int i = 0; i < n; ++i) sum += x[i] * x[i], largest = fmaxf(largest, fabsf(x[i]));
  if ((sum > 1e-20f && sum < 1e38f) || (sum == 0 && largest == 0)) return sum;
  double wide = 0;
#pragma unroll
  for (int i = 0; i < n; ++i) wide += static_cast<double>(x[i]) * x[i];
  return wide;
}

template <class T>
__device__ __forceinline__ double chunk_sum(const Values& t, int64_t first) {
  double total = 0;
  int64_t end = t.elements < first + norm_chunk ? t.elements : first + norm_chunk;
  for (int64_t at = first + threadIdx.x * piece<T>; at < end; at += block_threads * piece<T>) {
    float x[piece<T>];
    load_part(x, static_cast<const T*>(t.data) + at, t.elements - at, t.aligned);
    total += sum_of_squares(x);
  }
  return total;
}

/// The sum over the block, in thread 0.
__device__ __forceinline__ double block_total(double x, double* shared) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(all_lanes, x, step);
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  double total = 0;
  for (int warp = 0; warp < block_threads / 32; ++warp) total += shared[warp];
  return total;
}

__global__ void __launch_bounds__(block_threads) square_sums_kernel(double* sums, const Values* table, int count) {
  SIMT_SHARED(double, shared, [block_threads / 32]);
  const Values t = entry_of(table, count, blockIdx.x);
  int64_t first = (blockIdx.x - t.first_chunk) * norm_chunk;
  double total = block_total(t.is_bf16 ? chunk_sum<bf16_t>(t, first) : chunk_sum<float>(t, first), shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

__global__ void __launch_bounds__(block_threads) norm_kernel(float* norm, const double* sums, int64_t count) {
  SIMT_SHARED(double, shared, [block_threads / 32]);
  double total = 0;
  for (int64_t i = threadIdx.x; i < count; i += block_threads) total += sums[i];
  total = block_total(total, shared);
  if (threadIdx.x == 0) *norm = static_cast<float>(sqrt(total));
}

__global__ void __launch_bounds__(block_threads)
    fgm_step_kernel(FloatArray x, FloatArray gradient, const float* norm, float epsilon, int64_t n, bool aligned) {
  const float length = *norm;
  int64_t at = (static_cast<int64_t>(blockIdx.x) * block_threads + threadIdx.x) * quad, left = n - at;
  if (left <= 0 || !(length > 0 && length <= FLT_MAX)) return;
  float value[quad], g[quad];
  x.load(value, at, left, aligned);
  gradient.load(g, at, left, aligned);
#pragma unroll
  for (int i = 0; i < quad; ++i) value[i] += epsilon * (g[i] / length);
  const uint32_t none[quad] = {};
  x.store(value, false, none, at, left, aligned);
}

void check_parameter(const AdamWParameter& p) {
  constexpr auto name = "adamw";
  int64_t n = p.weight.elements();
  float_index(p.weight, name, "weight"), float_index(p.gradient, name, "gradient"), float_index(p.m, name, "m");
  check_list(p.weight, p.weight.type(), n, name, "weight");
  check_list(p.gradient, p.gradient.type(), n, name, "gradient");
  check_list(p.m, p.m.type(), n, name, "m");
  check_list(p.v, p.m.type(), n, name, "v");
  if (p.master) check_list(p.master, Dtype::fp32, n, name, "master");
}

int64_t chunks_of(int64_t elements, int64_t chunk) { return (elements + chunk - 1) / chunk; }

FloatArray array(const ConstTensor& t) { return {const_cast<void*>(t.data()), t.type() == Dtype::bf16}; }

Parameter parameter_of(const AdamW& a, const AdamWParameter& p, int64_t first_chunk) {
  bool aligned = true;
  for (const ConstTensor& t :
       {ConstTensor(p.weight), ConstTensor(p.m), ConstTensor(p.v), p.gradient, ConstTensor(p.master)})
    aligned = aligned && aligned16(t.data());
  return {array(p.weight),
          array(p.m),
          array(p.v),
          array(p.gradient),
          p.master.as<float>(),
          p.weight.elements(),
          first_chunk,
          a.learning_rate * p.learning_rate_scale,
          p.weight_decay,
          p.index,
          aligned};
}

}  // namespace

void GpuDevice::adamw(const AdamW& a) {
  if (a.step < 1) fail("adamw: steps count from 1, not {}", a.step);
  std::vector<Parameter> table;
  int64_t chunks = 0;
  for (const auto& p : a.parameters) {
    check_parameter(p);
    if (p.weight.elements() == 0) continue;
    table.push_back(parameter_of(a, p, chunks));
    chunks += chunks_of(p.weight.elements(), adamw_chunk);
  }
  if (table.empty()) return;
  auto correction = [&](double beta) { return static_cast<float>(1 / (1 - std::pow(beta, a.step))); };
  Settings settings{a.beta1, a.beta2, a.eps, a.gradient_scale, correction(a.beta1), correction(a.beta2), a.rounding};
  Operation operation(*this);
  const Parameter* there = upload_table(table);
  launch({"adamw", dim3(static_cast<unsigned>(chunks)), dim3(block_threads), 0, Shape{chunks * adamw_chunk}},
         adamw_kernel, there, static_cast<int>(table.size()), settings);
}

void GpuDevice::global_norm(const GlobalNorm& a) {
  constexpr auto name = "global_norm";
  check_list(a.norm, Dtype::fp32, 1, name, "norm");
  std::vector<Values> table;
  int64_t chunks = 0;
  for (const auto& t : a.tensors) {
    float_index(t, name, "a tensor");
    check_list(t, t.type(), t.elements(), name, "a tensor");
    if (t.elements() == 0) continue;
    table.push_back({t.data(), t.elements(), chunks, t.type() == Dtype::bf16, aligned16(t.data())});
    chunks += chunks_of(t.elements(), norm_chunk);
  }
  Operation operation(*this);
  const Values* there = upload_table(table);
  double* sums = scratch<double>(chunks);
  launch({name, dim3(static_cast<unsigned>(chunks)), dim3(block_threads), 0, Shape{chunks * norm_chunk}},
         square_sums_kernel, sums, there, static_cast<int>(table.size()));
  launch({name, dim3(1), dim3(block_threads), 0, Shape{chunks}}, norm_kernel, a.norm.as<float>(), sums, chunks);
}

void GpuDevice::fgm_step(const FgmStep& a) {
  check_fgm_step(a);
  int64_t n = a.x.elements();
  bool aligned = aligned16(a.x.data()) && aligned16(a.gradient.data());
  launch({"fgm_step", dim3(static_cast<unsigned>(chunks_of(n, block_threads * quad))), dim3(block_threads), 0,
          a.x.shape()},
         fgm_step_kernel, array(a.x), array(a.gradient), a.norm.as<float>(), a.epsilon, n, aligned);
}

}  // namespace longhand::LONGHAND_GPU
