#include "src/device/cpu/attention.h"

#include <cmath>

namespace longhand::cpu {

void check_like(const char* operation, const char* name, const ConstTensor& tensor, const Shape& shape, bool half) {
  Dtype type = half ? Dtype::bf16 : Dtype::fp32;
  if (tensor.type() != type || tensor.shape() != shape)
    fail("{}: {} is {} {}, it must be {} {}", operation, name, dtype_name(tensor.type()), tensor.shape().text(),
         dtype_name(type), shape.text());
  if (shape[shape.rank - 1] > 1 && tensor.stride(shape.rank - 1) != 1)
    fail("{}: the last axis of {} must be contiguous", operation, name);
}

static void check_exact(const char* operation, const char* name, const ConstTensor& tensor, Dtype type,
                        const Shape& shape) {
  if (tensor.type() != type || tensor.shape() != shape || !tensor.contiguous())
    fail("{}: {} is {} {}, it must be contiguous {} {}", operation, name, dtype_name(tensor.type()),
         tensor.shape().text(), dtype_name(type), shape.text());
}

static void check_masks(const AttentionInputs& in, const AttentionSizes& s) {
  const char* op = in.operation;
  if (const ConstTensor& start = in.mask.document_start; !start.empty())
    if (start.type() != Dtype::i32 || start.shape() != Shape{s.queries, s.lanes})
      fail("{}: document_start is {} {}, it must be i32 [{}, {}]", op, dtype_name(start.type()), start.shape().text(),
           s.queries, s.lanes);
  if (!in.segments) return;
  check_like(op, "the segment bias", in.segments.bias, {s.heads, s.width}, s.half);
  check_like(op, "the segment embedding", in.segments.embedding, {2, s.heads, s.width}, s.half);
  for (auto [ids, rows] : {std::pair{&in.segments.query_ids, s.queries}, std::pair{&in.segments.key_ids, s.keys}})
    if (ids->type() != Dtype::u8 || ids->shape() != Shape{rows, s.lanes})
      fail("{}: segment ids are {} {}, they must be u8 [{}, {}]", op, dtype_name(ids->type()), ids->shape().text(),
           rows, s.lanes);
}

AttentionSizes check_attention(const AttentionInputs& in) {
  const char* op = in.operation;
  if (in.q.rank() != 4 || in.k.rank() != 4) fail("{}: q and k need four axes: positions, lanes, heads, width", op);
  AttentionSizes s;
  s.queries = in.q.size(0), s.lanes = in.q.size(1), s.heads = in.q.size(2), s.width = in.q.size(3);
  s.keys = in.k.size(0), s.memory = s.keys - s.queries, s.padded = (s.width + 15) / 16 * 16;
  s.half = in.q.type() == Dtype::bf16;
  if (s.queries < 1 || s.lanes < 1 || s.heads < 1 || s.width < 1 || s.memory < 0)
    fail("{}: q {} and k {} do not go together: K = M + T with T >= 1 and M >= 0", op, in.q.shape().text(),
         in.k.shape().text());
  check_like(op, "q", in.q, {s.queries, s.lanes, s.heads, s.width}, s.half);
  check_like(op, "k", in.k, {s.keys, s.lanes, s.heads, s.width}, s.half);
  check_like(op, "value", in.value, {s.keys, s.lanes, s.heads, s.width}, s.half);
  s.distances = in.r.rank() == 3 ? in.r.size(0) : 0;
  if (s.distances < 1 || s.distances > s.keys)
    fail("{}: r {} must hold from 1 to {} distances", op, in.r.shape().text(), s.keys);
  check_like(op, "r", in.r, {s.distances, s.heads, s.width}, s.half);
  check_like(op, "u", in.u, {s.heads, s.width}, s.half);
  check_like(op, "v", in.v, {s.heads, s.width}, s.half);
  check_exact(op, "lse", in.lse, Dtype::fp32, {s.lanes, s.heads, s.queries});
  check_masks(in, s);
  if (in.topk < 0) fail("{}: topk is {}", op, in.topk);
  if (in.topk > 0 && in.topk_mode == TopkMode::exact) {
    s.words = (s.keys + 63) / 64;
    check_exact(op, "selected", in.selected, Dtype::u64, {s.lanes, s.heads, s.queries, s.words});
  } else if (in.topk > 0) {
    if (in.first_position < 0) fail("{}: first_position is {}", op, in.first_position);
    int64_t pages = (in.first_position + s.keys - 1) / 64 - in.first_position / 64 + 1;
    s.words = (pages + 63) / 64;
    check_exact(op, "selected", in.selected, Dtype::u64, {s.lanes, s.heads, (s.queries + 63) / 64, s.words});
  }
  return s;
}

static AttentionTables table_sizes(const AttentionSizes& s) {
  AttentionTables t{};
  t.bias_floats = 5 * s.padded;  // u, v, segment bias, two segment rows
  t.row_floats = (s.keys + attention_r_margin) * s.padded;
  t.panel_floats = ((s.keys + attention_r_margin) / attention_panel + 2) * attention_panel * s.width;
  t.bound_floats = (s.keys + attention_page - 1) / attention_page * 2 * s.padded;
  return t;
}

int64_t AttentionTables::floats(const AttentionSizes& s) {
  AttentionTables t = table_sizes(s);
  return s.heads * (t.bias_floats + t.row_floats + t.panel_floats + t.bound_floats);
}

AttentionTables place_tables(const AttentionSizes& s, float* memory) {
  AttentionTables t = table_sizes(s);
  auto take = [&](int64_t n) { return memory += n, memory - n; };
  t.biases = take(s.heads * t.bias_floats), t.rows = take(s.heads * t.row_floats);
  t.bounds = take(s.heads * t.bound_floats), t.panels = take(s.heads * t.panel_floats);
  return t;
}

static int64_t shift_of(const AttentionInputs& in, const AttentionSizes& s) {
  bool pages = in.topk > 0 && in.topk_mode == TopkMode::block;
  return pages ? in.first_position % 64 : (64 - s.memory % 64) % 64;
}

static const void* at(const ConstTensor& t, int64_t offset) {
  return static_cast<const char*>(t.data()) + offset * dtype_bytes(t.type());
}

void pack_tables(const AttentionInputs& in, const AttentionSizes& s, const AttentionTables& t, int64_t head) {
  const AttentionKernels& kernels = attention_kernels();
  float* bias = t.biases + head * t.bias_floats;
  std::fill(bias, bias + t.bias_floats, 0.0f);
  kernels.to_float(bias, at(in.u, head * in.u.stride(0)), s.half, s.width);
  kernels.to_float(bias + s.padded, at(in.v, head * in.v.stride(0)), s.half, s.width);
  if (in.segments) {
    const ConstTensor &w = in.segments.bias, &rows = in.segments.embedding;
    kernels.to_float(bias + 2 * s.padded, at(w, head * w.stride(0)), s.half, s.width);
    for (int e = 0; e < 2; ++e)
      kernels.to_float(bias + (3 + e) * s.padded, at(rows, e * rows.stride(0) + head * rows.stride(1)), s.half,
                       s.width);
  }
  bool pages = in.topk > 0 && in.topk_mode == TopkMode::block;
  kernels.pack_position({.r = at(in.r, head * in.r.stride(1)),
                         .stride = in.r.stride(0),
                         .distances = s.distances,
                         .keys = s.keys,
                         .width = s.width,
                         .padded = s.padded,
                         .phase = (s.memory + shift_of(in, s)) % attention_panel,
                         .half = s.half,
                         .rows = t.rows + head * t.row_floats,
                         .panels = t.panels + head * t.panel_floats,
                         .bounds = pages ? t.bounds + head * t.bound_floats : nullptr});
}

HeadRows rows_of(const ConstTensor& t, int64_t lane, int64_t head) {
  return {const_cast<void*>(at(t, lane * t.stride(1) + head * t.stride(2))), t.stride(0)};
}

static HeadDropout dropout_of(const Dropout& d, const AttentionSizes& s, int64_t lane, int64_t head) {
  HeadDropout out;
  if (!d) return out;
  out.threshold = d.threshold(), out.scale = d.scale(), out.seed = d.stream.seed;
  out.word1 = d.stream.layer << 16, out.word2 = static_cast<uint32_t>(d.stream.step);
  out.word3 = static_cast<uint32_t>(d.stream.use) << 24 | static_cast<uint32_t>(d.stream.step >> 32 & 0xffffff);
  out.row = static_cast<uint64_t>((s.keys + 3) / 4 * 4);
  out.first = static_cast<uint64_t>((lane * s.heads + head) * s.queries) * out.row;
  return out;
}

AttentionHead head_of(const AttentionInputs& in, const AttentionSizes& s, const AttentionTables& t, int64_t lane,
                      int64_t head) {
  AttentionHead h{};
  h.queries = s.queries, h.memory = s.memory, h.keys = s.keys, h.width = s.width, h.padded = s.padded;
  h.half = s.half;
  h.q = rows_of(in.q, lane, head), h.k = rows_of(in.k, lane, head), h.value = rows_of(in.value, lane, head);
  h.lse = const_cast<float*>(in.lse.as<float>()) + (lane * s.heads + head) * s.queries;
  h.sigma = static_cast<float>(1.0 / std::sqrt(static_cast<double>(s.width)));
  const float* bias = t.biases + head * t.bias_floats;
  h.u = bias, h.v = bias + s.padded;
  if (in.segments) h.w = bias + 2 * s.padded, h.segments = bias + 3 * s.padded;
  h.r = t.rows + head * t.row_floats, h.r_panels = t.panels + head * t.panel_floats;
  h.r_bounds = t.bounds + head * t.bound_floats;
  h.shift = shift_of(in, s), h.phase = (s.memory + h.shift) % attention_panel;
  h.max_distance = in.mask.max_distance;
  if (const ConstTensor& start = in.mask.document_start; !start.empty()) {
    h.document_start = start.as<int32_t>() + lane * start.stride(1);
    h.document_stride = start.stride(0);
  }
  if (in.segments) {
    const ConstTensor &queries = in.segments.query_ids, &keys = in.segments.key_ids;
    h.query_ids = queries.as<uint8_t>() + lane * queries.stride(1), h.query_id_stride = queries.stride(0);
    h.key_ids = keys.as<uint8_t>() + lane * keys.stride(1), h.key_id_stride = keys.stride(0);
  }
  h.dropout = dropout_of(in.dropout, s, lane, head);
  h.topk = in.topk, h.pages = in.topk > 0 && in.topk_mode == TopkMode::block, h.words = s.words;
  if (in.topk > 0) {
    int64_t rows = h.pages ? (s.queries + 63) / 64 : s.queries;
    h.selected = const_cast<uint64_t*>(in.selected.as<uint64_t>()) + (lane * s.heads + head) * rows * s.words;
  }
  return h;
}

void CpuDevice::attention_forward(const AttentionForward& a) {
  AttentionInputs in{
      "attention_forward", a.q,    a.k,         a.value,          a.r,      a.u, a.v, a.lse, a.selected, a.mask,
      a.segments,          a.topk, a.topk_mode, a.first_position, a.dropout};
  AttentionSizes s = check_attention(in);
  check_like(in.operation, "out", a.out, {s.queries, s.lanes, s.heads, s.width}, s.half);
  const AttentionKernels& kernels = attention_kernels();
  AttentionTables tables = place_tables(s, static_cast<float*>(scratch(pool_.size(), AttentionTables::floats(s) * 4)));
  pool_.parallel_for(s.heads, [&](int64_t head, int) { pack_tables(in, s, tables, head); });
  // Every tile of queries stands alone; a task takes as many as leaves enough tasks, so that keys are packed rarely.
  int64_t tiles = (s.queries + 63) / 64, pairs = s.lanes * s.heads;
  int64_t parts = std::min((tiles + 1) / 2, std::max<int64_t>(1, 8 * pool_.size() / pairs));
  pool_.parallel_for(pairs * parts, [&](int64_t task, int thread) {
    int64_t pair = task / parts, part = parts - 1 - task % parts;
    AttentionHead h = head_of(in, s, tables, pair / s.heads, pair % s.heads);
    h.out = rows_of(a.out, pair / s.heads, pair % s.heads);
    int64_t first = tiles * part / parts * 64, last = std::min(tiles * (part + 1) / parts * 64, s.queries);
    kernels.forward(h, first, last, static_cast<float*>(scratch(thread, kernels.forward_scratch(h) * 4)));
  });
}

}  // namespace longhand::cpu
