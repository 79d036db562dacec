// Cross-entropy and log-probabilities. The kernels pass over the rows; a row's few scalars are reckoned here in fp64.
#include "src/device/cpu/kernels/cross_entropy.h"

#include <cstring>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {
namespace {

struct RowSoftmax {
  float largest;
  double total;   // of exp(z - largest)
  double log_p;   // of the target
  double others;  // 1 - p of the target, exact also where p is all but 1
};

RowSoftmax row_softmax(const char* row, int type, int64_t n, int64_t target) {
  const auto& kernels = cross_entropy_kernels();
  int64_t width = type ? 2 : 4;
  float at_target;
  kernels.widen[type](row + target * width, &at_target, 1);
  RowSoftmax s;
  s.largest = kernels.largest[type](row, n);
  double others = kernels.exponential_sum[type](row, target, s.largest) +
                  kernels.exponential_sum[type](row + (target + 1) * width, n - target - 1, s.largest);
  double difference = static_cast<double>(at_target) - s.largest, own = std::exp(difference);
  s.total = own + others;
  s.others = others / s.total;
  s.log_p = own > others ? -std::log1p(others / own) : difference - std::log(s.total);
  return s;
}

void check_targets(const int32_t* targets, int64_t rows, int64_t vocabulary, int32_t least, const char* name) {
  for (int64_t r = 0; r < rows; ++r)
    if (targets[r] < least || targets[r] >= vocabulary)
      fail("{}: token {} of row {} is not in the vocabulary of {}", name, targets[r], r, vocabulary);
}

/// With p the target's probability, q the smoothed target, ce = -q . log p_c and f = (1 - p)^gamma:
///   d(f ce) / dz_c = f (p_c - q_c) + g (p_c - [c = target]),   g = gamma (1 - p)^(gamma - 1) p ce.
/// Every entry is thus (f + g) p_c - f smoothing / V, the target's own is -(f + g) (1 - p) + f smoothing (1 - 1 / V).
float row_loss(const CrossEntropy& a, char* row, int type, int64_t vocabulary, int32_t target, double weight) {
  const auto& kernels = cross_entropy_kernels();
  double smoothing = a.smoothing, gamma = a.gamma, v = static_cast<double>(vocabulary);
  RowSoftmax s = row_softmax(row, type, vocabulary, target);
  double entropy = -s.log_p;
  if (smoothing > 0) {
    double mean_log_p = kernels.sum[type](row, vocabulary) / v - s.largest - std::log(s.total);
    entropy = -(1 - smoothing) * s.log_p - smoothing * mean_log_p;
  }
  double f = 1, g = 0;
  if (gamma > 0) {
    f = std::pow(s.others, gamma);
    g = s.others > 0 ? gamma * std::pow(s.others, gamma - 1) * (1 - s.others) * entropy : 0;
  }
  if (a.gradient) {
    double scale = weight * a.scale;
    double own = scale * (f * smoothing * (1 - 1 / v) - (f + g) * s.others);
    kernels.gradient[type](row, vocabulary, s.largest, static_cast<float>(scale * (f + g) / s.total),
                           static_cast<float>(-scale * f * smoothing / v));
    if (type)
      reinterpret_cast<bf16*>(row)[target] = bf16(static_cast<float>(own));
    else
      reinterpret_cast<float*>(row)[target] = static_cast<float>(own);
  }
  return static_cast<float>(weight * f * entropy);
}

}  // namespace

void CpuDevice::cross_entropy(const CrossEntropy& a) {
  constexpr auto name = "cross_entropy";
  check_cross_entropy(a);
  int type = a.logits.type() == Dtype::bf16;
  int64_t rows = rows_of(a.logits), vocabulary = width_of(a.logits);
  const int32_t* targets = a.targets.as<int32_t>();
  const float* weights = a.weights.as<float>();
  float* loss = a.loss.as<float>();
  check_targets(targets, rows, vocabulary, -1, name);
  int64_t row_bytes = vocabulary * dtype_bytes(a.logits.type());
  for_pieces(pool_, rows, rows_per_piece(vocabulary), [&](int64_t first, int64_t count, int) {
    for (int64_t r = first; r < first + count; ++r) {
      char* row = static_cast<char*>(a.logits.data()) + r * row_bytes;
      if (targets[r] >= 0) {
        loss[r] = row_loss(a, row, type, vocabulary, targets[r], weights ? weights[r] : 1);
      } else {
        loss[r] = 0;
        if (a.gradient) std::memset(row, 0, row_bytes);
      }
    }
  });
}

void CpuDevice::log_probability(const LogProbability& a) {
  constexpr auto name = "log_probability";
  check_log_probability(a);
  int type = a.logits.type() == Dtype::bf16;
  int64_t rows = rows_of(a.logits), vocabulary = width_of(a.logits);
  const int32_t* tokens = a.tokens.as<int32_t>();
  float* logprob = a.logprob.as<float>();
  check_targets(tokens, rows, vocabulary, 0, name);
  int64_t row_bytes = vocabulary * dtype_bytes(a.logits.type());
  for_pieces(pool_, rows, rows_per_piece(vocabulary), [&](int64_t first, int64_t count, int) {
    for (int64_t r = first; r < first + count; ++r)
      logprob[r] = static_cast<float>(
          row_softmax(static_cast<const char*>(a.logits.data()) + r * row_bytes, type, vocabulary, tokens[r]).log_p);
  });
}

}  // namespace longhand::cpu
