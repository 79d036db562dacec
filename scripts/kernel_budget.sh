#!/usr/bin/env bash
# What every kernel takes on every architecture, against the committed table tests/simt/kernel_budget.txt.
#
#   scripts/kernel_budget.sh check [ARCHITECTURE...]   fails on a change for the worse: 80 90 120 when none is given
#   scripts/kernel_budget.sh write                     writes the table anew, for all of them
#
# For the worse is: a spilled register, whatever the table says; and, with the toolkit that the table was written with, one
# register or one byte of shared memory more, one resident block less, more bank conflicts, or a kernel that the table lacks.
# Who wants that all the same writes the table anew: the change then stands in the diff. Another toolkit chooses registers its
# own way: with one, only spills and bank conflicts count.
#
# Registers, static shared memory and spills are ptxas's; threads and dynamic shared memory the largest that the operation
# table's small shapes launch, as are the bank conflicts of ldmatrix; resident blocks follow from them. Without nvcc there is
# nothing to check.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-check}
shift || true
archs=${*:-80 90 120}
[ "$mode" = write ] && archs="80 90 120"
BUILD=${BUILD:-build}
NVCC=${NVCC:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null || true)}
if [ -z "$NVCC" ]; then
  echo "kernel budget: skipped, there is no nvcc"
  exit 0
fi
${MAKE:-make} --no-print-directory -s -j"$(nproc)" BUILD="$BUILD" NVCC="$NVCC" PTX_ARCHS="$archs" kernel-usage "$BUILD/tests/ops"
SIMT_LAUNCH_LOG=$BUILD/ptx/launches.txt "$BUILD/tests/ops" --device simt --quick >/dev/null || true  # its failures are its own
version=$("$NVCC" --version | sed -nE 's/.*release ([0-9.]+).*/\1/p')
python3 scripts/kernel_budget.py "$mode" "$BUILD" "$version" $archs
