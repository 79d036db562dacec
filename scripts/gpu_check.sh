#!/usr/bin/env bash
# Everything that needs a card, in one call of at most eight minutes on a bare machine (nvcc, this tree, and staged/ from
# scripts/gpu_stage.sh where headers are missing): builds, runs the operation table, compute-sanitizer on the small shapes,
# rooflines, a training run against the CPU's losses, training and decoding speed. Prints one short table last and leaves
# bench/results/gpu-DATE-CARD.json.
#
#   scripts/gpu_check.sh             on a machine with a card
#   scripts/gpu_check.sh --dry-run   without one: builds what the toolkit here allows, runs the same steps on the simt device
set -uo pipefail
cd "$(dirname "$0")/.."

dry=false device=cuda preset=base decode_preset=7b limit=300
[ "${1:-}" = --dry-run ] && dry=true device=simt preset=tiny decode_preset=tiny limit=3000
if ! $dry && ! nvidia-smi >/dev/null 2>&1; then
  echo "gpu_check: this machine has no card (nvidia-smi fails); --dry-run does all but launch" >&2
  exit 1
fi

results=${RESULTS:-bench/results}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/table"
begun=$(date +%s)

card() { $dry && echo "none" || nvidia-smi --query-gpu="$1" --format=csv,noheader,nounits | head -1; }
name=$(card name)
archs=80
$dry || archs=$(card compute_cap | tr -d .)

# step NAME COMMAND...: its output goes to a log, its outcome and time to the table
step() {
  local title=$1 start status
  shift
  start=$(date +%s.%N)
  timeout $limit "$@" >"$work/log" 2>&1
  status=$?
  local took
  took=$(awk -v a="$start" -v b="$(date +%s.%N)" 'BEGIN { printf "%.0f", b - a }')
  local figure
  figure=$(grep -E '^[0-9]+ passed, [0-9]+ failed$|^ERROR SUMMARY|^\{"task"' "$work/log" | tail -1)
  [ "$status" -eq 0 ] && outcome=ok || outcome="FAILED ($status)"
  printf '%-34s %-12s %5s s  %s\n' "$title" "$outcome" "$took" "$(echo "$figure" | cut -c1-120)" | tee -a "$work/table"
  [ "$status" -eq 0 ] || tail -15 "$work/log"
  printf '{"step": "%s", "ok": %s, "seconds": %s}\n' "$title" "$([ "$status" -eq 0 ] && echo true || echo false)" "$took" \
    >>"$work/steps"
  [ -z "${KEEP:-}" ] || cp "$work/log" "$work/$KEEP"
}

# A dry run without nvcc builds for the host alone; without cuBLASLt it compiles the kernels and links none of them.
toolkit=$(dirname "$(dirname "$(readlink -f "${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}")")")
cuda=1
if $dry && [ ! -x "$toolkit/bin/nvcc" ]; then
  echo "no nvcc: the kernels are built for the host alone"
  cuda=
elif $dry && ! ls "$toolkit"/lib64/libcublasLt.so >/dev/null 2>&1; then
  step "build: kernels with nvcc" make --no-print-directory -j"$(nproc)" CUDA_ARCHS="$archs" cuda-objects
  cuda=
fi
step "build: operation table, benchmarks" make --no-print-directory -j"$(nproc)" CUDA=$cuda CUDA_ARCHS="$archs" \
  build/tests/ops build/bench/ops build/bench/model build/bench/progression
quick=()
$dry && quick=(--quick)
step "operation table" build/tests/ops --device $device "${quick[@]}"
if ! $dry; then
  step "compute-sanitizer memcheck" compute-sanitizer --tool memcheck --error-exitcode 9 build/tests/ops --device cuda --quick
  step "compute-sanitizer racecheck, bf16" compute-sanitizer --tool racecheck --error-exitcode 9 build/tests/ops --device cuda \
    --quick --filter " bf16"
fi
if $dry && [ -n "$cuda" ]; then
  step "progression: built, not launched" test -x build/bench/progression
else
  step "progression" build/bench/progression
fi
shapes=()
$dry && shapes=(--filter "rows=1 " --seconds 0)
KEEP=roofline step "rooflines" build/bench/ops --device $device --json "${shapes[@]}"
KEEP=train_fp32 step "training against the cpu, fp32" build/bench/model train --preset tiny --device $device --against cpu \
  --segment 32 --memory 32 --lanes 2 --steps 20
KEEP=train_bf16 step "training against the cpu, bf16" build/bench/model train --preset tiny --device $device --against cpu \
  --segment 32 --memory 32 --lanes 2 --steps 20 --dtype bf16
if $dry; then
  sizes=(--segment 16 --memory 16 --lanes 1 --steps 2) window=32
else
  sizes=(--segment 2048 --memory 2048 --lanes 8 --steps 12) window=4096
fi
KEEP=speed step "training speed, $preset" build/bench/model train --preset $preset --device $device --dtype bf16 "${sizes[@]}"
$dry || KEEP=speed_large step "training speed, large" build/bench/model train --preset large --device cuda --dtype bf16 \
  --segment 2048 --memory 2048 --lanes 4 --steps 12
KEEP=decode step "decode, $preset" build/bench/model decode --preset $preset --device $device --dtype bf16 --window $window \
  --tokens $($dry && echo 4 || echo 128)
$dry || KEEP=decode_7b step "decode, $decode_preset" build/bench/model decode --preset $decode_preset --device cuda --dtype bf16 \
  --window 4096 --tokens 64

mkdir -p "$results"
slug=$(echo "$name" | tr 'A-Z ' 'a-z-' | tr -cd 'a-z0-9-')
file=$results/gpu-$(date +%Y-%m-%d)-$slug.json
$dry && file=$work/dry.json
{
  echo '{'
  printf ' "card": "%s", "driver": "%s", "clock_mhz": "%s", "power_limit_w": "%s",\n' "$name" "$(card driver_version)" \
    "$(card clocks.max.sm)" "$(card power.limit)"
  printf ' "toolkit": "%s", "commit": "%s", "date": "%s",\n' "$(${NVCC:-nvcc} --version 2>/dev/null | grep -oE 'V[0-9.]+' | tail -1)" \
    "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" "$(date +%Y-%m-%d)"
  printf ' "steps": [\n%s\n ],\n' "$(sed '$!s/$/,/' "$work/steps")"
  printf ' "figures": [\n%s\n ],\n' "$(cat "$work"/train_fp32 "$work"/train_bf16 "$work"/speed* "$work"/decode* 2>/dev/null |
    grep '^{' | sed '$!s/$/,/')"
  printf ' "rooflines": [\n%s\n ]\n}\n' "$(grep '^{' "$work/roofline" | sed '$!s/$/,/')"
} >"$file"
$dry && python3 -c 'import json, sys; json.load(open(sys.argv[1]))' "$file" && echo "the record is valid JSON"

echo
cat "$work/table"
failed=$(grep -c FAILED "$work/table")
echo "$(($(date +%s) - begun)) s, $($dry && echo 'dry run' || echo "$file")"
echo "$(($(wc -l <"$work/table") - failed)) passed, $failed failed"
[ "$failed" -eq 0 ]
