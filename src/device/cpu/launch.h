// What the launchers share: checks of shapes and types, division of work.
#pragma once

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "longhand/device.h"
#include "longhand/threads.h"
#include "src/device/checks.h"
#include "src/device/cpu/kernels/random.h"

namespace longhand::cpu {

inline RandomKey random_key(const RandomStream& s) {
  return {s.seed, s.layer << 16, static_cast<uint32_t>(s.step),
          static_cast<uint32_t>(s.use) << 24 | static_cast<uint32_t>(s.step >> 32 & 0xffffff)};
}

inline DropoutKey dropout_key(const Dropout& d, std::string_view operation) {
  if (!(d.rate >= 0 && d.rate < 1)) fail("{}: a dropout rate of {} is not in [0, 1)", operation, d.rate);
  return {random_key(d.stream), d.threshold(), d.scale(), d.rate > 0};
}

/// Work for one index of parallel_for: less costs more to hand out than to do. A multiple of 4: whole random blocks.
constexpr int64_t piece_elements = 16384;

/// work(first, count, thread) over [0, n) in pieces of `piece`; which thread takes a piece does not matter.
template <class Work>
void for_pieces(ThreadPool& pool, int64_t n, int64_t piece, const Work& work) {
  pool.parallel_for((n + piece - 1) / piece, [&](int64_t index, int thread) {
    work(index * piece, std::min(piece, n - index * piece), thread);
  });
}
/// work(first, count, thread) over [0, n) in pieces that shrink down to `least`: few at first, so that memory is read
/// in long stretches, and short at the end, so that no thread waits for another.
template <class Work>
void for_shrinking_pieces(ThreadPool& pool, int64_t n, int64_t least, const Work& work) {
  std::vector<int64_t> ends;
  for (int64_t at = 0; at < n; ends.push_back(at)) at = std::min(n, at + std::max(least, (n - at) / (2 * pool.size())));
  pool.parallel_for(static_cast<int64_t>(ends.size()), [&](int64_t index, int thread) {
    int64_t first = index > 0 ? ends[index - 1] : 0;
    work(first, ends[index] - first, thread);
  });
}
inline int64_t rows_per_piece(int64_t width) {
  return std::max<int64_t>(1, piece_elements / std::max<int64_t>(1, width));
}

/// Column sums run over fixed stripes of rows, whose partial sums are added in order: the bits depend on the number of
/// rows alone.
struct Stripes {
  int64_t rows, each, count;
  explicit Stripes(int64_t all_rows) : rows(all_rows) {
    each = std::max<int64_t>(16, (rows + 63) / 64);
    count = (rows + each - 1) / each;
  }
  int64_t first(int64_t stripe) const { return stripe * each; }
  int64_t size(int64_t stripe) const { return std::min(each, rows - stripe * each); }
};
inline int64_t padded(int64_t width) { return (width + 15) / 16 * 16; }

}  // namespace longhand::cpu
