// Rings of keys and values: storing new rows, and the extremes of their pages.
//
// ring_store. Rings of the rows' own type: one thread takes a piece, 16 bytes, or goes element by element where rows
// are not aligned. Other types: a warp takes a row of one head; i8 reads it twice, once for the largest magnitude.
//   Moves N·H·dh elements of keys and of values, in and out.
// page_bounds. A block takes a page of one head, a thread a column: 64 loads that do not wait for each other. A page is
// done once in 64 positions; blocks of rows that complete none end at once. Moves a page's keys once a page.
// Limit of both: memory bandwidth; at a few rows, the time of a launch.
#include <algorithm>
#include <type_traits>

#include "cuda/gpu_device.h"
#include "cuda/ring.h"
#include "src/device/ring_checks.h"

namespace longhand::LONGHAND_GPU {
namespace {

constexpr int store_threads = 256, bound_threads = 128;

/// k or value, and the ring that it goes to.
struct RingRows {
  const void* from;
  int64_t from_row, from_head;
  void* to;
  int64_t sequence, slot, head;
  float* scales;
  int64_t scale_sequence, scale_slot, scale_head;
};
struct RingCall {
  RingRows rings[2];  // keys, values
  const int64_t* position;
  const int32_t* sequence;
  int64_t n, sequences, slots;
  int heads, width;
  bool aligned;
  unsigned long long* fault;

  /// Where row `row` of the call goes; false, with a report, when that is nowhere.
  __device__ __forceinline__ bool place(int64_t row, int64_t& to_sequence, int64_t& slot) const {
    int64_t at = position[row];
    to_sequence = sequence[row];
    slot = at % slots;
    if (at >= 0 && to_sequence >= 0 && to_sequence < sequences) return true;
    report_fault(fault, row, sequence[row]);
    return false;
  }
};

/// Block row 0 stores keys, block row 1 values.
template <class T>
__global__ void __launch_bounds__(store_threads) ring_copy_kernel(const RingCall call) {
  unsigned pieces = (call.width + piece<T> - 1) / piece<T>, heads = call.heads;
  unsigned index = blockIdx.x * store_threads + threadIdx.x;
  if (index >= call.n * heads * pieces) return;
  const RingRows& ring = call.rings[blockIdx.y];
  int column = static_cast<int>(index % pieces) * piece<T>;
  int64_t head = index / pieces % heads, row = index / pieces / heads, sequence, slot;
  if (!call.place(row, sequence, slot)) return;
  const T* from = static_cast<const T*>(ring.from) + row * ring.from_row + head * ring.from_head + column;
  T* to = static_cast<T*>(ring.to) + sequence * ring.sequence + slot * ring.slot + head * ring.head + column;
  if (call.aligned && column + piece<T> <= call.width) {
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
    return;
  }
  for (int i = 0; i < piece<T> && column + i < call.width; ++i) to[i] = from[i];
}

/// A warp a row of one head, in another type.
template <class From, class To>
__global__ void __launch_bounds__(store_threads) ring_convert_kernel(const RingCall call) {
  unsigned index = blockIdx.x * (store_threads / 32) + threadIdx.x / 32, heads = call.heads;
  if (index >= call.n * heads) return;
  const RingRows& ring = call.rings[blockIdx.y];
  int64_t head = index % heads, row = index / heads, sequence, slot;
  int lane = threadIdx.x % 32;
  if (!call.place(row, sequence, slot)) return;
  const From* from = static_cast<const From*>(ring.from) + row * ring.from_row + head * ring.from_head;
  To* to = static_cast<To*>(ring.to) + sequence * ring.sequence + slot * ring.slot + head * ring.head;
  if constexpr (sizeof(To) == 1) {
    float most = 0;
    for (int c = lane; c < call.width; c += 32) most = fmaxf(most, fabsf(to_float(from[c])));
    float scale = warp_max(most) / 127.0f;
    if (lane == 0)
      ring.scales[sequence * ring.scale_sequence + slot * ring.scale_slot + head * ring.scale_head] = scale;
    for (int c = lane; c < call.width; c += 32)
      to[c] = scale > 0 ? static_cast<To>(fminf(fmaxf(rintf(to_float(from[c]) / scale), -127.0f), 127.0f)) : To{0};
  } else {
    for (int c = lane; c < call.width; c += 32) to[c] = from_float<To>(to_float(from[c]));
  }
}

struct Extremes {
  const void* rows;
  const float* scales;
  int64_t row_sequence, row, row_head, scale_sequence, scale_row, scale_head;
  float* bounds;
  int64_t bound_sequence, bound_row, bound_head;
  int64_t slots, pages, width, sequences;
  const int64_t* position;  // null: every page of every sequence
  const int32_t* sequence;
};

/// Block (row of the call, or page of a sequence; head).
template <class T>
__global__ void __launch_bounds__(bound_threads) page_bounds_kernel(const Extremes e) {
  int64_t sequence, page, head = blockIdx.y;
  if (e.position) {
    int64_t position = e.position[blockIdx.x];
    sequence = e.sequence[blockIdx.x], page = position % e.slots / page_rows;
    if (position < 0 || sequence < 0 || sequence >= e.sequences || position % page_rows != page_rows - 1) return;
  } else {
    sequence = blockIdx.x / e.pages, page = blockIdx.x % e.pages;
  }
  int64_t first = page * page_rows < e.slots ? page * page_rows : e.slots - 1;
  int count = static_cast<int>(e.slots - first < page_rows ? e.slots - first : page_rows);
  const T* rows = static_cast<const T*>(e.rows) + sequence * e.row_sequence + first * e.row + head * e.row_head;
  const float* scales = nullptr;
  if constexpr (sizeof(T) == 1)
    scales = e.scales + sequence * e.scale_sequence + first * e.scale_row + head * e.scale_head;
  float* low = e.bounds + sequence * e.bound_sequence + 2 * page * e.bound_row + head * e.bound_head;
  for (int64_t c = threadIdx.x; c < e.width; c += bound_threads) {
    float least = INFINITY, most = -INFINITY;
#pragma unroll 16
    for (int i = 0; i < count; ++i) {
      float x = to_float(rows[i * e.row + c]);
      if constexpr (sizeof(T) == 1) x *= scales[i * e.scale_row];
      least = fminf(least, x), most = fmaxf(most, x);
    }
    low[c] = least, low[e.bound_row + c] = most;
  }
}

}  // namespace

void GpuDevice::ring_store(const RingStore& a) {
  check_ring_store(a);
  if (a.k.elements() == 0) return;
  RingCall call{};
  call.position = a.position.as<int64_t>(), call.sequence = a.sequence.as<int32_t>();
  call.n = a.k.size(0), call.heads = static_cast<int>(a.k.size(1)), call.width = static_cast<int>(a.k.size(2));
  call.sequences = a.keys.size(0), call.slots = a.keys.size(1);
  call.fault = fault(Fault::ring_sequence, call.sequences);
  int64_t in_piece = 16 / dtype_bytes(a.k.type());
  call.aligned = true;
  auto rows = [&](const ConstTensor& from, const Tensor& to, const Tensor& scales) {
    for (int64_t stride : {from.stride(0), from.stride(1), to.stride(0), to.stride(1), to.stride(2)})
      call.aligned = call.aligned && stride % in_piece == 0;
    call.aligned = call.aligned && aligned16(from.data()) && aligned16(to.data());
    return RingRows{from.data(),      from.stride(0),   from.stride(1),  to.data(),
                    to.stride(0),     to.stride(1),     to.stride(2),    static_cast<float*>(scales.data()),
                    scales.stride(0), scales.stride(1), scales.stride(2)};
  };
  call.rings[0] = rows(a.k, a.keys, a.key_scales), call.rings[1] = rows(a.value, a.values, a.value_scales);
  auto put = [&](int64_t threads, auto kernel) {
    launch({"ring_store", dim3(ceil_div(threads, store_threads), 2), dim3(store_threads), 0, a.k.shape()}, kernel,
           call);
  };
  for_type(a.k.type(), [&](auto from) {
    for_ring_type(a.keys.type(), [&](auto to) {
      using From = decltype(from);
      using To = decltype(to);
      if constexpr (std::is_same_v<From, To>)
        put(call.n * call.heads * ((call.width + piece<From> - 1) / piece<From>), ring_copy_kernel<From>);
      else
        put(call.n * call.heads * 32, ring_convert_kernel<From, To>);
    });
  });
}

void GpuDevice::page_bounds(const PageBounds& a) {
  check_page_bounds(a);
  Extremes e{a.rows.data(),
             static_cast<const float*>(a.scales.data()),
             a.rows.stride(0),
             a.rows.stride(1),
             a.rows.stride(2),
             a.scales.stride(0),
             a.scales.stride(1),
             a.scales.stride(2),
             static_cast<float*>(a.bounds.data()),
             a.bounds.stride(0),
             a.bounds.stride(1),
             a.bounds.stride(2)};
  e.slots = a.rows.size(1), e.pages = a.bounds.size(1) / 2, e.width = a.rows.size(3), e.sequences = a.rows.size(0);
  int64_t blocks = e.sequences * e.pages;
  if (a.position) {
    e.position = a.position.as<int64_t>(), e.sequence = a.sequence.as<int32_t>();
    blocks = a.position.elements();
  }
  if (blocks * a.rows.elements() == 0) return;
  for_ring_type(a.rows.type(), [&](auto zero) {
    launch({"page_bounds", dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(a.rows.size(2))),
            dim3(bound_threads), 0, a.rows.shape()},
           page_bounds_kernel<decltype(zero)>, e);
  });
}

}  // namespace longhand::LONGHAND_GPU
