// Which rows of examples a batch takes: epochs, tasks, a curriculum.
#include <algorithm>
#include <cmath>

#include "longhand/data.h"

namespace longhand {
namespace {

/// Examples of every task, or all of them, in an order drawn from the seed.
std::vector<std::vector<int64_t>> group(const TokenStream& stream, const ExampleOptions& options) {
  std::vector<int64_t> all = shuffled(stream.documents.elements(), options.seed, 0);
  if (options.task_temperature == 0) return {all};
  std::vector<std::vector<int64_t>> groups(stream.task_names.size());
  for (int64_t e : all) groups[stream.tasks.as<const int32_t>()[e]].push_back(e);
  std::erase_if(groups, [](const auto& examples) { return examples.empty(); });
  if (groups.size() < 2)
    fail_usage("--task-temperature {}: it needs examples of two tasks or more", options.task_temperature);
  return groups;
}

}  // namespace

std::vector<float> example_difficulty(const TokenStream& stream, Difficulty kind) {
  std::vector<double> cost;  // of every token; by length each counts 1
  if (kind == Difficulty::rarity) {
    for (int64_t i = 0; i < stream.size(); ++i) {
      size_t token = static_cast<size_t>(stream.at(i));
      if (token >= cost.size()) cost.resize(token + 1);
      ++cost[token];
    }
    for (double& c : cost) c = c > 0 ? std::log(static_cast<double>(stream.size()) / c) : 0;
  }
  std::vector<float> difficulty;
  int64_t count = stream.documents.elements();
  const int64_t* starts = stream.documents.as<const int64_t>();
  for (int64_t e = 0; e < count; ++e) {
    int64_t end = e + 1 < count ? starts[e + 1] : stream.size();
    double sum = 0;
    for (int64_t i = starts[e]; i < end; ++i) sum += cost.empty() ? 1 : cost[stream.at(i)];
    difficulty.push_back(static_cast<float>(cost.empty() ? sum : sum / static_cast<double>(end - starts[e])));
  }
  return difficulty;
}

ExampleLoader::ExampleLoader(TokenStream stream, const ExampleOptions& options)
    : options_(options),
      stream_(std::move(stream)),
      groups_(group(stream_, options)),
      rows_(stream_, options.segment, options.pack, groups_),
      order_(rows_.first_rows(), options.task_temperature, options.seed) {
  rows_.weigh(options.task_weights);
  columns_ = rows_.columns(options.lanes);
  Difficulty kind = options.curriculum.difficulty;
  if (kind == Difficulty::length || kind == Difficulty::rarity) rank(example_difficulty(stream_, kind));
}

void ExampleLoader::take_losses(std::vector<float> losses) {
  losses_ = std::move(losses);
  if (static_cast<int64_t>(losses_.size()) != stream_.documents.elements())
    fail("losses of {} examples where there are {}", losses_.size(), stream_.documents.elements());
  rank(losses_);
}

void ExampleLoader::rank(const std::vector<float>& difficulty) {
  std::vector<std::vector<int64_t>> sorted = groups_;
  for (std::vector<int64_t>& examples : sorted)
    std::stable_sort(examples.begin(), examples.end(),
                     [&](int64_t a, int64_t b) { return difficulty[a] < difficulty[b]; });
  ExampleRows rows(stream_, options_.segment, options_.pack, sorted);
  rows.weigh(options_.task_weights);
  RowOrder order(rows.first_rows(), options_.task_temperature, options_.seed);
  easy_.emplace(Ranked{std::move(rows), std::move(order)});
}

std::vector<int64_t> ExampleLoader::rows_of_batch() {
  if (options_.curriculum.at_work(at_.step))
    return easy_->order.draw(at_.step, options_.lanes, options_.curriculum.share(at_.step));
  if (ordered_epoch_ != at_.epoch) {
    epoch_order_ = order_.epoch(at_.epoch);
    ordered_epoch_ = at_.epoch;
  }
  int64_t first = at_.step % batches_per_epoch() * options_.lanes;
  std::vector<int64_t> rows(options_.lanes, -1);
  for (int64_t lane = 0; lane < options_.lanes && first + lane < order_.size(); ++lane)
    rows[lane] = epoch_order_[first + lane];
  return rows;
}

Batch ExampleLoader::next(int64_t, bool& fresh) {
  if (needs_losses()) fail("the curriculum waits for the losses of its examples");
  fresh = true;
  const ExampleRows& from = options_.curriculum.at_work(at_.step) ? easy_->rows : rows_;
  std::vector<int64_t> rows = rows_of_batch();
  for (int64_t lane = 0; lane < options_.lanes; ++lane) from.fill(rows[lane], columns_, lane, at_.step);
  ++at_.step, at_.epoch = at_.step / batches_per_epoch();
  return columns_.batch(options_.segment);
}

void ExampleLoader::restore(const LoaderState& state) {
  if (state.step < 0 || state.epoch != state.step / batches_per_epoch())
    fail("the loader's state (batch {}, epoch {}) is of other batches: these examples give {} an epoch", state.step,
         state.epoch, batches_per_epoch());
  at_ = state;
}

int64_t ExampleLoader::batches_per_epoch() const { return (rows_.size() + options_.lanes - 1) / options_.lanes; }

}  // namespace longhand
