// Relative attention's launchers: checks of a call, and the choice of its kernels.
//
// The tensor cores take bf16 with rows in 16-byte pieces (cuda/attention_mma*.cu); the general path takes everything
// else, fp32 among it (cuda/attention_forward.cu, attention_backward.cu). Both share the selection of keys
// (attention_topk.cu) and of pages (attention_pages.cu).
#include "cuda/attention.h"

#include <cmath>

#include "cuda/gpu_device.h"
#include "src/device/checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

void check_shape(const char* operation, const char* name, const ConstTensor& tensor, Dtype type, const Shape& shape) {
  if (tensor.type() != type || tensor.shape() != shape)
    fail("{}: {} is {} {}, it must be {} {}", operation, name, dtype_name(tensor.type()), tensor.shape().text(),
         dtype_name(type), shape.text());
}

void check_last_axis(const char* operation, const char* name, const ConstTensor& tensor) {
  int last = tensor.rank() - 1;
  if (tensor.size(last) > 1 && tensor.stride(last) != 1)
    fail("{}: the last axis of {} must be contiguous", operation, name);
}

/// Checks tensors one after the other and turns them into rows.
struct Gather {
  const char* operation;
  Attention a;
  Dtype type = Dtype::fp32;

  /// A tensor whose axes are some of position, lane and head, and width.
  HeadRows rows(const char* name, const ConstTensor& t, const Shape& shape, int position, int lane, int head) {
    check_shape(operation, name, t, type, shape);
    check_last_axis(operation, name, t);
    HeadRows rows{const_cast<void*>(t.data())};
    a.aligned = a.aligned && aligned16(t.data());
    for (auto [axis, stride] : {std::pair{position, &rows.position_stride}, std::pair{lane, &rows.lane_stride},
                                std::pair{head, &rows.head_stride}}) {
      if (axis < 0) continue;
      *stride = t.stride(axis);
      a.aligned = a.aligned && (t.size(axis) <= 1 || *stride * dtype_bytes(type) % 16 == 0);
    }
    return rows;
  }
  HeadRows query_rows(const char* name, const ConstTensor& t) {
    return rows(name, t, {a.queries, a.lanes, a.heads, a.width}, 0, 1, 2);
  }
  HeadRows key_rows(const char* name, const ConstTensor& t) {
    return rows(name, t, {a.keys, a.lanes, a.heads, a.width}, 0, 1, 2);
  }

  void sizes(const ConstTensor& q, const ConstTensor& k, const ConstTensor& r) {
    if (q.rank() != 4 || k.rank() != 4) fail("{}: q and k need four axes: positions, lanes, heads, width", operation);
    if (q.size(0) < 1 || q.size(1) < 1 || q.size(2) < 1 || q.size(3) < 1 || k.size(0) < q.size(0))
      fail("{}: q {} and k {} do not go together: K = M + T with T >= 1 and M >= 0", operation, q.shape().text(),
           k.shape().text());
    if (k.size(0) > 1 << 30 || q.size(1) > 65535 || q.size(2) > 65535)
      fail("{}: q {} and k {} are beyond 2^30 keys or 65535 lanes or heads", operation, q.shape().text(),
           k.shape().text());
    int64_t distances = r.rank() == 3 ? r.size(0) : 0;
    if (distances < 1 || distances > k.size(0))
      fail("{}: r {} must hold from 1 to {} distances", operation, r.shape().text(), k.size(0));
    a.half = float_index(q, operation, "q") == 1;
    type = q.type();
    a.queries = static_cast<int>(q.size(0)), a.lanes = static_cast<int>(q.size(1));
    a.heads = static_cast<int>(q.size(2)), a.width = static_cast<int>(q.size(3));
    a.keys = static_cast<int>(k.size(0)), a.memory = a.keys - a.queries, a.distances = static_cast<int>(distances);
    a.sigma = static_cast<float>(1.0 / std::sqrt(static_cast<double>(a.width)));
    a.aligned = a.width * dtype_bytes(type) % 16 == 0;
  }

  void mask(const AttentionMask& mask) {
    a.max_distance =
        mask.max_distance < 0 || mask.max_distance >= a.keys ? a.keys - 1 : static_cast<int>(mask.max_distance);
    const ConstTensor& start = mask.document_start;
    if (start.empty()) return;
    check_shape(operation, "document_start", start, Dtype::i32, {a.queries, a.lanes});
    a.document_start = start.as<int32_t>();
    a.document_position_stride = start.stride(0), a.document_lane_stride = start.stride(1);
  }

  void segments(const AttentionSegments& s) {
    if (!s) return;
    a.segment_bias = rows("the segment bias", s.bias, {a.heads, a.width}, -1, -1, 0);
    a.segment_table = rows("the segment embedding", s.embedding, {2, a.heads, a.width}, 0, -1, 1);
    check_shape(operation, "query_ids", s.query_ids, Dtype::u8, {a.queries, a.lanes});
    check_shape(operation, "key_ids", s.key_ids, Dtype::u8, {a.keys, a.lanes});
    a.query_ids = s.query_ids.as<uint8_t>(), a.key_ids = s.key_ids.as<uint8_t>();
    a.query_id_position_stride = s.query_ids.stride(0), a.query_id_lane_stride = s.query_ids.stride(1);
    a.key_id_position_stride = s.key_ids.stride(0), a.key_id_lane_stride = s.key_ids.stride(1);
  }

  void selection(const ConstTensor& selected, int64_t topk, TopkMode mode, int64_t first_position) {
    if (topk < 0) fail("{}: topk is {}", operation, topk);
    if (topk == 0) return;
    a.topk = topk, a.paged = mode == TopkMode::block;
    if (a.paged && first_position < 0) fail("{}: first_position is {}", operation, first_position);
    if (a.paged) a.page_shift = static_cast<int>(first_position % attention_page);
    a.words = a.paged ? (a.pages() + 63) / 64 : (a.keys + 63) / 64;
    check_shape(operation, "selected", selected, Dtype::u64,
                {a.lanes, a.heads, a.paged ? a.tiles() : a.queries, a.words});
    if (!selected.contiguous()) fail("{}: selected must be contiguous", operation);
    a.selected = const_cast<uint64_t*>(selected.as<uint64_t>());
  }

  /// What both passes have.
  template <class Call>
  void common(const Call& call) {
    sizes(call.q, call.k, call.r);
    a.q = query_rows("q", call.q), a.out = query_rows("out", call.out);
    a.k = key_rows("k", call.k), a.value = key_rows("value", call.value);
    a.r = rows("r", call.r, {a.distances, a.heads, a.width}, 0, -1, 1);
    a.u = rows("u", call.u, {a.heads, a.width}, -1, -1, 0);
    a.v = rows("v", call.v, {a.heads, a.width}, -1, -1, 0);
    check_shape(operation, "lse", call.lse, Dtype::fp32, {a.lanes, a.heads, a.queries});
    if (!call.lse.contiguous()) fail("{}: lse must be contiguous", operation);
    a.lse = const_cast<float*>(call.lse.template as<float>());
    mask(call.mask);
    segments(call.segments);
    selection(call.selected, call.topk, call.topk_mode, call.first_position);
    a.dropout = dropout_key(call.dropout, operation);
  }

  /// A gradient in fp32 or in the common type.
  void sum(const char* name, const Tensor& t, const Shape& shape, bool needed) {
    if (t.empty() && !needed) return;
    check_shape(operation, name, t, t.type() == Dtype::bf16 ? Dtype::bf16 : Dtype::fp32, shape);
    check_last_axis(operation, name, t);
  }
};

}  // namespace

Attention check_attention(const AttentionForward& call) {
  Gather gather{"attention_forward", {}};
  gather.common(call);
  return gather.a;
}

Attention check_attention(const AttentionBackward& call) {
  Gather gather{"attention_backward", {}};
  gather.common(call);
  Attention& a = gather.a;
  a.d_out = gather.query_rows("d_out", call.d_out), a.d_q = gather.query_rows("d_q", call.d_q);
  a.d_k = gather.key_rows("d_k", call.d_k), a.d_value = gather.key_rows("d_value", call.d_value);
  Shape head{a.heads, a.width};
  gather.sum("d_r", call.d_r, {a.distances, a.heads, a.width}, true);
  gather.sum("d_u", call.d_u, head, false);
  gather.sum("d_v", call.d_v, head, false);
  gather.sum("d_segment_bias", call.d_segment_bias, head, false);
  gather.sum("d_segment_embedding", call.d_segment_embedding, {2, a.heads, a.width}, false);
  return a;
}

void GpuDevice::attention_forward(const AttentionForward& call) {
  Attention a = check_attention(call);
  Operation operation(*this);
  if (a.paged) attention_choose_pages(a);
  if (attention_mma_takes(a))
    attention_forward_mma(a);
  else
    attention_forward_general(a);
}

void GpuDevice::attention_backward(const AttentionBackward& call) {
  Attention a = check_attention(call);
  Operation operation(*this);
  if (attention_backward_mma_takes(a))
    attention_backward_mma(a, call);
  else
    attention_backward_general(a, call);
}

}  // namespace longhand::LONGHAND_GPU
