// Relative attention, backward, on plain fp32 arithmetic: every type, width, stride and mask.
//
//   P_ij = exp(a_ij - lse_i),  Z the dropout mask / keep,  dP = (d_out . value) Z,  dA = sigma P (dP - delta_i)
//   d_value_j = sum_i P Z d_out_i;                d_k_j = sum_i dA (q_i + u);       d_u = sum_j (sum_i dA) k_j
//   d_q_i = sum_j dA (k_j + r_d) + sum_e Y_ie S_e;  Y_ie = sum over j of segment e of dA
//   d_r_d = sum over lanes and i of dA_{i, i + M - d} (q_i + v);                    d_v = sum_d (sum dA) r_d
//   d_S_e = sum_i Y_ie (q_i + w);                 d_w = sum_i sum_e Y_ie S_e
//
// Three kernels, each with its sums in registers and every block's result its own, so that no order of blocks shows:
// key_kernel takes a tile of keys and walks the queries, query_kernel a tile of queries and walks the keys, and
// distance_kernel a tile of distances and walks lanes and queries, its tiles being the diagonals. Each computes P and
// dA anew (6 width operations a pair): 10 + 11 + 8 width a pair in all, against 16 at the least, and no partial sums of
// the size of K for each tile of queries. What lanes, tiles and groups add up meets in attention_sum, in order. The
// masks decide what is walked: tiles without a visible and selected pair are left out. Rows wider than a slice are cut:
// a block writes its slice's channels. Limit: fp32 arithmetic.
#include <algorithm>

#include "cuda/attention_tile.h"
#include "cuda/gpu_device.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int64_t blocks_wanted = 528;  // of distance_kernel: four a multiprocessor of the largest card

struct RowTerms {
  const float2* segment;
  const float* deltas;
};

__device__ __forceinline__ void load_rows(TileShared& s, const Attention& a, const RowTerms& terms, int lane, int head,
                                          int query) {
  int row = threadIdx.x;
  if (row >= tile_rows || query + row >= a.queries) return;
  int64_t index = a.lane_head(lane, head) * a.queries + query + row;
  s.lse[row] = a.lse[index], s.delta[row] = terms.deltas[index];
  if (a.segments()) s.segment[row] = terms.segment[index];
}

/// d = dA of the tile, 0 where the mask is; P Z goes to s.pairs, where P waits while dP is summed. The masks and rows
/// of the tile are filled. A thread has touched its own pairs only.
template <class T, Columns columns>
__device__ __forceinline__ void gradient_tile(float (&d)[4][8], TileShared& s, const Attention& a,
                                              const TilePlace<columns>& at) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
  score_tile<T>(d, s, a, at);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      int row = y + 16 * i;
      float p = 0;
      if (column_bit<columns>(s.visible[row], j)) {
        if (a.segments()) d[i][j] += column_bit<columns>(s.other_segment[row], j) ? s.segment[row].y : s.segment[row].x;
        p = expf(d[i][j] * a.sigma - s.lse[row]);
      }
      s.pairs[row * pair_stride + x + 8 * j] = p, d[i][j] = 0;
    }
  probability_gradient_tile<T>(d, s, a, at);
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      int row = y + 16 * i;
      float& p = s.pairs[row * pair_stride + x + 8 * j];
      float z = 1;
      if (a.dropout.on) z = column_bit<columns>(s.kept[row], j) ? a.dropout.scale : 0.0f;
      d[i][j] = column_bit<columns>(s.visible[row], j) ? a.sigma * p * (d[i][j] * z - s.delta[row]) : 0.0f;
      p *= z;
    }
}

/// Pairs to shared memory; `rotated`: to column (row - column + 63) % 64, where multiply_rotated wants them.
template <bool rotated>
__device__ __forceinline__ void write_pairs(TileShared& s, const float (&p)[4][8]) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      int row = y + 16 * i, column = x + 8 * j;
      s.pairs[row * pair_stride + (rotated ? (row - column + 63) & 63 : column)] = p[i][j];
    }
}

/// sum += over b of pairs[row][b] rows[b] for the entries of rotated pairs that lie in one half of the skewed rows:
/// half 0 holds row - column + 63 = b, for b >= row; half 1 holds b + 64, for b < row.
template <int half>
__device__ __forceinline__ void multiply_rotated(float (&sum)[4][8], const float* pairs, const float* rows) {
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll
  for (int group = 0; group < 4; ++group) {
#pragma unroll 1
    for (int b = 16 * group; b < 16 * group + 16; ++b) {
      float r[8];
      four(r) = four(rows + b * chunk_channels + 4 * x);
      four(r + 4) = four(rows + b * chunk_channels + 4 * x + 32);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (half == 0 ? i > group : i < group) continue;
        int row = y + 16 * i;
        float p = pairs[row * pair_stride + b];
        if (i == group) p = (half == 0) == (b >= row) ? p : 0.0f;
#pragma unroll
        for (int e = 0; e < 8; ++e) sum[i][e] = fmaf(p, r[e], sum[i][e]);
      }
    }
  }
}

/// Adds column t % 64 of the pairs, rows 32 (t / 64) to + 31, to the thread's running sum.
__device__ __forceinline__ void add_half_column(TileShared& s) {
  const float* pair = s.pairs + threadIdx.x / tile_rows * (tile_rows / 2) * pair_stride + threadIdx.x % tile_rows;
  float sum = 0;
#pragma unroll 8
  for (int row = 0; row < tile_rows / 2; ++row) sum += pair[row * pair_stride];
  s.own_sums[threadIdx.x].x += sum;
}

/// The columns' sums from the threads' halves, to s.delta. Barriers before and after.
__device__ __forceinline__ void join_half_columns(TileShared& s) {
  __syncthreads();
  if (threadIdx.x < tile_rows) s.delta[threadIdx.x] = s.own_sums[threadIdx.x].x + s.own_sums[threadIdx.x + tile_rows].x;
  __syncthreads();
}

/// to[c] = sum over columns of s.delta[column] row_at(column)[c], for channels [channel, end).
template <class Rows>
__device__ __forceinline__ void weigh_rows(float* to, const TileShared& s, const Rows& row_at, int channel, int end) {
  for (int c = channel + static_cast<int>(threadIdx.x); c < end; c += tile_threads) {
    float sum = 0;
    for (int column = 0; column < tile_rows; ++column)
      if (auto* row = row_at(column)) sum = fmaf(s.delta[column], to_float(row[c]), sum);
    to[c] = sum;
  }
}

/// Block (page of keys and slice, head, lane): d_k, d_value, and the page's part of d_u [lanes, pages, heads, width].
template <class T, int chunks>
__global__ void __launch_bounds__(tile_threads, 2)
    key_kernel(const Attention a, const RowTerms terms, int slices, float* d_u) {
  SIMT_SHARED_ALIGNED(16, TileShared, s);
  int page = static_cast<int>(blockIdx.x) / slices, slice = blockIdx.x % slices, head = blockIdx.y, lane = blockIdx.z;
  TilePlace<Columns::keys> at{lane, head, 0, a.page_begin(page)};
  const T* u = a.u.row<const T>(0, 0, head);
  float d_k[chunks][4][8] = {}, d_value[chunks][4][8] = {};
  s.own_sums[threadIdx.x] = make_float2(0, 0);
  int first = max(at.column - a.memory, 0) / tile_rows * tile_rows;
  int last = min(at.column + tile_rows - 1 - a.memory + a.max_distance, a.queries - 1);
  for (at.query = first; at.query <= last; at.query += tile_rows) {
    if (a.paged && !a.page_selected(lane, head, at.query / tile_rows, page)) continue;
    load_rows(s, a, terms, lane, head, at.query);
    if (!mask_tile(s, a, at)) continue;
    float d[4][8] = {};
    gradient_tile<T>(d, s, a, at);
#pragma unroll
    for (int chunk = 0; chunk < chunks; ++chunk) {
      __syncthreads();
      stage_rows<tile_rows, chunk_channels, chunk_channels>(
          s.stage, RowsAt<T>{a.d_out, lane, head, at.query, a.queries}, (slice * chunks + chunk) * chunk_channels, a);
      __syncthreads();
      multiply_columns(d_value[chunk], s.pairs, s.stage);
    }
    __syncthreads();
    write_pairs<false>(s, d);
#pragma unroll
    for (int chunk = 0; chunk < chunks; ++chunk) {
      __syncthreads();
      stage_queries<chunk_channels, chunk_channels>(s.stage, RowsAt<T>{a.q, lane, head, at.query, a.queries}, u,
                                                    (slice * chunks + chunk) * chunk_channels, a);
      __syncthreads();
      multiply_columns(d_k[chunk], s.pairs, s.stage);
    }
    add_half_column(s);
  }
  RowsAt<T> keys{a.k, lane, head, at.column, a.keys};
  auto row_of = [&](const HeadRows& rows) {
    return [&, rows](int row) {
      int key = at.column + row;
      return key >= 0 && key < a.keys ? rows.row<T>(key, lane, head) : nullptr;
    };
  };
#pragma unroll
  for (int chunk = 0; chunk < chunks; ++chunk) {
    int channel = (slice * chunks + chunk) * chunk_channels;
    store_chunk<true>(d_k[chunk], row_of(a.d_k), channel, a);
    store_chunk<true>(d_value[chunk], row_of(a.d_value), channel, a);
  }
  join_half_columns(s);
  int channel = slice * chunks * chunk_channels;
  d_u += ((static_cast<int64_t>(lane) * a.pages() + page) * a.heads + head) * a.width;
  weigh_rows(d_u, s, keys, channel, min(channel + chunks * chunk_channels, a.width));
}

/// A tile's part of the segment gradients, from Y in s.segment: table [.., 2, heads, width], bias [.., heads, width].
template <class T>
__device__ __forceinline__ void segment_gradients(const TileShared& s, const Attention& a, int lane, int head,
                                                  int query, int channel, int end, float* d_table, float* d_bias) {
  const T *bias = a.segment_bias.row<const T>(0, 0, head), *same = a.segment_table.row<const T>(0, 0, head),
          *other = a.segment_table.row<const T>(1, 0, head);
  int rows = min(tile_rows, a.queries - query);
  for (int c = channel + static_cast<int>(threadIdx.x); c < end; c += tile_threads) {
    float w = to_float(bias[c]);
    float2 table = make_float2(0, 0), whole = make_float2(0, 0);
    for (int row = 0; row < rows; ++row) {
      float2 y = s.segment[row];
      float q = to_float(a.q.row<const T>(query + row, lane, head)[c]) + w;
      table.x = fmaf(y.x, q, table.x), table.y = fmaf(y.y, q, table.y);
      whole.x += y.x, whole.y += y.y;
    }
    d_table[c] = table.x, d_table[static_cast<int64_t>(a.heads) * a.width + c] = table.y;
    d_bias[c] = whole.x * to_float(same[c]) + whole.y * to_float(other[c]);
  }
}

/// Adds to Y what half a row of pairs holds: row t / 2, half t % 2, a thread its own.
__device__ __forceinline__ void add_half_row(TileShared& s) {
  int row = threadIdx.x / 2, half = threadIdx.x % 2;
  uint32_t other = s.other_segment[row][half];
  float2& sums = s.own_sums[threadIdx.x];
  for (int column = 0; column < 32; ++column) {
    float d = s.pairs[row * pair_stride + 32 * half + column];
    if (other >> column & 1)
      sums.y += d;
    else
      sums.x += d;
  }
}

/// Adds Y S to a chunk of d_q.
template <class T>
__device__ __forceinline__ void add_segment_rows(float (&d_q)[4][8], const TileShared& s, int head, int channel,
                                                 const Attention& a) {
#pragma unroll
  for (int e = 0; e < 8; e += 4) {
    int c = channel + 4 * static_cast<int>(threadIdx.x % 8) + 8 * e;
    float zero[4], one[4];
    four(zero) = load_four(a.segment_table.row<const T>(0, 0, head), c, a);
    four(one) = load_four(a.segment_table.row<const T>(1, 0, head), c, a);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float2 sums = s.segment[threadIdx.x / 8 + 16 * i];
#pragma unroll
      for (int k = 0; k < 4; ++k) d_q[i][e + k] += sums.x * zero[k] + sums.y * one[k];
    }
  }
}

/// Block (tile of queries and slice, head, lane): d_q, and the tile's part of the segment gradients, [lanes, tiles] of
/// them.
template <class T, int chunks>
__global__ void __launch_bounds__(tile_threads, 2)
    query_kernel(const Attention a, const RowTerms terms, int slices, float* d_table, float* d_bias) {
  SIMT_SHARED_ALIGNED(16, TileShared, s);
  int tile = a.tiles() - 1 - static_cast<int>(blockIdx.x) / slices, slice = blockIdx.x % slices;
  int head = blockIdx.y, lane = blockIdx.z;
  TilePlace<Columns::keys> at{lane, head, tile * tile_rows, 0};
  load_rows(s, a, terms, lane, head, at.query);
  float d_q[chunks][4][8] = {};
  s.own_sums[threadIdx.x] = make_float2(0, 0);
  int last = min(at.query + tile_rows, a.queries) - 1;
  int nearest = a.page_of(a.last_visible(last)), farthest = a.page_of(max(at.query + a.memory - a.max_distance, 0));
  for (int page = nearest; page >= farthest; --page) {
    if (a.paged && !a.page_selected(lane, head, tile, page)) continue;
    at.column = a.page_begin(page);
    if (!mask_tile(s, a, at)) continue;
    float d[4][8] = {};
    gradient_tile<T>(d, s, a, at);
    write_pairs<false>(s, d);
#pragma unroll
    for (int chunk = 0; chunk < chunks; ++chunk) {
      __syncthreads();
      stage_rows<tile_rows, chunk_channels, chunk_channels>(s.stage, RowsAt<T>{a.k, lane, head, at.column, a.keys},
                                                            (slice * chunks + chunk) * chunk_channels, a);
      __syncthreads();
      multiply_rows(d_q[chunk], s.pairs, s.stage);
    }
    if (a.segments()) add_half_row(s);
    __syncthreads();
    write_pairs<true>(s, d);
#pragma unroll
    for (int chunk = 0; chunk < chunks; ++chunk) {
      int channel = (slice * chunks + chunk) * chunk_channels;
      __syncthreads();
      stage_rows<tile_rows, chunk_channels, chunk_channels>(s.stage, DistancesAt<T>{a, head, at.skewed(a, 0)}, channel,
                                                            a);
      __syncthreads();
      multiply_rotated<0>(d_q[chunk], s.pairs, s.stage);
      __syncthreads();
      stage_rows<tile_rows, chunk_channels, chunk_channels>(s.stage, DistancesAt<T>{a, head, at.skewed(a, 64)}, channel,
                                                            a);
      __syncthreads();
      multiply_rotated<1>(d_q[chunk], s.pairs, s.stage);
    }
  }
  int begin = slice * chunks * chunk_channels;
  if (a.segments()) {
    __syncthreads();
    if (threadIdx.x < tile_rows) {
      float2 low = s.own_sums[2 * threadIdx.x], high = s.own_sums[2 * threadIdx.x + 1];
      s.segment[threadIdx.x] = make_float2(low.x + high.x, low.y + high.y);
    }
    __syncthreads();
    int64_t place = static_cast<int64_t>(lane) * a.tiles() + tile;
    segment_gradients<T>(s, a, lane, head, at.query, begin, min(begin + chunks * chunk_channels, a.width),
                         d_table + (2 * place * a.heads + head) * a.width, d_bias + (place * a.heads + head) * a.width);
  }
  auto row_at = [&](int row) {
    return at.query + row < a.queries ? a.d_q.row<T>(at.query + row, lane, head) : nullptr;
  };
#pragma unroll
  for (int chunk = 0; chunk < chunks; ++chunk) {
    int channel = begin + chunk * chunk_channels;
    if (a.segments()) add_segment_rows<T>(d_q[chunk], s, head, channel, a);
    store_chunk<false>(d_q[chunk], row_at, channel, a);
  }
}

/// Block (tile of distances and slice, head, group of lanes): the group's part of d_r [groups, keys, heads, width], not
/// clamped, and the tile's of d_v [groups, tiles, heads, width].
template <class T, int chunks>
__global__ void __launch_bounds__(tile_threads, 2)
    distance_kernel(const Attention a, const RowTerms terms, int slices, float* d_r, float* d_v) {
  SIMT_SHARED_ALIGNED(16, TileShared, s);
  int tile = static_cast<int>(blockIdx.x) / slices, slice = blockIdx.x % slices, tiles = gridDim.x / slices;
  int head = blockIdx.y, group = blockIdx.z, groups = gridDim.z;
  TilePlace<Columns::distances> at{0, head, 0, tile * tile_rows};
  const T* v = a.v.row<const T>(0, 0, head);
  float sum[chunks][4][8] = {};
  s.own_sums[threadIdx.x] = make_float2(0, 0);
  int first = max(at.column - a.memory, 0) / tile_rows * tile_rows;
  for (at.lane = a.lanes * group / groups; at.lane < a.lanes * (group + 1) / groups; ++at.lane)
    for (at.query = first; at.query < a.queries && at.column <= a.max_distance; at.query += tile_rows) {
      load_rows(s, a, terms, at.lane, head, at.query);
      if (!mask_tile(s, a, at)) continue;
      float d[4][8] = {};
      gradient_tile<T>(d, s, a, at);
      write_pairs<false>(s, d);
#pragma unroll
      for (int chunk = 0; chunk < chunks; ++chunk) {
        __syncthreads();
        stage_queries<chunk_channels, chunk_channels>(s.stage, RowsAt<T>{a.q, at.lane, head, at.query, a.queries}, v,
                                                      (slice * chunks + chunk) * chunk_channels, a);
        __syncthreads();
        multiply_columns(sum[chunk], s.pairs, s.stage);
      }
      add_half_column(s);
    }
  int channel = slice * chunks * chunk_channels, end = min(channel + chunks * chunk_channels, a.width);
  d_r += static_cast<int64_t>(group) * a.keys * a.heads * a.width;
  int x = threadIdx.x % 8, y = threadIdx.x / 8;
#pragma unroll
  for (int chunk = 0; chunk < chunks; ++chunk)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        int distance = at.column + 4 * y + j, c = channel + chunk * chunk_channels + 4 * x + 32 * (e / 4) + e % 4;
        if (distance < a.keys && c < end)
          d_r[(static_cast<int64_t>(distance) * a.heads + head) * a.width + c] = sum[chunk][j][e];
      }
  join_half_columns(s);
  d_v += ((static_cast<int64_t>(group) * tiles + tile) * a.heads + head) * a.width;
  weigh_rows(d_v, s, DistancesAt<T>{a, head, at.column}, channel, end);
}

/// Scratch of the sums that meet in attention_sum.
struct Partials {
  float *d_u, *d_r, *d_v, *d_table = nullptr, *d_bias = nullptr;
  int distance_tiles, groups;
};

}  // namespace

void GpuDevice::attention_backward_general(const Attention& a, const AttentionBackward& call) {
  int chunks = a.width <= chunk_channels ? 1 : 2, slices = static_cast<int>(ceil_div(a.width, chunks * chunk_channels));
  unsigned heads = static_cast<unsigned>(a.heads), lanes = static_cast<unsigned>(a.lanes);
  int64_t row = static_cast<int64_t>(a.heads) * a.width, pages = int64_t{a.lanes} * a.pages();
  int64_t tiles = int64_t{a.lanes} * a.tiles();
  RowTerms terms{attention_segment_terms(a), attention_deltas(a)};
  Partials part;
  part.distance_tiles = static_cast<int>(ceil_div(a.keys, tile_rows));
  part.groups = static_cast<int>(
      std::clamp<int64_t>(blocks_wanted / (int64_t{part.distance_tiles} * slices * a.heads), 1, a.lanes));
  part.d_u = scratch<float>(pages * row), part.d_r = scratch<float>(int64_t{part.groups} * a.keys * row);
  part.d_v = scratch<float>(int64_t{part.groups} * part.distance_tiles * row);
  if (a.query_ids) part.d_table = scratch<float>(tiles * 2 * row), part.d_bias = scratch<float>(tiles * row);
  auto how = [&](int64_t across, unsigned deep) {
    return Launch{"attention_backward",
                  dim3(static_cast<unsigned>(across * slices), heads, deep),
                  dim3(tile_threads),
                  0,
                  {a.queries, a.lanes, a.heads, a.width}};
  };
  for_type(a.half ? Dtype::bf16 : Dtype::fp32, [&](auto zero) {
    using T = decltype(zero);
    bool one = chunks == 1;
    launch(how(a.pages(), lanes), one ? key_kernel<T, 1> : key_kernel<T, 2>, a, terms, slices, part.d_u);
    launch(how(a.tiles(), lanes), one ? query_kernel<T, 1> : query_kernel<T, 2>, a, terms, slices, part.d_table,
           part.d_bias);
    launch(how(part.distance_tiles, static_cast<unsigned>(part.groups)),
           one ? distance_kernel<T, 1> : distance_kernel<T, 2>, a, terms, slices, part.d_r, part.d_v);
  });
  attention_sum(call.d_r, part.d_r, part.groups, a.keys, false);
  attention_sum(call.d_u, part.d_u, pages, 1, true);
  attention_sum(call.d_v, part.d_v, int64_t{part.groups} * part.distance_tiles, 1, true);
  if (!a.query_ids) return;
  attention_sum(call.d_segment_bias, part.d_bias, tiles, 1, true);
  attention_sum(call.d_segment_embedding, part.d_table, tiles, 2, true);
}

}  // namespace longhand::LONGHAND_GPU
