// Data at fault that only a kernel sees: a token outside the vocabulary, logits that are not numbers. The kernel leaves
// the row out of its work and records it; the device fails with it where the host waits for results anyway, so that no
// operation has to wait for its inputs to be read back.
#pragma once

#include <cstdint>

#include "cuda/simt/simt.h"
#include "longhand/error.h"

namespace longhand::LONGHAND_GPU {

enum class Fault : int {
  embedding_forward_token,
  embedding_backward_token,
  cross_entropy_token,
  log_probability_token,
  sample_history,
  sample_logits,
  ring_sequence,
  decode_sequence,
  crf_target,
};
constexpr int fault_kinds = 9;
constexpr unsigned long long no_fault = ~0ull;

/// Keeps the smallest row of those reported, with its value. `slot` is GpuDevice::fault().
__device__ __forceinline__ void report_fault(unsigned long long* slot, int64_t row, int32_t value) {
  atomicMin(slot, static_cast<unsigned long long>(row) << 32 | static_cast<uint32_t>(value));
}

[[noreturn]] inline void fail_fault(Fault kind, unsigned long long found, int64_t bound) {
  auto row = static_cast<int64_t>(found >> 32);
  auto value = static_cast<int32_t>(static_cast<uint32_t>(found));
  constexpr const char* operation[] = {"embedding_forward", "embedding_backward", "cross_entropy", "log_probability"};
  switch (kind) {
    case Fault::sample_history:
      fail("sample: token {} in the history of row {} is not in the vocabulary of {}", value, row, bound);
    case Fault::sample_logits:
      fail(
          "sample: the logits of row {} are not numbers: NaN, infinite, or all -infinite; the weights or their types "
          "are at fault, or no token is allowed",
          row);
    case Fault::ring_sequence:
      fail("ring_store: row {} goes to sequence {} of {}, or to a position below 0", row, value, bound);
    case Fault::decode_sequence:
      fail("attention_decode: row {} stands in sequence {} of {}, or at a position below 0", row, value, bound);
    case Fault::crf_target:
      fail("crf_loss: target {} of row {} is none of {} labels", value, row, bound);
    default:
      fail("{}: token {} of row {} is not in the vocabulary of {}", operation[static_cast<int>(kind)], value, row,
           bound);
  }
}

}  // namespace longhand::LONGHAND_GPU
