// Relative attention in double: the parts that the rows of the forward pass, the backward pass and decoding share.
#pragma once

#include "tests/ops/operation.h"

namespace longhand::ops {

/// A case's sizes and arrays, looked up once.
///
/// Switches: distances (0 = K), same (max_distance + 1), docs (document starts), segments, dropout, topk, block, first
/// (first_position), packed (q, k and value are strided slices; 2: in
/// whole pieces of 16 bytes), sharp (scores beyond what exp can take),
/// ties (1: all scores of a row equal, 2: all of them +0 or -0).
struct AttentionCase {
  explicit AttentionCase(const Case& c);

  bool visible(int64_t b, int64_t i, int64_t j) const;
  int64_t distance(int64_t i, int64_t j) const { return std::min(i + M - j, distances - 1); }
  int64_t page(int64_t j) const { return (first + j) / 64 - first / 64; }
  int64_t pages() const { return page(K - 1) + 1; }
  int64_t segment(int64_t b, int64_t i, int64_t j) const { return query_ids(i, b) == key_ids(j, b) ? 0 : 1; }
  double dropped(int64_t b, int64_t h, int64_t i, int64_t j) const {
    return dropout ? dropout.factor(((b * H + h) * T + i) * ((K + 3) / 4 * 4) + j) : 1.0;
  }
  Shape mask_shape() const {
    return block ? Shape{B, H, (T + 63) / 64, (pages() + 63) / 64} : Shape{B, H, T, (K + 63) / 64};
  }

  const Case& c;
  int64_t T, M, K, B, H, dh, distances, topk, block, first, max_distance;
  double sigma;  // 1 / sqrt(dh)
  Dropout dropout;
  const Array &q, &k, &value, &r, &u, &v, &starts, &bias, &embedding, &query_ids, &key_ids;
};

/// Shapes of several tiles of 64 queries, keys and distances, in rows of whole 16-byte pieces.
void tiled_shapes(std::vector<Sizes>& list);
/// Small shapes of wide heads, so that a quick run has every kernel.
void wide_shapes(std::vector<Sizes>& list);

/// Declares and draws q, k, value, r, u, v and what the switches ask for.
void attention_inputs(Case& c, Random& random);

/// The scores a [B, H, T, K] of the visible keys; -infinity at the others.
Array attention_scores(const AttentionCase& a, const Fp64& f);

/// kept [B, H, T, K]: 1 where the key is visible and selected by `mask` ([B, H, T, words] or tiles of pages).
Array attention_kept(const AttentionCase& a, const Array& mask);

/// The mask that the documentation asks for, from scores in double: exact, or by page bounds.
Array attention_select(const AttentionCase& a, const Array& scores);

/// The value of every page for every tile [B, H, tiles, pages]: the largest bound over the tile's queries that see a
/// key of the page; -infinity where none does.
Array page_bounds(const AttentionCase& a);

/// out [T, B, H, dh] and lse [B, H, T] of the kept keys.
void attention_reference(const AttentionCase& a, const Array& scores, const Array& kept, const Fp64& f, Array& out,
                         Array& lse);

/// The arguments that forward and backward share.
template <class Arguments>
void fill_attention(Arguments& to, const AttentionCase& a, Bound& d) {
  to.q = d["q"], to.k = d["k"], to.value = d["value"], to.r = d["r"], to.u = d["u"], to.v = d["v"];
  to.mask = {.max_distance = a.max_distance, .document_start = d["document_start"]};
  to.segments = {.bias = d["segment_bias"],
                 .embedding = d["segment_embedding"],
                 .query_ids = d["query_ids"],
                 .key_ids = d["key_ids"]};
  to.topk = a.topk, to.topk_mode = a.block ? TopkMode::block : TopkMode::exact;
  to.first_position = a.first, to.dropout = a.dropout;
}

/// Pairs of (query, key) that the mask leaves, over lanes and heads: what the benchmark counts.
double attention_pairs(const Sizes& s);

}  // namespace longhand::ops
