// Panels and tiles of the matrix product.
//
// A panel holds, for every step along k, the words of its rows side by side: word (p, r) at p * width + r. A tile is
// R rows by two vectors of columns, its sums in registers: a step reads two vectors of b and broadcasts R words of a.
#include "src/device/cpu/kernels/matmul.h"

#include <type_traits>

#include "src/device/cpu/kernels/fp16.h"
#include "src/device/cpu/kernels/matmul_epilogue.h"
#include "src/device/cpu/kernels/matmul_lanes.h"
#include "src/device/cpu/kernels/simd.h"
#include "src/device/cpu/kernels/transpose.h"

namespace longhand::cpu {
inline namespace LONGHAND_ISA {

/// Pairs of bf16 as words: rows of odd length start at any even address.
typedef uint32_t pair_unaligned __attribute__((vector_size(lanes * 4), aligned(2), may_alias));
namespace {

// A panel of a is never wider than one vector (pack relies on it); the sums leave registers for one step's operands.
#if defined(__AVX512F__)
constexpr int tile_rows = 14;
#elif defined(__AVX2__)
constexpr int tile_rows = 6;
#else
constexpr int tile_rows = 4;
#endif

struct Pair {
  half low, high;
};
LONGHAND_INLINE uvec words(const float* p) { return (uvec)load(p); }
LONGHAND_INLINE uvec words(const half* p) { return (uvec)load(p); }
LONGHAND_INLINE uvec words(const fp16* p) { return (uvec)load(p); }
LONGHAND_INLINE uvec words(const Pair* p) { return *reinterpret_cast<const pair_unaligned*>(p); }
LONGHAND_INLINE uint32_t word(const float* p) {
  uint32_t bits;
  __builtin_memcpy(&bits, p, 4);
  return bits;
}
LONGHAND_INLINE uint32_t word(const half* p) { return static_cast<uint32_t>(p->bits) << 16; }
LONGHAND_INLINE uint32_t word(const fp16* p) {
  float x = load_part(p, 1)[0];
  return word(&x);
}
LONGHAND_INLINE uint32_t word(const Pair* p) { return p->low.bits | static_cast<uint32_t>(p->high.bits) << 16; }

/// The first n words; the others are 0.
template <class T>
LONGHAND_INLINE uvec words_part(const T* p, int64_t n) {
  uint32_t part[lanes] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = word(p + i);
  return *reinterpret_cast<const pair_unaligned*>(part);
}

// Where a vector of rows hangs over the panel's width it writes into the next step, which is written after it; panels
// have room for that behind their last step. By lanes the next step may have been written before.
LONGHAND_INLINE void put_step(uint32_t* at, uvec x, [[maybe_unused]] int64_t room, bool by_lanes) {
  if (by_lanes && room < lanes)
    store_part(reinterpret_cast<float*>(at), (vec)x, room);
  else
    *reinterpret_cast<pair_unaligned*>(at) = x;
}

/// Where the step of element p lies in a panel.
LONGHAND_INLINE int64_t step_of(const MatmulStrip& s, int64_t p) {
  return s.by_lanes ? p % lanes * lane_steps(s.k) + p / lanes : p;
}

template <class T>
void pack_rows(uint32_t* to, const MatmulStrip& s, int64_t steps) {
  constexpr int64_t elements = std::is_same_v<T, Pair> ? 2 : 1, bytes = sizeof(T) / elements;
  const char* from = static_cast<const char*>(s.from);
  for (int64_t p = 0; p < steps; p += lanes) {
    int64_t here = steps - p < lanes ? steps - p : lanes;
    for (int r0 = 0; r0 < s.width; r0 += lanes) {
      uvec x[lanes];
#pragma GCC unroll 16
      for (int r = 0; r < lanes; ++r) {
        const T* row = reinterpret_cast<const T*>(from + s.at(r0 + r, p * elements) * bytes);
        x[r] = r0 + r >= s.rows ? uvec{} : here == lanes ? words(row) : words_part(row, here);
      }
      transpose(x);
      uint32_t* at = to + (s.by_lanes ? p / lanes : p) * s.width + r0;
      int64_t step = s.by_lanes ? lane_steps(s.k) * s.width : s.width;
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        if (i < here || s.by_lanes) put_step(at, x[i], s.width - r0, s.by_lanes);
        at += step;
      }
    }
  }
}

LONGHAND_INLINE uvec two_rows(const half* low, const half* high) {
  return widen(reinterpret_cast<const hvec_unaligned*>(low)) | widen(reinterpret_cast<const hvec_unaligned*>(high))
                                                                   << 16;
}

void pack_columns(uint32_t* to, const MatmulStrip& s, int64_t first, const half* from, bool pairs) {
  const half zero[lanes] = {};
  int64_t p = 0;
  for (int64_t step = 0; p < s.k; ++step) {
    const half* low = from + p * s.stride;
    ++p;
    bool odd_end = pairs && p == s.k;
    const half* high = low + s.stride;
    if (pairs) ++p;
    for (int r0 = 0; r0 < s.width; r0 += lanes) {
      uvec x{};
      if (r0 + lanes <= first) {
        x = pairs ? two_rows(low + r0, odd_end ? zero : high + r0) : words(low + r0);
      } else if (r0 < s.rows) {
        uint32_t part[lanes] = {};
        for (int r = r0; r < s.rows && r < r0 + lanes; ++r)
          part[r - r0] = pairs ? low[r].bits | static_cast<uint32_t>(odd_end ? 0 : high[r].bits) << 16 : word(low + r);
        x = *reinterpret_cast<const pair_unaligned*>(part);
      }
      put_step(to + step_of(s, step) * s.width + r0, x, s.width - r0, s.by_lanes);
    }
  }
}

void pack_columns(uint32_t* to, const MatmulStrip& s, int64_t first, const float* from) {
  for (int64_t p = 0; p < s.k; ++p, from += s.stride)
    for (int r0 = 0; r0 < s.width; r0 += lanes) {
      uvec x{};
      if (r0 + lanes <= first)
        x = words(from + r0);
      else if (r0 < s.rows)
        x = words_part(from + r0, s.rows - r0 < lanes ? s.rows - r0 : lanes);
      put_step(to + step_of(s, p) * s.width + r0, x, s.width - r0, s.by_lanes);
    }
}

/// Interleaved words: a step's lie side by side already.
void pack_interleaved(uint32_t* to, const MatmulStrip& s) {
  const uint32_t* from = static_cast<const uint32_t*>(s.from);
  int64_t steps = s.k / s.run, tile = lanes * s.stride / s.run;
  for (int64_t p = 0; p < steps; ++p)
    for (int r0 = 0; r0 < s.width; r0 += lanes)
      *reinterpret_cast<uvec_unaligned*>(to + p * s.width + r0) =
          r0 < s.rows ? *reinterpret_cast<const uvec_unaligned*>(from + r0 / lanes * tile + p * lanes) : uvec{};
}

void pack(uint32_t* to, const MatmulStrip& s) {
  if (s.together > 0 && !s.by_lanes) {
    pack_interleaved(to, s);
  } else if (s.k_major) {
    // A narrow panel may take neighbours of its rows along: they are overwritten.
    int64_t whole = s.width < lanes ? s.readable : s.rows;
    if (s.by_lanes)
      for (int64_t p = s.k; p < lane_steps(s.k) * lanes; ++p)
        for (int r = 0; r < s.width; ++r) to[step_of(s, p) * s.width + r] = 0;
    if (s.words == MatmulWords::fp32)
      pack_columns(to, s, whole, static_cast<const float*>(s.from));
    else
      pack_columns(to, s, whole, static_cast<const half*>(s.from), s.words == MatmulWords::bf16_pairs);
  } else if (s.words == MatmulWords::fp32) {
    pack_rows<float>(to, s, s.k);
  } else if (s.words == MatmulWords::fp16) {
    pack_rows<fp16>(to, s, s.k);
  } else if (s.words == MatmulWords::bf16) {
    pack_rows<half>(to, s, s.k);
  } else {
    pack_rows<Pair>(to, s, s.k / 2);
    if (s.k % 2 == 0) return;
    for (int r = 0; r < s.width; ++r)
      to[s.k / 2 * s.width + r] = r < s.rows ? static_cast<const half*>(s.from)[r * s.stride + s.k - 1].bits : 0;
  }
}

void pack_few(uint32_t* to, const MatmulStrip& s) {
  float* panel = reinterpret_cast<float*>(to);
  if (s.words == MatmulWords::fp32)
    pack_lanes(panel, s, static_cast<const float*>(s.from));
  else
    pack_lanes(panel, s, static_cast<const half*>(s.from));
}

template <bool pairs>
LONGHAND_INLINE vec step(vec sum, vec b, vec a) {
#if defined(__AVX512F__)
  if constexpr (pairs) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(b), "v"(a));
    return sum;
  }
#endif
  return sum + b * a;
}

template <int R, int V, bool pairs>
void tile(const uint32_t* a_words, const uint32_t* b_words, int64_t runs, int64_t steps, float* sums) {
  const float* a = reinterpret_cast<const float*>(a_words);
  const float* b = reinterpret_cast<const float*>(b_words);
  for (int64_t run = 0; run < runs; ++run) {
    vec c[R][V] = {};
    for (int64_t p = 0; p < steps; ++p, a += R, b += tile_columns) {
      __builtin_prefetch(a + 8 * R);
      for (int v = 0; v < V; ++v) __builtin_prefetch(b + 8 * tile_columns + v * lanes);
      vec right[V];
      for (int v = 0; v < V; ++v) right[v] = load(b + v * lanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        vec left = splat(a[r]);
        for (int v = 0; v < V; ++v) c[r][v] = step<pairs>(c[r][v], right[v], left);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) {
        float* sum = sums + r * tile_columns + v * lanes;
        store(sum, run > 0 ? load(sum) + c[r][v] : c[r][v]);
      }
  }
}

using Tile = void (*)(const uint32_t*, const uint32_t*, int64_t, int64_t, float*);
template <bool pairs, int R = tile_rows>
LONGHAND_INLINE Tile tile_for(int rows, int vectors) {
  if constexpr (R == 1) {
    return vectors == 1 ? tile<1, 1, pairs> : tile<1, 2, pairs>;
  } else {
    if (rows < R) return tile_for<pairs, R - 1>(rows, vectors);
    return vectors == 1 ? tile<R, 1, pairs> : tile<R, 2, pairs>;
  }
}

void multiply(const MatmulBlock& block, const MatmulOutput& output) {
  alignas(64) float sums[tile_rows * tile_columns];
  for (int64_t i = block.first_panel; i < block.last_panel; ++i) {
    int64_t begin = i * block.rows / block.panels, end = (i + 1) * block.rows / block.panels;
    int rows = static_cast<int>(end - begin);
    const uint32_t* b = block.b;
    for (int64_t column = block.first_column; column < block.last_column; column += tile_columns) {
      int64_t rest = block.last_column - column;
      int columns = static_cast<int>(rest < tile_columns ? rest : tile_columns);
      int vectors = columns > lanes ? 2 : 1;
      Tile run = block.pairs ? tile_for<true>(rows, vectors) : tile_for<false>(rows, vectors);
      expect_tile(output, block.first_row + begin, rows, column, columns);
      run(block.a + i * block.a_stride, b, block.runs, block.steps, sums);
      finish_tile(output, sums, block.first_row + begin, rows, column, columns);
      b += block.b_stride;
    }
  }
}

// One or two vectors of columns with at most tile_rows rows: b is read once where it stands, transposed in registers
// and multiplied there, in the order of a tile. With one row two vectors at a time hide the additions' latency. What
// comes next of b is called into the second-level cache: rows a power of two apart would drive each other out of the
// first.
constexpr int64_t bytes_ahead = 512;
constexpr int64_t few_vectors = 4;

template <int R, int V, bool pairs>
void few_tile(const uint32_t* a_words, const MatmulStrip& s, float* sums) {
  constexpr int64_t width = pairs ? 2 : 4, vector_bytes = sizeof(uvec);
  const float* a = reinterpret_cast<const float*>(a_words);
  const char* row[V * lanes];
  for (int r = 0; r < V * lanes; ++r)
    row[r] = static_cast<const char*>(s.from) + (r < s.rows ? r : s.rows - 1) * s.stride * width;
  int64_t bytes = s.k * width, at = 0;
  vec c[R][V] = {};
  auto add = [&](const vec(&right)[V]) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) c[r][v] = step<pairs>(c[r][v], right[v], splat(a[r]));
    a += R;
  };
  auto add_vector = [&](const uvec* words) __attribute__((always_inline)) {
    uvec x[V][lanes];
    for (int v = 0; v < V; ++v) {
#pragma GCC unroll 16
      for (int r = 0; r < lanes; ++r) x[v][r] = words[v * lanes + r];
      transpose(x[v]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      vec right[V];
      for (int v = 0; v < V; ++v) right[v] = (vec)x[v][i];
      add(right);
    }
  };
  // Rows a power of two apart share a set of the first-level cache: a row's next vectors are taken along before other
  // rows drive them out.
  alignas(64) uvec taken[few_vectors][V * lanes];
  while (at + vector_bytes <= bytes) {
    int64_t whole = (bytes - at) / vector_bytes, count = whole < few_vectors ? whole : few_vectors;
    int64_t ahead = at + bytes_ahead;
    if (ahead >= bytes) ahead += V * lanes * s.stride * width - bytes;
    auto take = [&](int64_t vectors) __attribute__((always_inline)) {
      for (int r = 0; r < V * lanes; ++r)
        for (int64_t i = 0; i < vectors; ++i) {
          __builtin_prefetch(row[r] + ahead + i * vector_bytes, 0, 2);
          taken[i][r] = *reinterpret_cast<const pair_unaligned*>(row[r] + at + i * vector_bytes);
        }
    };
    if (count == few_vectors)
      take(few_vectors);
    else
      take(count);
    for (int64_t i = 0; i < count; ++i) add_vector(taken[i]);
    at += count * vector_bytes;
  }
  if (at < bytes) {
    alignas(64) uint32_t rest[V][2 * lanes * lanes];
    MatmulStrip end = s;
    end.from = static_cast<const char*>(s.from) + at, end.k = (bytes - at) / width, end.width = lanes;
    for (int v = 0; v < V; ++v) {
      end.rows = s.rows < lanes ? s.rows : v == 0 ? lanes : s.rows - lanes;
      pack(rest[v], end);
      end.from = static_cast<const char*>(end.from) + lanes * s.stride * width;
    }
    int64_t steps = pairs ? (end.k + 1) / 2 : end.k;
    for (int64_t p = 0; p < steps; ++p) {
      vec right[V];
      for (int v = 0; v < V; ++v) right[v] = load(reinterpret_cast<const float*>(rest[v]) + p * lanes);
      add(right);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(sums + r * tile_columns + v * lanes, c[r][v]);
}

/// The same for interleaved words, which are in a tile's order and read from front to back.
template <int R, int V, bool pairs>
void interleaved_tile(const uint32_t* a_words, const MatmulStrip& s, float* sums) {
  constexpr int64_t elements = pairs ? 2 : 1, ahead = 8192 / 4;
  const float *a = reinterpret_cast<const float*>(a_words), *b = static_cast<const float*>(s.from);
  int64_t tile = lanes * s.stride / elements;
  vec c[R][V] = {};
  for (int64_t p = 0; p < s.k / elements; ++p, a += R, b += lanes) {
    vec right[V];
#pragma GCC unroll 2
    for (int v = 0; v < V; ++v) {
      __builtin_prefetch(b + v * tile + ahead);
      right[v] = load(b + v * tile);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < V; ++v) c[r][v] = step<pairs>(c[r][v], right[v], splat(a[r]));
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
    for (int v = 0; v < V; ++v) store(sums + r * tile_columns + v * lanes, c[r][v]);
}

constexpr int64_t block_sums = tile_rows * tile_columns;

/// A panel of R rows by V vectors of columns, block after block.
template <int R, int V, bool pairs, bool interleaved>
void few_columns(const MatmulFew& few, int64_t panel, int64_t column, int columns, vec*, float* sums, int64_t) {
  for (int64_t block = 0; block < few.blocks; ++block)
    (interleaved ? interleaved_tile<R, V, pairs> : few_tile<R, V, pairs>)(few.panel(block, panel),
                                                                          few.strip(column, columns, block),
                                                                          sums + block * block_sums);
}

using FewColumns = void (*)(const MatmulFew&, int64_t, int64_t, int, vec*, float*, int64_t);
template <int R, int V>
LONGHAND_INLINE FewColumns few_columns_for(const MatmulStrip& b) {
  bool interleaved = b.together > 0;
  if (b.words == MatmulWords::bf16) return interleaved ? lanes_columns<R, half, true> : lanes_columns<R, half, false>;
  if (b.words == MatmulWords::fp16) return interleaved ? lanes_columns<R, fp16, true> : lanes_columns<R, fp16, false>;
  if (b.words == MatmulWords::fp32)
    return interleaved ? few_columns<R, V, false, true> : few_columns<R, V, false, false>;
  return interleaved ? few_columns<R, V, true, true> : few_columns<R, V, true, false>;
}
LONGHAND_INLINE FewColumns few_columns_for(int width, int columns, const MatmulStrip& b) {
  if (width == 1) return columns > lanes ? few_columns_for<1, 2>(b) : few_columns_for<1, 1>(b);
  if (width == 2) return few_columns_for<2, 1>(b);
  if constexpr (tile_rows > 4) {
    if (width == 4) return few_columns_for<4, 1>(b);
  }
  if constexpr (tile_rows > 8) {
    if (width == 8) return few_columns_for<8, 1>(b);
  }
  return few_columns_for<tile_rows, 1>(b);
}

int64_t few_scratch_bytes(int64_t blocks) {
  return blocks * tile_rows * (lanes * static_cast<int64_t>(sizeof(vec)) + tile_columns * 4);
}

void multiply_few(const MatmulFew& few, const MatmulOutput* outputs, void* scratch) {
  vec* sums_of_lanes = static_cast<vec*>(scratch);
  float* sums = reinterpret_cast<float*>(sums_of_lanes + few.blocks * tile_rows * lanes);
  int together = few.width == 1 && !few.b.by_lanes ? tile_columns : lanes;
  for (int64_t column = 0; column < few.columns; column += tile_columns) {
    int64_t rest = few.columns - column;
    int columns = static_cast<int>(rest < tile_columns ? rest : tile_columns);
    for (int64_t i = 0; i < few.panels; ++i) {
      int64_t begin = i * few.rows / few.panels, end = (i + 1) * few.rows / few.panels;
      int rows = static_cast<int>(end - begin);
      expect_tile(outputs[0], few.first_row + begin, rows, few.first_column + column, columns);
      for (int first = 0; first < columns; first += together) {
        int here = columns - first < together ? columns - first : together;
        FewColumns run = few_columns_for(few.width, here, few.b);
        run(few, i, column + first, here, sums_of_lanes, sums + first, block_sums);
      }
      for (int64_t block = 0; block < few.blocks; ++block)
        finish_tile(outputs[block], sums + block * block_sums, few.first_row + begin, rows, few.first_column + column,
                    columns);
    }
  }
}

}  // namespace
}  // namespace LONGHAND_ISA

LONGHAND_DEFINE_KERNELS(MatmulKernels, matmul_kernels) = {
    tile_rows,
    tile_columns,
    lanes,
    lanes == 16,
    pack,
    multiply,
    {1, 2, tile_rows > 4 ? 4 : tile_rows, tile_rows > 8 ? 8 : tile_rows, tile_rows},
    pack_few,
    multiply_few,
    few_scratch_bytes,
};

}  // namespace longhand::cpu
