#!/usr/bin/env bash
# Who needs which library, beside the compilers, the C and C++ libraries and the CUDA toolkit:
#
#   devices, kernels, operation table, their tests and benchmarks   fmt, doctest
#   the core                                                        fmt, doctest, nlohmann-json
#
# The first by asking the compiler for every header that it opens for one of these files; the second, which also has files that
# the compiler here may not see, by their include lines.
set -euo pipefail
cd "$(dirname "$0")/.."

kernels() { # every header outside of this tree that building devices, kernels and their programs opens
  local flags=(-std=c++20 -Iinclude -I. -DLONGHAND_GPU=simt_device -DLONGHAND_ISA=generic)
  [ -d staged/include ] && flags+=(-isystem staged/include)
  local sources cxx
  read -ra cxx <<<"${CXX:-g++}"
  mapfile -t sources < <(ls src/base/*.cpp src/device/*.cpp src/device/cpu/*.cpp src/device/cpu/kernels/*.cpp tests/ops/*.cpp \
    bench/ops.cpp cuda/product_host.cpp cuda/simt/*/*.cpp tests/simt/*.cpp | grep -vE '^src/base/safetensors')
  "${cxx[@]}" "${flags[@]}" -M "${sources[@]}"
  mapfile -t sources < <(ls cuda/*.cu tests/simt/*.cu bench/progression/*.cu | grep -v product_cublaslt)
  "${cxx[@]}" "${flags[@]}" -x c++ -M "${sources[@]}"
}
compiler='/usr/lib/gcc/.*|/usr/include/.*/?c\+\+/[0-9]+/.*'
c_library='/usr/include/([a-z0-9_]+-linux-gnu/)?((bits|sys|gnu|asm|asm-generic|linux)/.*|(alloca|ctype|dlfcn|elf|endian|errno|fcntl|features|features-time64|libintl|limits|link|locale|math|pthread|sched|semaphore|signal|stdc-predef|stdint|stdio|stdlib|string|strings|syscall|time|ucontext|unistd|wchar|wctype)\.h)'
toolkit='.*/(cuda[^/]*)/.*|/usr/(local/)?include/cuda_(bf16|fp16|runtime)[^/]*|.*/include/(cuda_.*|crt/.*|nv/.*|(builtin|device|driver|surface|texture|vector)_(types|functions)\.(h|hpp))'
opened=$(kernels | tr -d '\\' | tr ' ' '\n' | grep -E '^/|^staged/' | sort -u)
others=$(echo "$opened" | grep -vE "^($compiler|$c_library|$toolkit|.*/(fmt|doctest)/[^/]*)$" || true)
if [ -n "$others" ]; then
  echo "devices, kernels and their tests open headers beyond fmt and doctest:" >&2
  echo "$others" >&2
  exit 1
fi
echo "devices, kernels, their tests and benchmarks open $(echo "$opened" | wc -l) headers of others: no library's but fmt's and doctest's"

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
echo "${#existing[@]} files of the core include no library but fmt, doctest and nlohmann-json"
