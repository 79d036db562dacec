#!/usr/bin/env bash
# The core library, the kernels, their tests and benchmarks need fmt, doctest and nlohmann-json alone, beside the compilers, the
# system's own headers and the CUDA toolkit: names every other header that one of their files includes.
set -euo pipefail
cd "$(dirname "$0")/.."

files=(include/longhand/*.h src/{base,device,model,data,train,generate}/*.{h,cpp} src/device/cpu/*.{h,cpp} src/device/cpu/kernels/*.{h,cpp}
  cuda/*.{h,cu,cpp} cuda/simt/*.h cuda/simt/*/*.{h,cpp} tests/{ops,core,simt}/*.{h,cpp,cu} bench/*.cpp)
existing=()
for file in "${files[@]}"; do [ -e "$file" ] && existing+=("$file"); done

toolkit='cuda_(runtime|bf16|fp16|profiler_api)\.h|cublasLt\.h|nvtx3/.*'
system='sys/.*|sanitizer/.*|immintrin\.h|emmintrin\.h|cxxabi\.h|(elf|link|dlfcn|fcntl|pthread|sched|ucontext|unistd)\.h'
libraries='fmt/.*|doctest/.*|nlohmann/.*'
others=$(grep -nHoE '^[[:space:]]*#[[:space:]]*include <[^>]+>' "${existing[@]}" |
  grep -vE "<([a-z_]+|$toolkit|$system|$libraries)>" || true)
if [ -n "$others" ]; then
  echo "headers beyond fmt, doctest and nlohmann-json:" >&2
  echo "$others" >&2
  exit 1
fi
echo "${#existing[@]} files include no library but fmt, doctest and nlohmann-json"
