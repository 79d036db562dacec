// Conditional random fields over chains. Sequences run side by side; the gradient of a transition is summed over all
// of them in order, one row of transitions a task, so the bits do not depend on the threads.
//
// With alpha_t(j) the log of the sum over all beginnings that end in label j at t, beta_t(i) the same over what
// follows, and g_t = emission_t + beta_t:
//   alpha_t(j) = e_t(j) + log sum_i exp(alpha_t-1(i) + T_ij);   beta_t-1(i) = log sum_j exp(T_ij + g_t(j))
//   p(y_t = j) = exp(alpha_t(j) + beta_t(j) - z_t);   p(y_t-1 = i, y_t = j) = exp(alpha_t-1(i) + T_ij + g_t(j) - z)
// Every row of alpha and beta is kept relative to its first entry, so that long sequences lose no digits.
#include "src/device/cpu/kernels/crf.h"

#include <cmath>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {
namespace {

struct Chain {
  int64_t labels;
  const float* transitions;  // [L, L], then begin, end
  const float* transposed;   // [L, L]
  const float* begin() const { return transitions + labels * labels; }
  const float* end() const { return begin() + labels; }
};

/// Subtracts the first entry of a row from all of it, and returns it.
float settle(float* row, int64_t n) {
  float first = row[0];
  for (int64_t j = 0; j < n; ++j) row[j] -= first;
  return first;
}

/// out_j = log sum_i exp(x_i + m_ij); largest is scratch.
void step(const float* x, const float* m, int64_t n, float* out, float* largest) {
  crf_kernels().log_sums(x, m, n, largest, out);
  for (int64_t j = 0; j < n; ++j) out[j] = largest[j] + std::log(out[j]);
}

/// Leaves alpha of one sequence; returns its loss.
double forward(const Chain& c, const float* emissions, const int32_t* targets, int64_t count, float* alpha,
               float* scratch) {
  int64_t n = c.labels;
  double loss = 0;
  for (int64_t t = 0; t < count; ++t) {
    float* row = alpha + t * n;
    const float* e = emissions + t * n;
    if (t > 0) step(row - n, c.transitions, n, row, scratch);
    const float* from = t > 0 ? nullptr : c.begin();
    for (int64_t j = 0; j < n; ++j) row[j] = e[j] + (from ? from[j] : row[j]);
    float edge = t > 0 ? c.transitions[targets[t - 1] * n + targets[t]] : c.begin()[targets[t]];
    loss += static_cast<double>(settle(row, n)) - edge - e[targets[t]];
  }
  const float *last = alpha + (count - 1) * n, *end = c.end();
  float most = last[0] + end[0];
  for (int64_t j = 1; j < n; ++j) most = std::max(most, last[j] + end[j]);
  double sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += std::exp(static_cast<double>(last[j]) + end[j] - most);
  return loss + most + std::log(sum) - end[targets[count - 1]];
}

/// alpha_t becomes alpha_t - z_t, g the emissions with what follows them, the emissions their gradients.
void backward(const Chain& c, float* emissions, const int32_t* targets, int64_t count, float factor, float* alpha,
              float* g, float* scratch) {
  const auto& kernels = crf_kernels();
  int64_t n = c.labels;
  float *beta = scratch, *largest = scratch + n;
  std::copy(c.end(), c.end() + n, beta);
  for (int64_t t = count - 1; t >= 0; --t) {
    float *a = alpha + t * n, *e = emissions + t * n, *next = g + t * n;
    for (int64_t j = 0; j < n; ++j) next[j] = e[j] + beta[j];
    float most = a[0] + beta[0];
    for (int64_t j = 1; j < n; ++j) most = std::max(most, a[j] + beta[j]);
    for (int64_t j = 0; j < n; ++j) a[j] -= most;
    double total = kernels.exponentials(a, beta, 1, e, n);
    float z = static_cast<float>(std::log(total)), scale = static_cast<float>(factor / total);
    for (int64_t j = 0; j < n; ++j) a[j] -= z, e[j] *= scale;
    e[targets[t]] -= factor;
    if (t == 0) break;
    step(next, c.transposed, n, beta, largest);
    float shift = settle(beta, n);
    for (int64_t j = 0; j < n; ++j) next[j] -= shift;
  }
}

void check_content(const int32_t* starts, int64_t sequences, int64_t rows, const char* name) {
  bool good = starts[0] == 0 && starts[sequences] == rows;
  for (int64_t s = 0; s < sequences && good; ++s) good = starts[s] <= starts[s + 1];
  if (!good) fail("{}: starts does not ascend from 0 to {}", name, rows);
}

}  // namespace

void CpuDevice::crf_loss(const CrfLoss& a) {
  constexpr auto name = "crf_loss";
  check_crf_loss(a);
  int64_t rows = rows_of(a.emissions), n = width_of(a.emissions), sequences = a.starts.elements() - 1;
  const int32_t *starts = a.starts.as<int32_t>(), *targets = a.targets.as<int32_t>();
  const float *transitions = a.transitions.as<float>(), *weights = a.weights.as<float>();
  check_content(starts, sequences, rows, name);
  for (int64_t r = 0; r < rows; ++r)
    if (targets[r] < 0 || targets[r] >= n) fail("{}: target {} of row {} is none of {} labels", name, targets[r], r, n);

  float* alpha = static_cast<float*>(scratch(pool_.size(), (2 * rows + n) * n * 4));
  float *g = alpha + rows * n, *transposed = g + rows * n;
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) transposed[j * n + i] = transitions[i * n + j];
  Chain chain{n, transitions, transposed};
  float* emissions = a.emissions.as<float>();
  auto factor = [&](int64_t s) { return a.scale * (weights ? weights[s] : 1.0f); };
  for_pieces(pool_, sequences, 1, [&](int64_t s, int64_t, int thread) {
    int64_t first = starts[s], count = starts[s + 1] - first, at = first * n;
    float* own = static_cast<float*>(scratch(thread, 2 * n * 4));
    double loss = count > 0 ? forward(chain, emissions + at, targets + first, count, alpha + at, own) : 0;
    a.loss.as<float>()[s] = static_cast<float>((weights ? weights[s] : 1.0f) * loss);
    if (a.gradient && count > 0)
      backward(chain, emissions + at, targets + first, count, factor(s), alpha + at, g + at, own);
  });
  if (!a.gradient || a.d_transitions.empty()) return;
  for_pieces(pool_, n + 2, 1, [&](int64_t i, int64_t, int) {
    float* to = a.d_transitions.as<float>() + i * n;
    for (int64_t s = 0; s < sequences; ++s) {
      int64_t first = starts[s], end = starts[s + 1];
      if (first == end) continue;
      const float* edge = emissions + (i == n ? first : end - 1) * n;
      for (int64_t j = 0; j < n && i >= n; ++j) to[j] += edge[j];
      for (int64_t t = first + 1; t < end && i < n; ++t) {
        crf_kernels().add_exponentials(to, alpha[(t - 1) * n + i], transitions + i * n, g + t * n, factor(s), n);
        if (targets[t - 1] == i) to[targets[t]] -= factor(s);
      }
    }
  });
}

void CpuDevice::crf_decode(const CrfDecode& a) {
  constexpr auto name = "crf_decode";
  check_crf_decode(a);
  int64_t rows = rows_of(a.emissions), n = width_of(a.emissions), sequences = a.starts.elements() - 1;
  const int32_t* starts = a.starts.as<int32_t>();
  check_content(starts, sequences, rows, name);
  const float *emissions = a.emissions.as<float>(), *transitions = a.transitions.as<float>();
  const float *begin = transitions + n * n, *end = begin + n;
  int32_t* from = static_cast<int32_t*>(scratch(pool_.size(), rows * n * 4));
  for_pieces(pool_, sequences, 1, [&](int64_t s, int64_t, int thread) {
    int64_t first = starts[s], last = starts[s + 1] - 1;
    a.score.as<float>()[s] = 0;
    if (last < first) return;
    float *score = static_cast<float*>(scratch(thread, 2 * n * 4)), *next = score + n;
    for (int64_t j = 0; j < n; ++j) score[j] = begin[j] + emissions[first * n + j];
    double base = 0;
    for (int64_t t = first + 1; t <= last; ++t) {
      crf_kernels().best(score, transitions, n, next, from + t * n);
      for (int64_t j = 0; j < n; ++j) score[j] = next[j] + emissions[t * n + j];
      base += settle(score, n);
    }
    for (int64_t j = 0; j < n; ++j) score[j] += end[j];
    int32_t* labels = a.labels.as<int32_t>();
    labels[last] = static_cast<int32_t>(std::max_element(score, score + n) - score);
    a.score.as<float>()[s] = static_cast<float>(base + score[labels[last]]);
    for (int64_t t = last; t > first; --t) labels[t - 1] = from[t * n + labels[t]];
  });
}

}  // namespace longhand::cpu
