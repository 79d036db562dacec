// AdamW, sums of squares, FGM's step. Limit: memory bandwidth, and Philox where something is rounded stochastically.
#include "src/device/cpu/kernels/optimizer.h"

#include "src/device/cpu/kernels/math.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

template <class Where>
LONGHAND_INLINE void store_by_chance(float* p, vec x, uvec, Where part) {
  store(p, x, part);
}
template <class Where>
LONGHAND_INLINE void store_by_chance(half* p, vec x, uvec random, Where part) {
  store(p, round_by_chance(x, random), part);
}

template <class Weight, class Gradient, class Moment>
LONGHAND_KERNEL void adamw(const AdamWRange& a) {
  Weight* weight = static_cast<Weight*>(a.weight) + a.first;
  float* master = a.master ? a.master + a.first : nullptr;
  Moment *ms = static_cast<Moment*>(a.m) + a.first, *vs = static_cast<Moment*>(a.v) + a.first;
  const Gradient* gradient = static_cast<const Gradient*>(a.gradient) + a.first;
  const bool chance = sizeof(Moment) == 2 || (sizeof(Weight) == 2 && !master);
  const uvec offset = (uvec)lane_index();
  each_vector(a.count, [&](int64_t i, auto part) {
    vec g = load(gradient + i, part) * splat(a.gradient_scale);
    vec m = splat(a.beta1) * load(ms + i, part) + splat(1 - a.beta1) * g;
    vec v = splat(a.beta2) * load(vs + i, part) + splat(1 - a.beta2) * g * g;
    vec w = master ? load(master + i, part) : load(weight + i, part);
    vec step = m * splat(a.m_correction) / (square_root(v * splat(a.v_correction)) + splat(a.eps));
    w -= splat(a.learning_rate) * (step + splat(a.weight_decay) * w);
    RandomWords random = {};
    if (chance) random = philox_blocks(a.rounding, a.first + i, offset);
    if (master) {
      store(master + i, w, part);
      store(weight + i, w, part);
    } else {
      store_by_chance(weight + i, w, random.word[0], part);
    }
    store_by_chance(ms + i, m, random.word[1], part);
    store_by_chance(vs + i, v, random.word[2], part);
  });
}

/// fp32 over a block unless the squares leave its range, fp64 then and over the blocks.
template <class T>
LONGHAND_KERNEL double sum_of_squares(const void* values, int64_t n) {
  constexpr int64_t block = 1024;
  double all = 0;
  for (int64_t at = 0; at < n; at += block) {
    const T* x = static_cast<const T*>(values) + at;
    int64_t count = n - at < block ? n - at : block, i = 0;
    vec total[4] = {};
    for (; i + 4 * lanes <= count; i += 4 * lanes)
      for (int v = 0; v < 4; ++v) {
        vec value = load(x + i + v * lanes);
        total[v] += value * value;
      }
    each_vector(count - i, [&](int64_t j, auto part) {
      vec value = load(x + i + j, part);
      total[0] += value * value;
    });
    float sum = longhand::cpu::sum((total[0] + total[1]) + (total[2] + total[3]));
    if (sum > 1e-20f && sum < 1e38f) {
      all += sum;
      continue;
    }
    for (int64_t j = 0; j < count; ++j) {
      double value = to_float(x[j]);
      all += value * value;
    }
  }
  return all;
}

template <class X, class Gradient>
LONGHAND_KERNEL void fgm_step(const FgmRange& a) {
  X* x = static_cast<X*>(a.x) + a.first;
  const Gradient* gradient = static_cast<const Gradient*>(a.gradient) + a.first;
  each_vector(a.count, [&](int64_t i, auto part) {
    vec direction = load(gradient + i, part) / splat(a.norm);
    store(x + i, load(x + i, part) + splat(a.epsilon) * direction, part);
  });
}

}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(OptimizerKernels, optimizer_kernels) = {
    {{{adamw<float, float, float>, adamw<float, float, half>}, {adamw<float, half, float>, adamw<float, half, half>}},
     {{adamw<half, float, float>, adamw<half, float, half>}, {adamw<half, half, float>, adamw<half, half, half>}}},
    {sum_of_squares<float>, sum_of_squares<half>},
    {{fgm_step<float, float>, fgm_step<float, half>}, {fgm_step<half, float>, fgm_step<half, half>}}};

}  // namespace longhand::cpu
