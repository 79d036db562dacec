#include "src/generate/rings.h"

#include <algorithm>

#include "src/model/project.h"

namespace longhand {
namespace {

constexpr int64_t page = 64;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

}  // namespace

Rings::Rings(const ModelConfig& config, const DecoderShape& shape, Dtype type, int64_t window, int64_t rows,
             size_t tables)
    : config_(config),
      type_(type),
      ring_type_(shape.ring.value_or(type)),
      sequences_(shape.sequences),
      window_(window),
      table_count_(tables) {
  choice_ = shape.choice.value_or(KeyChoice{config.topk, config.topk_mode});
  if (ring_type_ != Dtype::fp32 && ring_type_ != Dtype::bf16 && ring_type_ != Dtype::i8)
    fail_usage("a ring of {}: it takes fp32, bf16 or int8", dtype_name(ring_type_));
  if (choice_.topk < 0) fail_usage("a query keeps {} keys", choice_.topk);
  // Pages in sight must be whole: none of their slots may have gone to a newer page.
  slots_ = pages() ? round_up(window + rows - 1 + page - 1, page) : round_up(window + rows - 1, 16);
  distances_ = config.clamp_len ? std::min(window, config.clamp_len + 1) : window;
}

void Rings::lay_out(Arena& ring_arena, Arena& table_arena) {
  rings_.clear(), tables_.clear();
  int64_t heads = config_.n_head, width = config_.d_head, groups = round_up(window_, page) / page;
  Shape ring{sequences_, slots_, heads, width}, table{distances_, heads, width};
  bool integers = ring_type_ == Dtype::i8;
  for (int64_t l = 0; l < config_.n_layer; ++l) {
    Ring& r = rings_.emplace_back();
    r.keys = ring_arena.take(ring_type_, ring), r.values = ring_arena.take(ring_type_, ring);
    if (integers) {
      r.key_scales = ring_arena.take(Dtype::fp32, {sequences_, slots_, heads});
      r.value_scales = ring_arena.take(Dtype::fp32, {sequences_, slots_, heads});
    }
    if (pages()) r.key_bounds = ring_arena.take(Dtype::fp32, {sequences_, 2 * slots_ / page, heads, width});
  }
  for (int64_t i = 0; i < static_cast<int64_t>(table_count_) * config_.n_layer; ++i) {
    Table& t = tables_.emplace_back();
    t.r = table_arena.take(ring_type_, table);
    if (integers) t.scales = table_arena.take(Dtype::fp32, {distances_, heads});
    if (pages()) t.bounds = table_arena.take(Dtype::fp32, {2 * groups, heads, width});
  }
  encoding_ = table_arena.take(type_, {distances_, config_.d_model});
  if (ring_type_ != type_) wide_ = table_arena.take(type_, {distances_, heads * width});
}

void Rings::build_tables(Device& device, const ParameterSet& weights, const Update& update) {
  device.position_encoding({.out = encoding_});
  int64_t heads = config_.n_head, width = config_.d_head;
  for (size_t i = 0; i < tables_.size(); ++i) {
    const Table& t = tables_[i];
    int64_t layer = static_cast<int64_t>(i) % config_.n_layer;
    Tensor whole = ring_type_ == type_ ? t.r.reshape({distances_, heads * width}) : wide_;
    project(device, {.out = whole, .a = encoding_}, weights.layers[layer].position);
    if (size_t table = i / config_.n_layer) update(table, layer, whole, encoding_);
    Tensor by_head = whole.reshape({distances_ * heads, width});
    if (ring_type_ == Dtype::i8)
      device.quantize({.out = t.r.reshape({distances_ * heads, width}),
                       .scales = t.scales.reshape({distances_ * heads}),
                       .x = by_head});
    else if (ring_type_ != type_)
      device.cast({.out = t.r, .x = whole.reshape(t.r.shape())});
    if (!pages()) continue;
    ConstTensor scales = t.scales.empty() ? t.scales : t.scales.reshape({1, distances_, heads});
    device.page_bounds({.bounds = t.bounds.reshape({1, t.bounds.size(0), heads, width}),
                        .rows = t.r.reshape({1, distances_, heads, width}),
                        .scales = scales});
  }
}

void Rings::store(Device& device, int64_t layer, const ConstTensor& k, const ConstTensor& value,
                  const ConstTensor& position, const ConstTensor& sequence) {
  const Ring& r = rings_[layer];
  device.ring_store({.keys = r.keys,
                     .values = r.values,
                     .key_scales = r.key_scales,
                     .value_scales = r.value_scales,
                     .k = k,
                     .value = value,
                     .position = position,
                     .sequence = sequence});
  if (pages())
    device.page_bounds(
        {.bounds = r.key_bounds, .rows = r.keys, .scales = r.key_scales, .position = position, .sequence = sequence});
}

AttentionDecode Rings::complete(int64_t layer, AttentionDecode call, size_t table) const {
  const Ring& r = rings_[layer];
  const Table& t = tables_[table * config_.n_layer + layer];
  call.keys = r.keys, call.values = r.values, call.r = t.r;
  call.key_scales = r.key_scales, call.value_scales = r.value_scales, call.r_scales = t.scales;
  call.key_bounds = r.key_bounds, call.r_bounds = t.bounds;
  call.window = window_, call.topk = choice_.topk, call.topk_mode = choice_.mode;
  return call;
}

void Rings::copy(Device& device, int32_t to, int32_t from) {
  for (const Ring& ring : rings_)
    for (const Tensor& t : {ring.keys, ring.values, ring.key_scales, ring.value_scales, ring.key_bounds})
      if (!t.empty()) device.copy(t.rows(to, 1), t.rows(from, 1));
}

std::vector<Tensor> Rings::of(int32_t sequence) const {
  std::vector<Tensor> list;
  int64_t heads = config_.n_head, width = config_.d_head;
  for (const Ring& ring : rings_) {
    for (const Tensor& t : {ring.keys, ring.values})
      list.push_back(t.rows(sequence, 1).reshape({slots_, heads, width}));
    if (ring_type_ != Dtype::i8) continue;
    for (const Tensor& t : {ring.key_scales, ring.value_scales})
      list.push_back(t.rows(sequence, 1).reshape({slots_, heads}));
  }
  return list;
}

void Rings::refill(Device& device, int32_t sequence) {
  if (!pages()) return;
  for (const Ring& r : rings_)
    device.page_bounds({.bounds = r.key_bounds.rows(sequence, 1),
                        .rows = r.keys.rows(sequence, 1),
                        .scales = r.key_scales.empty() ? Tensor() : r.key_scales.rows(sequence, 1)});
}

int64_t Rings::needed(int64_t position) const {
  int64_t first = std::max<int64_t>(position - window_, 0);
  return position - (pages() ? first / page * page : first);
}

std::string Rings::attention() const {
  if (choice_.topk == 0) return "dense";
  return pages() ? fmt::format("pages {}", (choice_.topk + page - 1) / page) : fmt::format("topk {}", choice_.topk);
}

}  // namespace longhand
