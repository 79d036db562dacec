#include "longhand/curriculum.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "longhand/error.h"
#include "longhand/random.h"

namespace longhand {
namespace {

// Layers of the shuffle's random stream: 0 orders an epoch, g + 1 goes round in group g, the others draw batches.
constexpr uint32_t draw_layer = 0x8000, choice_layer = 0xffff;

}  // namespace

const char* difficulty_name(Difficulty kind) {
  constexpr const char* names[] = {"none", "length", "rarity", "loss"};
  return names[static_cast<size_t>(kind)];
}

Difficulty parse_difficulty(std::string_view name) {
  for (Difficulty kind : {Difficulty::none, Difficulty::length, Difficulty::rarity, Difficulty::loss})
    if (name == difficulty_name(kind)) return kind;
  fail_usage("--curriculum {}: it takes none, length, rarity or loss", name);
}

const char* pacing_name(Pacing pacing) {
  constexpr const char* names[] = {"linear", "root", "step"};
  return names[static_cast<size_t>(pacing)];
}

Pacing parse_pacing(std::string_view name) {
  for (Pacing pacing : {Pacing::linear, Pacing::root, Pacing::step})
    if (name == pacing_name(pacing)) return pacing;
  fail_usage("--pacing {}: it takes linear, root or step", name);
}

double Curriculum::share(int64_t step) const {
  if (!at_work(step)) return 1;
  double p = static_cast<double>(step) / static_cast<double>(steps);
  if (pacing == Pacing::root) return std::sqrt(start * start + (1 - start * start) * p);
  return start + (1 - start) * (pacing == Pacing::step ? std::floor(4 * p) / 4 : p);
}

int64_t SegmentGrowth::length(int64_t step) const {
  if (!at_work(step)) return full;
  Curriculum share{.difficulty = Difficulty::length, .pacing = pacing, .steps = steps};
  share.start = static_cast<double>(start) / static_cast<double>(full);
  auto exact = static_cast<int64_t>(share.share(step) * static_cast<double>(full) + 1e-9);
  return std::max(start, exact / 8 * 8);
}

std::vector<int64_t> shuffled(int64_t count, uint64_t seed, uint64_t step, uint32_t layer) {
  RandomStream random{.seed = seed, .step = step, .use = RandomUse::shuffle, .layer = layer};
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), int64_t{0});
  for (int64_t i = count - 1; i > 0; --i)
    std::swap(order[i], order[static_cast<uint64_t>(random.bits(i)) * static_cast<uint64_t>(i + 1) >> 32]);
  return order;
}

RowOrder::RowOrder(std::vector<int64_t> first, double temperature, uint64_t seed)
    : first_(std::move(first)), seed_(seed) {
  double sum = 0;
  for (int64_t g = 0; g < groups(); ++g) {
    probability_.push_back(std::pow(static_cast<double>(rows(g)), temperature > 0 ? 1 / temperature : 1));
    sum += probability_.back();
  }
  // Largest remainders: the draws of an epoch are as many as the rows.
  std::vector<std::pair<double, int64_t>> remainders;
  int64_t left = size();
  for (int64_t g = 0; g < groups(); ++g) {
    double wanted = (probability_[g] /= sum) * static_cast<double>(size());
    draws_.push_back(static_cast<int64_t>(wanted)), left -= draws_.back();
    remainders.emplace_back(-(wanted - std::floor(wanted)), g);
  }
  std::sort(remainders.begin(), remainders.end());
  for (int64_t i = 0; i < left; ++i) ++draws_[remainders[i].second];
}

std::vector<int64_t> RowOrder::epoch(int64_t epoch) const {
  std::vector<int64_t> order = shuffled(size(), seed_, static_cast<uint64_t>(epoch) + 1);
  if (groups() == 1) return order;
  std::vector<int64_t> drawn;
  for (int64_t g = 0; g < groups(); ++g) {
    std::vector<int64_t> round;
    int64_t first = epoch * draws_[g];
    for (int64_t i = first; i < first + draws_[g]; ++i) {
      if (round.empty() || i % rows(g) == 0)
        round = shuffled(rows(g), seed_, static_cast<uint64_t>(i / rows(g)) + 1, static_cast<uint32_t>(g) + 1);
      drawn.push_back(first_[g] + round[i % rows(g)]);
    }
  }
  for (int64_t& index : order) index = drawn[index];
  return order;
}

std::vector<int64_t> RowOrder::draw(int64_t step, int64_t count, double share) const {
  RandomStream choice{
      .seed = seed_, .step = static_cast<uint64_t>(step), .use = RandomUse::shuffle, .layer = choice_layer};
  std::vector<std::vector<int64_t>> pools(groups());
  std::vector<int64_t> taken(groups()), list;
  for (int64_t i = 0; i < count; ++i) {
    double u = uniform(choice.bits(i));
    int64_t g = 0;
    while (g + 1 < groups() && u >= probability_[g]) u -= probability_[g++];
    int64_t pool = std::clamp<int64_t>(std::llround(share * static_cast<double>(rows(g))), 1, rows(g));
    if (pools[g].empty())
      pools[g] = shuffled(pool, seed_, static_cast<uint64_t>(step), draw_layer + static_cast<uint32_t>(g));
    list.push_back(first_[g] + pools[g][taken[g]++ % pool]);
  }
  return list;
}

}  // namespace longhand
