// Choosing the next token.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <span>

#include "src/device/cpu/cpu_device.h"
#include "src/device/cpu/kernels/cross_entropy.h"
#include "src/device/cpu/launch.h"

namespace longhand::cpu {
namespace {

/// One row's logits after the repetition penalty, exp((logit - largest) / temperature), and the tokens still in play.
struct Candidates {
  float *logits, *weights;
  int32_t* tokens;
  int64_t vocabulary;
};

/// Counts a token once however often it stands in the history: the result is formed from the raw logit.
void penalize(const Candidates& c, std::span<const int32_t> history, float penalty, const void* raw, int type) {
  auto raw_logit = [&](int32_t t) {
    return type ? static_cast<float>(static_cast<const bf16*>(raw)[t]) : static_cast<const float*>(raw)[t];
  };
  for (int32_t t : history)
    if (t >= 0) c.logits[t] = raw_logit(t) > 0 ? raw_logit(t) / penalty : raw_logit(t) * penalty;
}

/// `words` has a bit for every token that may be drawn.
void forbid(const Candidates& c, const uint64_t* words) {
  for (int64_t first = 0; first < c.vocabulary; first += 64) {
    uint64_t word = words[first / 64];
    if (word == ~uint64_t{0}) continue;
    for (int64_t t = first, end = std::min(c.vocabulary, first + 64); t < end; ++t)
      if (!(word >> (t - first) & 1)) c.logits[t] = -INFINITY;
  }
}

/// Sorts just so many of the tokens, best first (the smaller id among equals), that their weights reach `share` of the
/// total; returns how many these are.
int64_t nucleus(const Candidates& c, int64_t count, double share) {
  auto better = [&](int32_t a, int32_t b) {
    return c.logits[a] > c.logits[b] || (c.logits[a] == c.logits[b] && a < b);
  };
  double total = 0, reached = 0;
  for (int64_t i = 0; i < count; ++i) total += c.weights[c.tokens[i]];
  int64_t sorted = 0;
  for (int64_t step = 64; sorted < count; step *= 4) {
    int64_t end = std::min(count, sorted + step);
    if (end < count) std::nth_element(c.tokens + sorted, c.tokens + end, c.tokens + count, better);
    std::sort(c.tokens + sorted, c.tokens + end, better);
    for (; sorted < end; ++sorted) {
      reached += c.weights[c.tokens[sorted]];
      if (reached >= share * total) return sorted + 1;
    }
  }
  return count;
}

/// The token at which the running sum, in ascending order of ids, passes u times the total.
int32_t draw(const Candidates& c, std::span<const int32_t> tokens, float u) {
  double total = 0, sum = 0;
  for (int32_t t : tokens) total += c.weights[t];
  double goal = u * total;
  int32_t last = tokens.front();
  for (int32_t t : tokens) {
    if (c.weights[t] == 0) continue;
    last = t;
    sum += c.weights[t];
    if (sum > goal) break;
  }
  return last;
}

/// The same over the whole vocabulary, by blocks.
int32_t draw_any(const Candidates& c, float u) {
  constexpr int64_t block = 256;
  const auto sum_of = cross_entropy_kernels().sum[0];
  auto block_sum = [&](int64_t at) { return sum_of(c.weights + at, std::min(block, c.vocabulary - at)); };
  double total = 0, sum = 0;
  for (int64_t at = 0; at < c.vocabulary; at += block) total += block_sum(at);
  double goal = u * total;
  int64_t last = 0;
  for (int64_t at = 0; at < c.vocabulary; at += block) {
    double here = block_sum(at);
    if (here == 0) continue;
    last = at;
    if (sum + here > goal) break;
    sum += here;
  }
  int32_t token = -1;
  for (int64_t t = last, end = std::min(c.vocabulary, last + block); t < end; ++t) {
    if (c.weights[t] == 0) continue;
    token = static_cast<int32_t>(t);
    sum += c.weights[t];
    if (sum > goal) break;
  }
  return token;
}

int32_t choose(const Candidates& c, const SamplingParameters& rule, float largest) {
  int64_t n = c.vocabulary;
  if (rule.temperature == 0) return static_cast<int32_t>(std::find(c.logits, c.logits + n, largest) - c.logits);
  // The largest weight is 1, so min_p is a bound on the weights; top-p is to see them as they were before it.
  bool top_k = rule.top_k > 0 && rule.top_k < n, top_p = rule.top_p < 1;
  float least = top_k || top_p ? 0 : rule.min_p;
  cross_entropy_kernels().weights(c.logits, c.weights, n, largest, rule.temperature, least);
  float u = uniform(rule.stream.bits(rule.element));
  if (!top_k && !top_p) return draw_any(c, u);
  auto better = [&](int32_t a, int32_t b) {
    return c.logits[a] > c.logits[b] || (c.logits[a] == c.logits[b] && a < b);
  };
  for (int64_t t = 0; t < n; ++t) c.tokens[t] = static_cast<int32_t>(t);
  int64_t count = n;
  if (top_k) std::nth_element(c.tokens, c.tokens + (count = rule.top_k), c.tokens + n, better);
  if (top_p) count = nucleus(c, count, rule.top_p);
  std::sort(c.tokens, c.tokens + count);
  for (int64_t i = 0; i < count; ++i)
    if (c.weights[c.tokens[i]] < rule.min_p) c.weights[c.tokens[i]] = 0;
  return draw(c, {c.tokens, static_cast<size_t>(count)}, u);
}

}  // namespace

void CpuDevice::sample(const Sample& a) {
  constexpr auto name = "sample";
  check_sample(a);
  int type = float_index(a.logits, name, "logits");
  int64_t rows = rows_of(a.logits), vocabulary = width_of(a.logits), length = width_of(a.history);
  int64_t words = width_of(a.allowed);
  const int32_t* history = a.history.as<int32_t>();
  for (int64_t i = 0; i < rows * length; ++i)
    if (history[i] < -1 || history[i] >= vocabulary)
      fail("{}: token {} in the history of row {} is not in the vocabulary of {}", name, history[i], i / length,
           vocabulary);

  std::atomic<int64_t> strange{-1};
  int32_t* tokens = a.tokens.as<int32_t>();
  const auto& kernels = cross_entropy_kernels();
  for_pieces(pool_, rows, rows_per_piece(vocabulary), [&](int64_t first, int64_t count, int thread) {
    float* buffer = static_cast<float*>(scratch(thread, 3 * padded(vocabulary) * 4));
    Candidates c{buffer, buffer + padded(vocabulary), reinterpret_cast<int32_t*>(buffer + 2 * padded(vocabulary)),
                 vocabulary};
    for (int64_t r = first; r < first + count; ++r) {
      const char* raw = static_cast<const char*>(a.logits.data()) + r * vocabulary * dtype_bytes(a.logits.type());
      kernels.widen[type](raw, c.logits, vocabulary);
      if (length && a.rules[r].repetition_penalty != 1)
        penalize(c, {history + r * length, static_cast<size_t>(length)}, a.rules[r].repetition_penalty, raw, type);
      if (a.allowed) forbid(c, a.allowed.as<uint64_t>() + r * words);
      float largest = kernels.largest[0](c.logits, vocabulary);
      if (std::isfinite(largest))
        tokens[r] = choose(c, a.rules[r], largest);
      else
        strange = r, tokens[r] = 0;
    }
  });
  if (strange >= 0)
    fail(
        "{}: the logits of row {} are not numbers: NaN, infinite, or all -infinite; the weights or their types are at "
        "fault, or no token is allowed",
        name, strange.load());
  if (a.logprob) log_probability({.logprob = a.logprob, .logits = a.logits, .tokens = a.tokens});
}

}  // namespace longhand::cpu
