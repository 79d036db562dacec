#include "src/device/cpu/kernels/attention_pages.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {
namespace attention {

constexpr int64_t tile_rows = 64;

static int64_t page_count(const AttentionHead& h) { return (h.keys + h.shift + attention_page - 1) / attention_page; }

int64_t page_scratch(const AttentionHead& h) {
  if (!h.pages) return 0;
  int64_t row = round_up(page_count(h), 32);
  return 4 * h.width * row + 2 * tile_rows * h.width + 2 * tile_rows * row + 2 * h.padded + 2 * row;
}

void set_pages(const AttentionHead& h, PageState& p, float* scratch) {
  auto take = [&](int64_t n) { return scratch += n, scratch - n; };
  p.pages = page_count(h), p.row = round_up(p.pages, 32);
  p.by_page = take(tile_rows * p.row), p.by_distance = take(tile_rows * p.row);
  p.keys = take(2 * h.width * p.row), p.distances = take(2 * h.width * p.row);
  p.page = take(2 * h.padded), p.value = take(p.row), p.candidate = reinterpret_cast<int32_t*>(take(p.row)),
  p.signs = take(2 * tile_rows * h.width);
}

static void put_bounds(const AttentionHead& h, float* matrix, int64_t row, int64_t page, const float* bounds) {
  for (int64_t c = 0; c < h.width; ++c) {
    matrix[c * row + page] = bounds[h.padded + c];
    matrix[(h.width + c) * row + page] = bounds[c];
  }
}

void pack_page_bounds(const AttentionHead& h, PageState& p, int64_t last_tile) {
  __builtin_memset(p.keys, 0, 2 * h.width * p.row * 4);
  __builtin_memset(p.distances, 0, 2 * h.width * p.row * 4);
  float* rows = p.by_page;  // room for at least one page of rows
  for (int64_t page = 0; page < last_tile; ++page) {
    int64_t first = most(page * attention_page - h.shift, 0);
    int64_t last = least((page + 1) * attention_page - h.shift, h.keys);
    float* low_high = p.page;
    for (int64_t j = first; j < last; ++j) {
      pack_rows(h, rows, h.k, j, 1, nullptr, 1);
      for (int64_t c = 0; c < h.padded; c += lanes) {
        vec x = load(rows + c);
        store(low_high + c, j == first ? x : minimum(load(low_high + c), x));
        store(low_high + h.padded + c, j == first ? x : maximum(load(low_high + h.padded + c), x));
      }
    }
    put_bounds(h, p.keys, p.row, page, low_high);
  }
  for (int64_t page = 0; page * attention_page < h.keys; ++page)
    put_bounds(h, p.distances, p.row, page, h.r_bounds + page * 2 * h.padded);
}

static void bounds_of(const AttentionHead& h, PageState& p, const float* q, int64_t rows, const float* matrix,
                      float* out) {
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t c = 0; c < h.width; ++c) {
      float x = q[i * h.padded + c];
      p.signs[i * 2 * h.width + c] = x > 0 ? x : 0, p.signs[(2 * i + 1) * h.width + c] = x > 0 ? 0 : x;
    }
  multiply({.rows = rows,
            .columns = p.row,
            .depth = 2 * h.width,
            .a = p.signs,
            .a_row = 2 * h.width,
            .a_step = 1,
            .b = matrix,
            .b_row = p.row,
            .c = out,
            .c_row = p.row,
            .add = false});
}

// The largest bound of a page over the tile's queries that see some of it; false when none does.
static bool page_value(const AttentionHead& h, const PageState& p, const QueryTile& t, const float* segment,
                       int64_t page, float& value) {
  int64_t first = most(page * attention_page - h.shift, 0);
  int64_t last = least((page + 1) * attention_page - h.shift, h.keys) - 1;
  bool seen = false;
  for (int64_t i = 0; i < t.rows; ++i) {
    if (t.low[i] > last || t.high[i] < first) continue;
    int64_t near = most(t.high[i] - last, 0), far = t.high[i] - most(first, t.low[i]);
    const float* by_distance = p.by_distance + i * p.row;
    float position = by_distance[near / attention_page];
    for (int64_t e = near / attention_page + 1; e <= far / attention_page; ++e)
      position = by_distance[e] > position ? by_distance[e] : position;
    float bound = p.by_page[i * p.row + page] + position;
    if (segment) bound += segment[2 * i] > segment[2 * i + 1] ? segment[2 * i] : segment[2 * i + 1];
    value = !seen || bound > value ? bound : value;
    seen = true;
  }
  return seen;
}

void choose_pages(const AttentionHead& h, PageState& p, const QueryTile& t, const float* qu, const float* qv,
                  const float* segment, uint64_t* kept) {
  __builtin_memset(kept, 0, h.words * 8);
  auto keep = [&](int64_t page) { kept[page >> 6] |= uint64_t{1} << (page & 63); };
  int64_t own = (t.highest + h.shift) / attention_page;
  int64_t budget = (h.topk + attention_page - 1) / attention_page - 1;
  keep(own);
  if (own > 0) keep(own - 1), --budget;
  if (budget <= 0 || own < 2) return;
  bounds_of(h, p, qu, t.rows, p.keys, p.by_page);
  bounds_of(h, p, qv, t.rows, p.distances, p.by_distance);
  // Candidates are listed, so that a page leaves the list once it is kept.
  int64_t candidates = 0;
  for (int64_t page = (t.lowest + h.shift) / attention_page; page < own - 1; ++page)
    if (page_value(h, p, t, segment, page, p.value[candidates])) p.candidate[candidates++] = static_cast<int32_t>(page);
  for (; budget > 0 && candidates > 0; --budget) {
    int64_t best = candidates - 1;
    for (int64_t c = best - 1; c >= 0; --c)
      if (p.value[c] > p.value[best]) best = c;
    keep(p.candidate[best]);
    for (--candidates; best < candidates; ++best)
      p.value[best] = p.value[best + 1], p.candidate[best] = p.candidate[best + 1];
  }
}

}  // namespace attention
}  // namespace LONGHAND_ISA
}  // namespace longhand::cpu
