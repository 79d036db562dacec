#!/usr/bin/env bash
# Puts into staged/ what a bare machine with a card and nvcc may lack to build the core: the headers of fmt, nlohmann-json and
# doctest, and cuBLASLt's and NVTX's where this machine has them. Carry the folder with the tree; the Makefile looks into it.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf staged && mkdir -p staged/include
for header in fmt nlohmann doctest; do
  place=$(for d in /usr/include /usr/local/include; do [ -e "$d/$header" ] && echo "$d/$header" && break; done || true)
  if [ -z "$place" ]; then echo "gpu_stage: $header is not installed here: make packages" >&2 && exit 1; fi
  cp -rL "$place" staged/include/
done
toolkit=$(dirname "$(dirname "$(readlink -f "$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)")")")
for header in cublasLt.h cublas_api.h cublas_v2.h cuda_profiler_api.h nvtx3; do
  found=$(find -L "$toolkit" -maxdepth 4 -name "$header" -path '*include*' 2>/dev/null | head -1)
  [ -z "$found" ] || cp -rL "$found" staged/include/
done
du -sh staged | cut -f1 | sed 's/$/ in staged\//'
