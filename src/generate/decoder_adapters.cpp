// What adapters add to the decoder's pass. The rows of a call fall into runs, each under one stack of adapters; the
// products with the weights are those of all rows, and each run then gets its own updates:
//
//   out = W x + B (A x)                                x the run's rows
//   y + W_up act(W_down y + b_down) + b_up             y what a part of a layer gives
//
// A row's bits are the same in whatever run it stands: products do not depend on their number of rows. The product `up`
// is fused with its activation where no adapter updates it; otherwise its sums wait in fp32 for the updates of their
// runs, and the activation follows for all rows. An update of W_r changes R, so such a stack has tables of its own.
#include <algorithm>

#include "src/generate/decoder_state.h"
#include "src/model/project.h"

namespace longhand {

static bool any_on(const AdapterStack& stack, LoraSite site) {
  return std::any_of(stack.begin(), stack.end(), [&](const Adapter* adapter) { return adapter->on(site); });
}

size_t Decoder::State::prepare_adapters() {
  size_t count = 1;
  for (const AdapterStack& stack : adapters) {
    for (const Adapter* adapter : stack)
      if (adapter->added.type() != type)
        fail("an adapter held in {} beside activations in {}", dtype_name(adapter->added.type()), dtype_name(type));
    table_of.push_back(any_on(stack, LoraSite::position) ? count++ : 0);
    updates_up = updates_up || any_on(stack, LoraSite::up);
  }
  chosen_adapters.assign(sequences, no_adapters);
  return count;
}

void Decoder::State::lay_out_adapters() {
  int64_t rank = 0, bottleneck = config.adapter_width, rows = std::max(rows_max, rings->distances());
  for (const AdapterStack& stack : adapters)
    for (const Adapter* adapter : stack) {
      rank = std::max(rank, adapter->config.lora_rank);
      bottleneck = std::max(bottleneck, adapter->config.adapter_width);
    }
  low_rank = narrow = change = before_activation = {};
  if (bottleneck > 0) {
    narrow = activation_arena.take(type, {rows_max * bottleneck});
    change = activation_arena.take(type, {rows_max, config.d_model});
  }
  if (rank > 0) low_rank = activation_arena.take(type, {rows * rank});
  if (updates_up && type != Dtype::fp32)
    before_activation = activation_arena.take(Dtype::fp32, {rows_max, config.d_ff});
}

void Decoder::State::update_table(size_t table, int64_t layer, const Tensor& r, const ConstTensor& encoding) {
  for (size_t stack = 0; stack < adapters.size(); ++stack)
    if (table_of[stack] == table)
      for (const Adapter* adapter : adapters[stack]) add_update(*adapter, layer, LoraSite::position, r, encoding);
}

void Decoder::State::find_runs(std::span<const Input> inputs) {
  runs.clear(), attention_runs.clear();
  int64_t row = 0;
  for (const Input& input : inputs) {
    int64_t rows = static_cast<int64_t>(input.tokens.size());
    int32_t stack = chosen_adapters[input.sequence];
    Run run{row, 0, stack, stack == no_adapters ? 0 : table_of[stack]};
    if (runs.empty() || runs.back().adapters != stack) runs.push_back(run);
    if (attention_runs.empty() || attention_runs.back().table != run.table) attention_runs.push_back(run);
    runs.back().rows += rows, attention_runs.back().rows += rows, row += rows;
  }
}

uint64_t Decoder::State::step_key() const {
  return identity << 40 | static_cast<uint64_t>(runs[0].adapters + 1) << 20 | static_cast<uint64_t>(runs[0].rows);
}

void Decoder::State::add_update(const Adapter& adapter, int64_t layer, LoraSite site, const Tensor& out,
                                const ConstTensor& x) {
  const LoraTensors& update = adapter.added.layers[layer].low_rank(site);
  if (update.a.empty()) return;
  int64_t rows = x.size(0), rank = update.a.size(0);
  Tensor product = low_rank.rows(0, rows * rank).reshape({rows, rank});
  device->matmul({.out = product, .a = x, .b = update.a});
  device->matmul({.out = out, .a = product, .b = update.b, .accumulate = true});
}

void Decoder::State::add_updates(int64_t layer, LoraSite site, const Tensor& out, const ConstTensor& x) {
  for (const Run& run : runs)
    if (run.adapters != no_adapters)
      for (const Adapter* adapter : adapters[run.adapters])
        add_update(*adapter, layer, site, out.rows(run.first, run.rows), x.rows(run.first, run.rows));
}

// y += W_up act(W_down y + b_down) + b_up, where there is an adapter.
void Decoder::State::add_bottleneck(const AdapterTensors& w, const Tensor& y) {
  if (w.down.empty()) return;
  int64_t rows = y.size(0), width = w.down_bias.size(0);
  Tensor z = narrow.rows(0, rows * width).reshape({rows, width}), d = change.rows(0, rows);
  project(*device, {.out = z, .a = y, .bias = w.down_bias, .activation = config.activation}, w.down);
  project(*device, {.out = d, .a = z, .bias = w.up_bias}, w.up);
  device->add({.out = y, .a = y, .b = d});
}

// After a part of a layer: the model's own adapter, then those of the runs.
void Decoder::State::follow(int64_t layer, AdapterSite site, const Tensor& y) {
  add_bottleneck(weights->layers[layer].adapter(site), y);
  for (const Run& run : runs)
    if (run.adapters != no_adapters)
      for (const Adapter* adapter : adapters[run.adapters])
        add_bottleneck(adapter->added.layers[layer].adapter(site), y.rows(run.first, run.rows));
}

void Decoder::State::project_up(int64_t layer, const Tensor& out, const ConstTensor& x) {
  const LayerTensors& w = weights->layers[layer];
  if (!updates_up)
    return project(*device, {.out = out, .a = x, .bias = w.up_bias, .activation = config.activation}, w.up);
  Tensor before = before_activation ? before_activation.rows(0, x.size(0)) : out;
  project(*device, {.out = before, .a = x, .bias = w.up_bias}, w.up);
  add_updates(layer, LoraSite::up, before, x);
  device->activation_forward({.out = out, .x = before, .activation = config.activation});
}

}  // namespace longhand
