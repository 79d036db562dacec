#include "src/device/cpu/attention.h"

namespace longhand::cpu {
namespace {

// A task is a part of one head's work: some lanes, or some query tiles of one lane, at least four of them, so that
// packing the keys and joining the parts stay small. The division depends on the shapes alone and the parts add in
// order, so the bits do not depend on the number of threads.
struct Division {
  int64_t groups, parts;  // groups of lanes a head; parts of the queries of one lane (1 unless groups = lanes)
};

Division divide(const AttentionSizes& s) {
  constexpr int64_t wanted = 16;
  int64_t most = std::max<int64_t>(1, (s.queries + 63) / 64 / 4);
  Division d;
  d.groups = std::min(s.lanes, std::max<int64_t>(1, wanted / s.heads));
  d.parts = d.groups < s.lanes ? 1 : std::min(most, std::max<int64_t>(1, wanted / (s.heads * s.lanes)));
  return d;
}

// fp32 partial sums: of R and the biases for each task; of K and V for each part of a lane when there are several.
struct Partials {
  float *d_r, *small, *d_keys;
  int64_t r_floats, small_floats, key_floats;  // of one task
  static int64_t key_rows(const AttentionSizes& s) { return (s.keys + 63 + 63) / 64 * 64; }
};

Partials partial_sizes(const AttentionSizes& s) {
  Partials p{};
  p.r_floats = (s.keys + attention_r_margin) * s.padded;
  p.small_floats = 5 * s.padded;
  p.key_floats = 2 * Partials::key_rows(s) * s.padded;
  return p;
}

struct Backward {
  const AttentionBackward& a;
  const AttentionInputs& in;
  AttentionSizes s;
  Division division;
  AttentionTables tables;
  Partials partials;

  int64_t tasks_per_head() const { return division.groups * division.parts; }

  AttentionGradients gradients(int64_t task, float* keys) const {
    float* small = partials.small + task * partials.small_floats;
    return {.d_k = keys,
            .d_value = keys + partials.key_floats / 2,
            .d_r = partials.d_r + task * partials.r_floats,
            .d_u = small,
            .d_v = small + s.padded,
            .d_segment_bias = small + 2 * s.padded,
            .d_segment_rows = small + 3 * s.padded};
  }

  AttentionHead head(int64_t lane, int64_t head) const {
    AttentionHead h = head_of(in, s, tables, lane, head);
    h.out = rows_of(a.out, lane, head), h.d_out = rows_of(a.d_out, lane, head), h.d_q = rows_of(a.d_q, lane, head);
    h.d_k = rows_of(a.d_k, lane, head), h.d_value = rows_of(a.d_value, lane, head);
    return h;
  }

  void write_keys(const AttentionHead& h, const float* keys) const {
    const AttentionKernels& kernels = attention_kernels();
    kernels.write_rows(h, h.d_k, s.keys, keys + h.shift * s.padded);
    kernels.write_rows(h, h.d_value, s.keys, keys + partials.key_floats / 2 + h.shift * s.padded);
  }

  // thread_keys: this thread's room for d_k and d_value; scratch behind it.
  void run(int64_t task, float* thread_keys) const {
    int64_t head_index = task / tasks_per_head(), group = task % tasks_per_head() / division.parts;
    int64_t part = task % division.parts, tiles = (s.queries + 63) / 64;
    int64_t first = tiles * part / division.parts * 64;
    int64_t last = std::min(tiles * (part + 1) / division.parts * 64, s.queries);
    float* keys = division.parts > 1 ? partials.d_keys + task * partials.key_floats : thread_keys;
    AttentionGradients d = gradients(task, keys);
    std::fill_n(d.d_r, partials.r_floats, 0.0f);
    std::fill_n(d.d_u, partials.small_floats, 0.0f);
    for (int64_t lane = s.lanes * group / division.groups; lane < s.lanes * (group + 1) / division.groups; ++lane) {
      AttentionHead h = head(lane, head_index);
      std::fill_n(keys, partials.key_floats, 0.0f);
      attention_kernels().backward(h, first, last, d, thread_keys + partials.key_floats);
      if (division.parts == 1) write_keys(h, keys);
    }
  }

  // d_k and d_value of one lane and head out of its parts.
  void join_keys(int64_t head_index, int64_t lane) const {
    float* keys = partials.d_keys + (head_index * s.lanes + lane) * division.parts * partials.key_floats;
    for (int64_t part = 1; part < division.parts; ++part)
      attention_kernels().add(keys, keys + part * partials.key_floats, partials.key_floats);
    write_keys(head(lane, head_index), keys);
  }

  // d_r of one head out of its tasks; the rows that the clamp joined add up.
  void join_distances(int64_t head_index) const {
    const AttentionKernels& kernels = attention_kernels();
    float* sum = partials.d_r + head_index * tasks_per_head() * partials.r_floats;
    for (int64_t task = 1; task < tasks_per_head(); ++task)
      kernels.add(sum, sum + task * partials.r_floats, partials.r_floats);
    for (int64_t d = s.distances; d < s.keys; ++d)
      kernels.add(sum + (s.distances - 1) * s.padded, sum + d * s.padded, s.padded);
    AttentionHead h{};
    h.width = s.width, h.padded = s.padded, h.half = a.d_r.type() == Dtype::bf16;
    char* to = static_cast<char*>(a.d_r.data()) + head_index * a.d_r.stride(1) * dtype_bytes(a.d_r.type());
    kernels.write_rows(h, {to, a.d_r.stride(0)}, s.distances, sum);
  }

  // to [..., width] += the tasks' sums of one small vector of one head.
  void join_small(const Tensor& to, int64_t offset, int64_t head_index, int64_t which) const {
    if (to.empty()) return;
    for (int64_t c = 0; c < s.width; ++c) {
      float sum = 0;
      for (int64_t task = 0; task < tasks_per_head(); ++task)
        sum += partials.small[(head_index * tasks_per_head() + task) * partials.small_floats + which * s.padded + c];
      if (to.type() == Dtype::bf16) {
        bf16& x = to.as<bf16>()[offset + c];
        x = bf16(static_cast<float>(x) + sum);
      } else {
        to.as<float>()[offset + c] += sum;
      }
    }
  }
};

void check_small(const char* operation, const char* name, const Tensor& tensor, const Shape& shape) {
  if (!tensor.empty()) check_like(operation, name, tensor, shape, tensor.type() == Dtype::bf16);
}

void check_gradients(const AttentionBackward& a, const AttentionInputs& in, const AttentionSizes& s) {
  const char* op = in.operation;
  Shape queries{s.queries, s.lanes, s.heads, s.width}, keys{s.keys, s.lanes, s.heads, s.width};
  check_like(op, "out", a.out, queries, s.half);
  check_like(op, "d_out", a.d_out, queries, s.half);
  check_like(op, "d_q", a.d_q, queries, s.half);
  check_like(op, "d_k", a.d_k, keys, s.half);
  check_like(op, "d_value", a.d_value, keys, s.half);
  check_like(op, "d_r", a.d_r, {s.distances, s.heads, s.width}, a.d_r.type() == Dtype::bf16);
  check_small(op, "d_u", a.d_u, {s.heads, s.width});
  check_small(op, "d_v", a.d_v, {s.heads, s.width});
  check_small(op, "d_segment_bias", a.d_segment_bias, {s.heads, s.width});
  check_small(op, "d_segment_embedding", a.d_segment_embedding, {2, s.heads, s.width});
}

}  // namespace

void CpuDevice::attention_backward(const AttentionBackward& a) {
  AttentionInputs in{
      "attention_backward", a.q,    a.k,         a.value,          a.r,      a.u, a.v, a.lse, a.selected, a.mask,
      a.segments,           a.topk, a.topk_mode, a.first_position, a.dropout};
  AttentionSizes s = check_attention(in);
  check_gradients(a, in, s);
  Backward work{a, in, s, divide(s), {}, partial_sizes(s)};
  Partials& p = work.partials;
  int64_t tasks = s.heads * work.tasks_per_head(), tables = AttentionTables::floats(s);
  int64_t keys = work.division.parts > 1 ? tasks * p.key_floats : 0;
  float* memory =
      static_cast<float*>(scratch(pool_.size(), (tables + tasks * (p.r_floats + p.small_floats) + keys) * 4));
  work.tables = place_tables(s, memory);
  p.d_r = memory + tables, p.d_keys = p.d_r + tasks * p.r_floats, p.small = p.d_keys + keys;
  pool_.parallel_for(s.heads, [&](int64_t head, int) { pack_tables(in, s, work.tables, head); });
  pool_.parallel_for(tasks, [&](int64_t task, int thread) {
    int64_t floats = p.key_floats + attention_kernels().backward_scratch(work.head(0, 0));
    work.run(task, static_cast<float*>(scratch(thread, floats * 4)));
  });
  if (work.division.parts > 1)
    pool_.parallel_for(s.heads * s.lanes, [&](int64_t i, int) { work.join_keys(i / s.lanes, i % s.lanes); });
  pool_.parallel_for(s.heads, [&](int64_t head, int) {
    work.join_distances(head);
    auto offset = [&](const Tensor& t, int axis) { return t.empty() ? 0 : head * t.stride(axis); };
    work.join_small(a.d_u, offset(a.d_u, 0), head, 0);
    work.join_small(a.d_v, offset(a.d_v, 0), head, 1);
    work.join_small(a.d_segment_bias, offset(a.d_segment_bias, 0), head, 2);
    for (int e = 0; e < 2; ++e)
      work.join_small(
          a.d_segment_embedding,
          offset(a.d_segment_embedding, 1) + (a.d_segment_embedding.empty() ? 0 : e * a.d_segment_embedding.stride(0)),
          head, 3 + e);
  });
}

}  // namespace longhand::cpu
