// What the kernels that write rings of keys and values share with those that read them.
#pragma once

#include "cuda/numeric.h"

namespace longhand::LONGHAND_GPU {

/// work(T{}) for the types of rings: fp32, bf16, or 8-bit integers with scales.
template <class Work>
void for_ring_type(Dtype type, const Work& work) {
  if (type == Dtype::i8)
    work(int8_t{});
  else
    for_type(type, work);
}

}  // namespace longhand::LONGHAND_GPU
