#include <cmath>
#include <cstring>

#include "src/device/cpu/attention.h"

namespace longhand::cpu {
namespace {

struct Group {
  int64_t first, count;
};

// Neighbouring queries at consecutive positions of one sequence, up to decode_group at a time.
std::vector<Group> group_queries(const int64_t* position, const int32_t* sequence, int64_t n) {
  std::vector<Group> groups;
  for (int64_t i = 0; i < n; ++i) {
    if (!groups.empty()) {
      Group& last = groups.back();
      if (last.count < decode_group && sequence[i] == sequence[i - 1] && position[i] == position[i - 1] + 1) {
        ++last.count;
        continue;
      }
    }
    groups.push_back({i, 1});
  }
  return groups;
}

template <class Operation>
void check_places(const char* operation, const Operation& a, int64_t n, int64_t sequences) {
  if (a.position.type() != Dtype::i64 || a.position.shape() != Shape{n} || !a.position.contiguous())
    fail("{}: position is {} {}, it must be i64 [{}]", operation, dtype_name(a.position.type()),
         a.position.shape().text(), n);
  if (a.sequence.type() != Dtype::i32 || a.sequence.shape() != Shape{n} || !a.sequence.contiguous())
    fail("{}: sequence is {} {}, it must be i32 [{}]", operation, dtype_name(a.sequence.type()),
         a.sequence.shape().text(), n);
  for (int64_t i = 0; i < n; ++i) {
    int64_t position = a.position.template as<int64_t>()[i], sequence = a.sequence.template as<int32_t>()[i];
    if (position < 0 || sequence < 0 || sequence >= sequences)
      fail("{}: row {} stands at position {} of sequence {}, there are {} sequences", operation, i, position, sequence,
           sequences);
  }
}

template <class Void>
Void* element(const View<Void>& t, int64_t offset) {
  return static_cast<typename View<Void>::template Like<char>*>(t.data()) + offset * dtype_bytes(t.type());
}

}  // namespace

void CpuDevice::attention_decode(const AttentionDecode& a) {
  const char* op = "attention_decode";
  if (a.q.rank() != 3 || a.keys.rank() != 4 || a.r.rank() != 3)
    fail("{}: q [N, H, dh], keys [S, slots, H, dh] and r [distances, H, dh] are needed", op);
  int64_t n = a.q.size(0), heads = a.q.size(1), width = a.q.size(2), padded = (width + 15) / 16 * 16;
  int64_t sequences = a.keys.size(0), slots = a.keys.size(1);
  bool half = a.q.type() == Dtype::bf16;
  check_like(op, "q", a.q, {n, heads, width}, half);
  check_like(op, "out", a.out, {n, heads, width}, half);
  check_like(op, "keys", a.keys, {sequences, slots, heads, width}, half);
  check_like(op, "values", a.values, {sequences, slots, heads, width}, half);
  check_like(op, "r", a.r, {a.r.size(0), heads, width}, half);
  check_like(op, "u", a.u, {heads, width}, half);
  check_like(op, "v", a.v, {heads, width}, half);
  check_places(op, a, n, sequences);
  if (a.window < 1 || a.window > slots || a.topk < 0 || a.r.size(0) < 1)
    fail("{}: window {} (1 to {} slots), topk {}, {} distances", op, a.window, slots, a.topk, a.r.size(0));
  const int64_t* position = a.position.as<int64_t>();
  std::vector<Group> groups = group_queries(position, a.sequence.as<int32_t>(), n);
  float* biases = static_cast<float*>(scratch(pool_.size(), 2 * heads * padded * 4));
  std::fill_n(biases, 2 * heads * padded, 0.0f);
  for (int64_t h = 0; h < heads; ++h) {
    attention_kernels().to_float(biases + 2 * h * padded, element(a.u, h * a.u.stride(0)), half, width);
    attention_kernels().to_float(biases + (2 * h + 1) * padded, element(a.v, h * a.v.stride(0)), half, width);
  }
  pool_.parallel_for(static_cast<int64_t>(groups.size()) * heads, [&](int64_t task, int thread) {
    Group g = groups[task / heads];
    int64_t h = task % heads, sequence = a.sequence.as<int32_t>()[g.first];
    auto rows = [&](const ConstTensor& t, int64_t first, int row_axis) -> HeadRows {
      return {const_cast<void*>(element(t, first + h * t.stride(row_axis + 1))), t.stride(row_axis)};
    };
    DecodeHead d{.q = rows(a.q, g.first * a.q.stride(0), 0),
                 .out = rows(a.out, g.first * a.out.stride(0), 0),
                 .keys = rows(a.keys, sequence * a.keys.stride(0), 1),
                 .values = rows(a.values, sequence * a.values.stride(0), 1),
                 .r = rows(a.r, 0, 0),
                 .slots = slots,
                 .distances = a.r.size(0),
                 .width = width,
                 .padded = padded,
                 .window = a.window,
                 .topk = a.topk,
                 .position = position[g.first],
                 .count = g.count,
                 .half = half,
                 .u = biases + 2 * h * padded,
                 .v = biases + (2 * h + 1) * padded,
                 .sigma = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)))};
    decode_kernels().decode(d, static_cast<float*>(scratch(thread, decode_kernels().scratch(d) * 4)));
  });
}

void CpuDevice::ring_store(const RingStore& a) {
  const char* op = "ring_store";
  if (a.k.rank() != 3 || a.keys.rank() != 4) fail("{}: k [N, H, dh] and keys [S, slots, H, dh] are needed", op);
  int64_t n = a.k.size(0), heads = a.k.size(1), width = a.k.size(2), slots = a.keys.size(1);
  bool half = a.k.type() == Dtype::bf16;
  check_like(op, "k", a.k, {n, heads, width}, half);
  check_like(op, "value", a.value, {n, heads, width}, half);
  check_like(op, "keys", a.keys, {a.keys.size(0), slots, heads, width}, half);
  check_like(op, "values", a.values, {a.keys.size(0), slots, heads, width}, half);
  check_places(op, a, n, a.keys.size(0));
  auto put = [&](const Tensor& ring, const ConstTensor& rows, int64_t i) {
    int64_t slot = a.position.as<int64_t>()[i] % slots, sequence = a.sequence.as<int32_t>()[i];
    for (int64_t h = 0; h < heads; ++h)
      std::memcpy(element(ring, sequence * ring.stride(0) + slot * ring.stride(1) + h * ring.stride(2)),
                  element(rows, i * rows.stride(0) + h * rows.stride(1)), width * dtype_bytes(ring.type()));
  };
  for (int64_t i = 0; i < n; ++i) put(a.keys, a.k, i), put(a.values, a.value, i);
}

}  // namespace longhand::cpu
