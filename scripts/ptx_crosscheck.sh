#!/usr/bin/env bash
# nvcc's own PTX of every kernel, turned into C++ (scripts/ptx_to_cpp.py) and run on the host beside the host's build of the
# same kernel, launch by launch, over the operation table's small shapes: the results must agree, bit for bit where nvcc
# expands no function of its own. tests/simt/ptx/compare.cpp says how. Without nvcc or python3 there is nothing to check.
#
#   scripts/ptx_crosscheck.sh [ARCHITECTURE...]         80 90 when none is given
#   scripts/ptx_crosscheck.sh quick [ARCHITECTURE...]   only the kernels of PTX_QUICK (tests/simt/simt.mk), which build fast
set -uo pipefail
cd "$(dirname "$0")/.."

BUILD=${BUILD:-build}
NVCC=${NVCC:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)}
for tool in "${NVCC:-nvcc}" python3; do
  command -v "$tool" >/dev/null || { echo "PTX cross-check: skipped, there is no $tool"; exit 0; }
done

failed=0 part=
[ "${1:-}" = quick ] && { part=quick_; shift; export PTX_PART=1; }
for arch in "${@:-80 90}"; do
  for one in $arch; do
    program=$BUILD/tests/ops_ptx_$part$one
    if ! ${MAKE:-make} --no-print-directory -s -j"$(nproc)" BUILD="$BUILD" NVCC="$NVCC" "$program"; then
      echo "not ok sm_$one: the program does not build"
      failed=1
      continue
    fi
    log=$BUILD/ptx/$part$one.log
    "$program" --device simt --quick ${SIMT_FILTER:+--filter "$SIMT_FILTER"} >"$log" 2>&1
    status=$?
    grep -E '^(not ok|ok|not run) ' "$log" | sed -E "s/^(not ok|ok|not run) /\1 sm_$one /"
    [ $status -ne 0 ] && { failed=1; grep -vE '^ok ' "$log" | tail -5; }
  done
done
exit $failed
