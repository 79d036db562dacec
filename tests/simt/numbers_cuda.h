// CUDA's own bf16 header, compiled for the host in a file of its own.
#pragma once

namespace simt_test {

bool cuda_header_present();
unsigned short cuda_round(float f);
unsigned short cuda_truncate(float f);
unsigned short cuda_round_double(double d);
unsigned short cuda_add(unsigned short a, unsigned short b);
unsigned short cuda_multiply(unsigned short a, unsigned short b);

}  // namespace simt_test
