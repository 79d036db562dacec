#include <cmath>

#include "src/device/cpu/attention.h"
#include "src/device/cpu/kernels/elementwise.h"
#include "src/device/cpu/kernels/quantized.h"
#include "src/device/cpu/kernels/ring.h"
#include "src/device/ring_checks.h"

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
void check_places(const char* operation, const Operation& a, int64_t sequences) {
  for (int64_t i = 0; i < a.position.elements(); ++i) {
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

RingType ring_type(const ConstTensor& t) {
  return t.type() == Dtype::fp32 ? RingType::fp32 : t.type() == Dtype::bf16 ? RingType::bf16 : RingType::i8;
}

/// Rows along `row_axis` of one head, `first` elements into a tensor whose heads are the axis after it.
HeadRows head_rows(const ConstTensor& t, int64_t first, int64_t head, int row_axis) {
  if (t.empty()) return {};
  return {const_cast<void*>(element(t, first + head * t.stride(row_axis + 1))), t.stride(row_axis)};
}
HeadRows ring_rows(const ConstTensor& t, int64_t sequence, int64_t head) {
  return t.empty() ? HeadRows{} : head_rows(t, sequence * t.stride(0), head, 1);
}

}  // namespace

void CpuDevice::attention_decode(const AttentionDecode& a) {
  check_attention_decode(a);
  int64_t n = a.q.size(0), heads = a.q.size(1), width = a.q.size(2), padded = (width + 15) / 16 * 16;
  bool half = a.q.type() == Dtype::bf16, pages = a.topk > 0 && a.topk_mode == TopkMode::block;
  check_places("attention_decode", a, a.keys.size(0));
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
    DecodeHead d{.q = head_rows(a.q, g.first * a.q.stride(0), h, 0),
                 .out = head_rows(a.out, g.first * a.out.stride(0), h, 0),
                 .keys = ring_rows(a.keys, sequence, h),
                 .values = ring_rows(a.values, sequence, h),
                 .r = head_rows(a.r, 0, h, 0),
                 .key_scales = ring_rows(a.key_scales, sequence, h),
                 .value_scales = ring_rows(a.value_scales, sequence, h),
                 .r_scales = head_rows(a.r_scales, 0, h, 0),
                 .key_bounds = ring_rows(a.key_bounds, sequence, h),
                 .r_bounds = head_rows(a.r_bounds, 0, h, 0),
                 .slots = a.keys.size(1),
                 .distances = a.r.size(0),
                 .groups = pages ? a.r_bounds.size(0) / 2 : 0,
                 .width = width,
                 .padded = padded,
                 .window = a.window,
                 .topk = a.topk,
                 .pages = pages,
                 .position = position[g.first],
                 .count = g.count,
                 .half = half,
                 .ring = ring_type(a.keys),
                 .u = biases + 2 * h * padded,
                 .v = biases + (2 * h + 1) * padded,
                 .sigma = static_cast<float>(1.0 / std::sqrt(static_cast<double>(width)))};
    decode_kernels().decode(d, static_cast<float*>(scratch(thread, decode_kernels().scratch(d) * 4)));
  });
}

void CpuDevice::ring_store(const RingStore& a) {
  check_ring_store(a);
  check_places("ring_store", a, a.keys.size(0));
  int64_t n = a.k.size(0), heads = a.k.size(1), width = a.k.size(2), slots = a.keys.size(1);
  bool half = a.k.type() == Dtype::bf16;
  auto put = [&](const Tensor& ring, const Tensor& scales, const ConstTensor& rows, int64_t i) {
    int64_t slot = a.position.as<int64_t>()[i] % slots, sequence = a.sequence.as<int32_t>()[i];
    for (int64_t h = 0; h < heads; ++h) {
      void* to = element(ring, sequence * ring.stride(0) + slot * ring.stride(1) + h * ring.stride(2));
      const void* from = element(rows, i * rows.stride(0) + h * rows.stride(1));
      if (ring.type() == Dtype::i8)
        quantized_kernels().quantize(
            from, half, width, false, to,
            element(scales, sequence * scales.stride(0) + slot * scales.stride(1) + h * scales.stride(2)), false);
      else
        elementwise_kernels().cast[half][ring.type() == Dtype::bf16](from, to, 0, width);
    }
  };
  auto store = [&](int64_t i, int) { put(a.keys, a.key_scales, a.k, i), put(a.values, a.value_scales, a.value, i); };
  pool_.parallel_for(n, store);
}

void CpuDevice::page_bounds(const PageBounds& a) {
  check_page_bounds(a);
  int64_t sequences = a.rows.size(0), slots = a.rows.size(1), heads = a.rows.size(2), pages = a.bounds.size(1) / 2;
  struct Page {
    int64_t sequence, index;
  };
  std::vector<Page> wanted;
  if (a.position) {
    check_places("page_bounds", a, sequences);
    for (int64_t i = 0; i < a.position.elements(); ++i) {
      int64_t position = a.position.as<int64_t>()[i];
      if (position % page_rows == page_rows - 1)
        wanted.push_back({a.sequence.as<int32_t>()[i], position % slots / page_rows});
    }
  } else {
    for (int64_t s = 0; s < sequences; ++s)
      for (int64_t p = 0; p < pages; ++p) wanted.push_back({s, p});
  }
  pool_.parallel_for(static_cast<int64_t>(wanted.size()) * heads, [&](int64_t task, int) {
    Page page = wanted[task / heads];
    int64_t h = task % heads, first = std::min(page.index * page_rows, slots - 1);
    auto from = [&](const ConstTensor& t) {
      return t.empty() ? HeadRows{} : head_rows(t, page.sequence * t.stride(0) + first * t.stride(1), h, 1);
    };
    auto bound = [&](int64_t row) {
      return static_cast<float*>(
          element(a.bounds, page.sequence * a.bounds.stride(0) + row * a.bounds.stride(1) + h * a.bounds.stride(2)));
    };
    ring_kernels().bounds(from(a.rows), from(a.scales), ring_type(a.rows), std::min(page_rows, slots - first),
                          a.rows.size(3), bound(2 * page.index), bound(2 * page.index + 1));
  });
}

}  // namespace longhand::cpu
