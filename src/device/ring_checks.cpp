#include "src/device/ring_checks.h"

#include <algorithm>

#include "src/device/checks.h"

namespace longhand {
namespace {

/// The type and shape that a tensor must have; strides are free but for the last axis.
void check(const char* operation, const char* name, const ConstTensor& t, Dtype type, const Shape& shape) {
  if (t.type() != type || t.shape() != shape)
    fail("{}: {} is {} {}, {} {} was expected", operation, name, dtype_name(t.type()), t.shape().text(),
         dtype_name(type), shape.text());
  if (t.size(t.rank() - 1) > 1 && t.stride(t.rank() - 1) != 1)
    fail("{}: the last axis of {} {} is not contiguous", operation, name, shape.text());
}

void check_ring_type(const char* operation, const char* name, const ConstTensor& t) {
  if (t.type() != Dtype::fp32 && t.type() != Dtype::bf16 && t.type() != Dtype::i8)
    fail("{}: {} is {}, fp32, bf16 or i8 was expected", operation, name, dtype_name(t.type()));
}

/// Scales stand beside i8 alone: a number a row of dh.
void check_scales(const char* operation, const char* name, const ConstTensor& scales, const ConstTensor& rows) {
  if (rows.type() != Dtype::i8) {
    if (!scales.empty()) fail("{}: {} without integers to scale", operation, name);
    return;
  }
  Shape shape = rows.shape();
  --shape.rank, shape.size[shape.rank] = 0;
  check(operation, name, scales, Dtype::fp32, shape);
}

void check_rows_of(const char* operation, const ConstTensor& position, const ConstTensor& sequence, int64_t n) {
  check_list(position, Dtype::i64, n, operation, "position");
  check_list(sequence, Dtype::i32, n, operation, "sequence");
}

}  // namespace

void check_attention_decode(const AttentionDecode& a) {
  constexpr auto op = "attention_decode";
  if (a.q.rank() != 3 || a.keys.rank() != 4 || a.r.rank() != 3)
    fail("{}: q [N, H, dh], keys [S, slots, H, dh] and r [distances, H, dh] are needed", op);
  float_index(a.q, op, "q");
  int64_t n = a.q.size(0), heads = a.q.size(1), width = a.q.size(2), slots = a.keys.size(1), distances = a.r.size(0);
  Dtype type = a.q.type(), ring = a.keys.type();
  check(op, "q", a.q, type, {n, heads, width});
  check(op, "out", a.out, type, {n, heads, width});
  check(op, "u", a.u, type, {heads, width});
  check(op, "v", a.v, type, {heads, width});
  check_ring_type(op, "keys", a.keys);
  check(op, "keys", a.keys, ring, {a.keys.size(0), slots, heads, width});
  check(op, "values", a.values, ring, a.keys.shape());
  check(op, "r", a.r, ring, {distances, heads, width});
  check_scales(op, "key_scales", a.key_scales, a.keys);
  check_scales(op, "value_scales", a.value_scales, a.values);
  check_scales(op, "r_scales", a.r_scales, a.r);
  check_rows_of(op, a.position, a.sequence, n);
  if (a.window < 1 || a.window > slots || std::max(slots, distances) > INT32_MAX / 2 || a.topk < 0 || distances < 1)
    fail("{}: window {} (1 to {} slots), topk {}, {} distances", op, a.window, slots, a.topk, distances);
  if (a.topk == 0 || a.topk_mode == TopkMode::exact) return;
  if (slots % page_rows || slots < a.window + page_rows - 1)
    fail("{}: pages of a window of {} need slots that are a multiple of {} and {} more, not {}", op, a.window,
         page_rows, page_rows - 1, slots);
  check(op, "key_bounds", a.key_bounds, Dtype::fp32, {a.keys.size(0), slots / page_rows * 2, heads, width});
  if (a.r_bounds.rank() != 3 || a.r_bounds.size(0) < 2 || a.r_bounds.size(0) % 2)
    fail("{}: r_bounds [2 groups, H, dh] are needed", op);
  check(op, "r_bounds", a.r_bounds, Dtype::fp32, {a.r_bounds.size(0), heads, width});
}

void check_ring_store(const RingStore& a) {
  constexpr auto op = "ring_store";
  if (a.k.rank() != 3 || a.keys.rank() != 4) fail("{}: k [N, H, dh] and keys [S, slots, H, dh] are needed", op);
  float_index(a.k, op, "k");
  int64_t n = a.k.size(0), heads = a.k.size(1), width = a.k.size(2);
  check(op, "k", a.k, a.k.type(), {n, heads, width});
  check(op, "value", a.value, a.k.type(), {n, heads, width});
  check_ring_type(op, "keys", a.keys);
  check(op, "keys", a.keys, a.keys.type(), {a.keys.size(0), a.keys.size(1), heads, width});
  check(op, "values", a.values, a.keys.type(), a.keys.shape());
  check_scales(op, "key_scales", a.key_scales, a.keys);
  check_scales(op, "value_scales", a.value_scales, a.values);
  check_rows_of(op, a.position, a.sequence, n);
}

void check_page_bounds(const PageBounds& a) {
  constexpr auto op = "page_bounds";
  if (a.rows.rank() != 4 || a.bounds.rank() != 4 || a.bounds.size(1) % 2)
    fail("{}: rows [S, slots, H, dh] and bounds [S, 2 pages, H, dh] are needed", op);
  int64_t sequences = a.rows.size(0), slots = a.rows.size(1), heads = a.rows.size(2), width = a.rows.size(3);
  check_ring_type(op, "rows", a.rows);
  check(op, "rows", a.rows, a.rows.type(), a.rows.shape());
  check_scales(op, "scales", a.scales, a.rows);
  check(op, "bounds", a.bounds, Dtype::fp32, {sequences, a.bounds.size(1), heads, width});
  if (a.position.empty()) return;
  check_rows_of(op, a.position, a.sequence, a.position.elements());
  if (slots % page_rows || a.bounds.size(1) != slots / page_rows * 2)
    fail("{}: rings {} and bounds {}: slots are a multiple of {}, with a page for each", op, a.rows.shape().text(),
         a.bounds.shape().text(), page_rows);
}

}  // namespace longhand
