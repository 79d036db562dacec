// What gives out a run's batches, and the losses that a curriculum may rank by.
#include <algorithm>
#include <charconv>

#include "src/train/trainer_state.h"

namespace longhand {
namespace {

/// "de-en=0.5,en-de=2" by the tasks' places; empty where the list is.
std::vector<float> task_weights(std::string_view list, const std::vector<std::string>& names) {
  if (list.empty()) return {};
  std::vector<float> weights(names.size(), 1.0f);
  while (!list.empty()) {
    std::string_view entry = list.substr(0, list.find(','));
    list.remove_prefix(std::min(list.size(), entry.size() + 1));
    size_t equals = entry.rfind('=');
    std::string_view name = entry.substr(0, equals), number = entry.substr(std::min(entry.size(), equals + 1));
    float weight = -1;
    auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), weight);
    if (equals == std::string_view::npos || error != std::errc() || end != number.data() + number.size() ||
        !(weight >= 0 && weight <= 1e6f))
      fail_usage("--task-weight {}: a task and its weight are written as de-en=0.5", entry);
    auto found = std::find(names.begin(), names.end(), name);
    if (found == names.end())
      fail_usage("--task-weight {}: no example has the task {}; there {} {}", entry, name,
                 names.size() == 1 ? "is" : "are", fmt::join(names, ", "));
    weights[found - names.begin()] = weight;
  }
  return weights;
}

}  // namespace

std::unique_ptr<Loader> make_loader(const TrainOptions& o, const TokenStream& train) {
  if (!train.answers) return std::make_unique<LaneLoader>(train, o.lanes, o.segment, o.mask_documents, o.segments());
  ExampleOptions options{.lanes = o.lanes, .segment = o.segment, .pack = o.pack, .seed = o.seed};
  options.curriculum = {.difficulty = o.curriculum, .pacing = o.pacing, .start = o.curriculum_start};
  options.curriculum.steps = o.curriculum_steps > 0 ? o.curriculum_steps : (o.steps + 1) / 2;
  options.task_temperature = o.task_temperature, options.task_weights = task_weights(o.task_weight, train.task_names);
  return std::make_unique<ExampleLoader>(train, options);
}

std::vector<float> example_losses(Trainer::State& s) {
  const TrainOptions& o = s.options;
  const TokenStream& stream = s.data.train();
  std::vector<float> means(stream.documents.elements());
  ExampleRows rows(stream, o.segment, true, o.seed);
  ExampleRows::Columns columns = rows.columns(o.micro_batch);
  std::vector<float> losses(o.segment * o.micro_batch);
  for (int64_t first = 0; first < rows.size(); first += o.micro_batch) {
    for (int64_t lane = 0; lane < o.micro_batch; ++lane)
      rows.fill(first + lane < rows.size() ? first + lane : -1, columns, lane);
    s.pass->set_memory(0, 0);
    s.pass->forward(columns.batch(o.segment), {}, {}, 0, 0);
    s.device.download(losses.data(), s.pass->losses());
    for (int64_t lane = 0; lane < std::min(o.micro_batch, rows.size() - first); ++lane) {
      int64_t at = 0;
      for (int64_t e : rows.examples(first + lane)) {
        double sum = 0, count = 0;
        for (int64_t end = at + rows.inputs(e); at < end; ++at) {
          sum += losses[at * o.micro_batch + lane];
          count += columns.targets[at * o.micro_batch + lane] >= 0;
        }
        means[e] = static_cast<float>(sum / std::max(1.0, count));
      }
    }
  }
  return means;
}

}  // namespace longhand
