// Which keys a tile of queries walks through: all that it sees, or the pages of 64 that it keeps (block top-k).
#pragma once

#include "src/device/cpu/kernels/attention_tile.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

/// The stretches of a tile, nearest last. kept: a bit a page, or null for every page in sight.
class Stretches {
 public:
  Stretches(const AttentionHead& h, const QueryTile& t, const uint64_t* kept, int64_t columns)
      : shift_(h.shift),
        tile_((t.lowest + h.shift) / attention_page),
        end_((t.highest + h.shift) / attention_page + 1),
        most_(columns / attention_page),
        kept_(kept) {
    skip();
  }

  bool next(Stretch& s) {
    if (tile_ >= end_) return false;
    int64_t first = tile_;
    while (tile_ < end_ && tile_ - first < most_ && keeps(tile_)) ++tile_;
    s.start = first * attention_page - shift_, s.columns = (tile_ - first) * attention_page;
    s.carried = carry_;
    s.carry = carry_ = tile_ < end_ && keeps(tile_);
    skip();
    return true;
  }

 private:
  bool keeps(int64_t tile) const { return !kept_ || (kept_[tile >> 6] >> (tile & 63) & 1); }
  void skip() {
    while (tile_ < end_ && !keeps(tile_)) ++tile_;
  }

  int64_t shift_, tile_, end_, most_;
  const uint64_t* kept_;
  bool carry_ = false;
};

LONGHAND_INLINE Stretch whole_stretch(const AttentionHead& h, const QueryTile& t) {
  int64_t first = (t.lowest + h.shift) / attention_page, last = (t.highest + h.shift) / attention_page + 1;
  return {first * attention_page - h.shift, (last - first) * attention_page, false, false};
}

/// Bounds of keys and distances by page, as matrices: max(q x) over x in [low, high] is max(q, 0) high + min(q, 0) low,
/// so that the bounds of a tile's queries are one product of depth 2 width.
struct PageState {
  float* keys;                   // [2 width, pages padded to 32]: high, then low
  float* distances;              // the same for R
  float* signs;                  // [64, 2 width]: max(q, 0), min(q, 0)
  float *by_page, *by_distance;  // [64, pages padded]
  float* page;                   // [2, padded]
  float* value;                  // [pages], of the candidates
  int32_t* candidate;
  int64_t pages, row;  // row: pages padded
};
int64_t page_scratch(const AttentionHead&);
void set_pages(const AttentionHead&, PageState&, float* scratch);
void pack_page_bounds(const AttentionHead&, PageState&, int64_t last_tile);
/// Sets the bits of the pages that the tile keeps. segment: two terms a query, or null.
void choose_pages(const AttentionHead&, PageState&, const QueryTile&, const float* qu, const float* qv,
                  const float* segment, uint64_t* kept);

}  // namespace attention
}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
