#!/usr/bin/env bash
# make profile: where a training step's time goes on a card. Writes runs/profile/timeline.nsys-rep (open it with nsys-ui: layers
# and operations are NVTX ranges) and prints a table of its kernels: share of the step, time, how near each comes to the card's
# bandwidth and to its arithmetic, and which of the two holds it up.
#
#   scripts/profile.sh [FLAGS OF longhand train]...     default: --preset base --dtype bf16 --batch-size 8 --segment 2048
set -euo pipefail
cd "$(dirname "$0")/.."

for tool in nsys ncu nvidia-smi; do
  command -v $tool >/dev/null || { echo "profile: $tool is missing; it comes with the CUDA toolkit and needs a card" >&2 && exit 1; }
done
out=runs/profile
mkdir -p "$out"
flags=("$@")
[ ${#flags[@]} -gt 0 ] || flags=(--preset base --dtype bf16 --batch-size 8 --segment 2048)
seq 1 400000 | awk '{ print $1 * 7919 % 8191 }' >"$out/ids.txt"
train=(build/longhand train --device cuda --tokens "$out/ids.txt" "${flags[@]}" --json)

nsys profile --force-overwrite true --trace cuda,nvtx --capture-range cudaProfilerApi --capture-range-end stop \
  --output "$out/timeline" "${train[@]}" --steps 8 --profile-steps 5-6 >/dev/null
ncu --profile-from-start off --csv --page raw --clock-control none \
  --metrics gpu__time_duration.sum,gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed,sm__throughput.avg.pct_of_peak_sustained_elapsed,sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active,launch__registers_per_thread \
  "${train[@]}" --steps 4 --profile-steps 2 2>/dev/null | grep '^"' >"$out/kernels.csv"
python3 scripts/profile_table.py "$out/kernels.csv" | tee "$out/kernels.md"
echo "timeline: nsys-ui $out/timeline.nsys-rep"
