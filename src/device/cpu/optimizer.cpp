// AdamW over many tensors, the norm of their gradients, a step up a gradient.
#include "src/device/cpu/kernels/optimizer.h"

#include <vector>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {
namespace {

struct Piece {
  int64_t tensor, first, count;
};

/// All tensors of a list in pieces, so that small ones share and big ones are shared.
template <class List, class Elements>
std::vector<Piece> pieces(const List& list, Elements elements) {
  std::vector<Piece> all;
  for (size_t t = 0; t < list.size(); ++t)
    for (int64_t first = 0, n = elements(list[t]); first < n; first += piece_elements)
      all.push_back({static_cast<int64_t>(t), first, std::min(piece_elements, n - first)});
  return all;
}

void check(const AdamWParameter& p) {
  constexpr auto name = "adamw";
  int64_t n = p.weight.elements();
  float_index(p.weight, name, "weight"), float_index(p.gradient, name, "gradient"), float_index(p.m, name, "m");
  check_list(p.weight, p.weight.type(), n, name, "weight");
  check_list(p.gradient, p.gradient.type(), n, name, "gradient");
  check_list(p.m, p.m.type(), n, name, "m");
  check_list(p.v, p.m.type(), n, name, "v");
  if (p.master) check_list(p.master, Dtype::fp32, n, name, "master");
}

}  // namespace

void CpuDevice::adamw(const AdamW& a) {
  if (a.step < 1) fail("adamw: steps count from 1, not {}", a.step);
  for (const auto& p : a.parameters) check(p);
  auto correction = [&](double beta) { return static_cast<float>(1 / (1 - std::pow(beta, a.step))); };
  float m_correction = correction(a.beta1), v_correction = correction(a.beta2);
  auto all = pieces(a.parameters, [](const AdamWParameter& p) { return p.weight.elements(); });
  const auto& kernels = optimizer_kernels();
  for_pieces(pool_, static_cast<int64_t>(all.size()), 1, [&](int64_t index, int64_t, int) {
    const Piece& piece = all[index];
    const AdamWParameter& p = a.parameters[piece.tensor];
    RandomStream stream = a.rounding;
    stream.layer = p.index;
    auto is_bf16 = [](const ConstTensor& t) { return t.type() == Dtype::bf16; };
    kernels.adamw[is_bf16(p.weight)][is_bf16(p.gradient)][is_bf16(p.m)](
        {p.weight.data(), p.master.as<float>(), p.m.data(), p.v.data(), p.gradient.data(), piece.first, piece.count,
         a.learning_rate * p.learning_rate_scale, a.beta1, a.beta2, a.eps, a.gradient_scale, p.weight_decay,
         m_correction, v_correction, random_key(stream)});
  });
}

void CpuDevice::global_norm(const GlobalNorm& a) {
  constexpr auto name = "global_norm";
  check_list(a.norm, Dtype::fp32, 1, name, "norm");
  for (const auto& t : a.tensors) {
    float_index(t, name, "a tensor");
    check_list(t, t.type(), t.elements(), name, "a tensor");
  }
  auto all = pieces(a.tensors, [](const ConstTensor& t) { return t.elements(); });
  std::vector<double> sums(all.size());
  const auto& kernels = optimizer_kernels();
  for_pieces(pool_, static_cast<int64_t>(all.size()), 1, [&](int64_t index, int64_t, int) {
    const ConstTensor& t = a.tensors[all[index].tensor];
    const char* from = static_cast<const char*>(t.data()) + all[index].first * dtype_bytes(t.type());
    sums[index] = kernels.sum_of_squares[t.type() == Dtype::bf16](from, all[index].count);
  });
  double total = 0;
  for (double sum : sums) total += sum;
  *a.norm.as<float>() = static_cast<float>(std::sqrt(total));
}

void CpuDevice::fgm_step(const FgmStep& a) {
  check_fgm_step(a);
  const float norm = *a.norm.as<float>();
  if (!(norm > 0) || std::isinf(norm)) return;
  auto kernel = optimizer_kernels().fgm_step[a.x.type() == Dtype::bf16][a.gradient.type() == Dtype::bf16];
  for_pieces(pool_, a.x.elements(), piece_elements, [&](int64_t first, int64_t count, int) {
    kernel({a.x.data(), a.gradient.data(), first, count, norm, a.epsilon});
  });
}

}  // namespace longhand::cpu
