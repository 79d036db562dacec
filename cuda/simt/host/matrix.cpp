#include "matrix.h"

#include <bit>

#include "worker.h"

namespace simt {
namespace {

/// A row of eight sums or elements, one vector of the host.
template <class T>
struct RowOf {
  typedef T Vector __attribute__((vector_size(32)));
};

/// A whole product: A [16, depth], B [depth, 8], C [16, 8]; the sum over k runs in order, with one rounding a step.
/// (The card adds in another order and cuts off the smallest terms' bits: results agree within an error bound, not
/// bitwise.)
template <class T, int depth>
struct Product {
  alignas(32) T a[16][depth], b[depth][8], c[16][8];

  void run() {
    using Vector = typename RowOf<T>::Vector;
    Vector row_of_b[depth];
    std::memcpy(row_of_b, b, sizeof b);
    for (int i = 0; i < 16; ++i) {
      Vector sum;
      std::memcpy(&sum, c[i], sizeof sum);
      for (int k = 0; k < depth; ++k) sum += a[i][k] * row_of_b[k];
      std::memcpy(c[i], &sum, sizeof sum);
    }
  }
};

/// Gathers the registers of all lanes into matrices, `per_register` elements a register, multiplies, hands the sums
/// back.
template <class T, int depth, int per_register, class Element>
void multiply_lanes(void* const* operands, Element element) {
  constexpr int half = depth / 2;
  Product<T, depth> product;
  for (int lane = 0; lane < 32; ++lane) {
    auto& operand = *static_cast<const MultiplyOperand<T>*>(operands[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < per_register; ++i) {
      const int k = per_register * t + i;
      product.a[g][k] = element(operand.a[0], i);
      product.a[g + 8][k] = element(operand.a[1], i);
      product.a[g][k + half] = element(operand.a[2], i);
      product.a[g + 8][k + half] = element(operand.a[3], i);
      product.b[k][g] = element(operand.b[0], i);
      product.b[k + half][g] = element(operand.b[1], i);
    }
    for (int i = 0; i < 4; ++i) product.c[g + i / 2 * 8][2 * t + i % 2] = operand.d[i];
  }
  product.run();
  for (int lane = 0; lane < 32; ++lane) {
    auto& operand = *static_cast<MultiplyOperand<T>*>(operands[lane]);
    for (int i = 0; i < 4; ++i) operand.d[i] = product.c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

/// Eight rows of 16 bytes are one pass over the 32 banks when no two share their four banks.
void count_conflicts(void* const* operands) {
  int rows_in[8] = {}, most = 0;
  for (int i = 0; i < 8; ++i) {
    const auto address = reinterpret_cast<uintptr_t>(static_cast<const MatrixRow*>(operands[i])->address);
    most = std::max(most, ++rows_in[address / 16 % 8]);
  }
  current_worker->counters.ldmatrix_phases += 1;
  current_worker->counters.ldmatrix_conflicts += most - 1;
}

}  // namespace

void check_row(const void* row, const char* what, Place place) {
  if (reinterpret_cast<uintptr_t>(row) % 16)
    fail("%s at %s:%d: the row's address %p is not 16-byte aligned", what, place.file, place.line, row);
  check_shared(row, 16, what, place);
}

template <int pieces, bool transposed>
void distribute_rows(void* const* operands, uint32_t) {
  for (int piece = 0; piece < pieces; ++piece) {
    count_conflicts(operands + 8 * piece);
    auto element = [&](int row, int column) -> uint32_t {
      return static_cast<const MatrixRow*>(operands[8 * piece + row])->element[column];
    };
    for (int lane = 0; lane < 32; ++lane) {
      const int g = lane / 4, t = lane % 4 * 2;
      const uint32_t low = transposed ? element(t, g) : element(g, t);
      const uint32_t high = transposed ? element(t + 1, g) : element(g, t + 1);
      static_cast<MatrixRow*>(operands[lane])->received[piece] = low | high << 16;
    }
  }
}
template void distribute_rows<1, false>(void* const*, uint32_t);
template void distribute_rows<1, true>(void* const*, uint32_t);
template void distribute_rows<2, false>(void* const*, uint32_t);
template void distribute_rows<2, true>(void* const*, uint32_t);
template void distribute_rows<4, false>(void* const*, uint32_t);
template void distribute_rows<4, true>(void* const*, uint32_t);

void multiply_bf16_lanes(void* const* operands, uint32_t) {
  multiply_lanes<float, 16, 2>(
      operands, [](uint32_t word, int i) { return std::bit_cast<float>(i ? word & 0xffff0000u : word << 16); });
}

void multiply_s8_lanes(void* const* operands, uint32_t) {
  multiply_lanes<int, 32, 4>(operands,
                             [](uint32_t word, int i) { return static_cast<int>(static_cast<int8_t>(word >> 8 * i)); });
}

}  // namespace simt
