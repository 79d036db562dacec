#!/usr/bin/env bash
# The GPU's kernels, run on the host, train and generate as the cpu device does.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"

cp "$sources/weights/tiny.safetensors" tiny.safetensors
seq 1 8000 | awk '{ print $1 * 7919 % 8191 }' >tokens.txt

# losses DEVICE FLAGS...: the losses of 20 steps, one a line
losses() {
  local device=$1
  shift
  "$longhand" train --preset tiny --tokens tokens.txt --segment 24 --mem-len 40 --batch-size 2 --steps 20 --seed 3 --lr 1e-3 \
    --dropout-embedding 0.1 --dropout-attention 0.1 --dropout-residual 0.1 --dropout-activation 0.1 --dropout-feedforward 0.1 \
    --device "$device" --json "$@" 2>words.txt | sed -nE 's/.*"loss":([0-9.]+).*/\1/p'
}

# close A B LIMIT: the same 20 losses, each within a relative LIMIT
close() {
  [ "$(wc -l <"$1")" -eq 20 ] && paste "$1" "$2" |
    awk -v limit="$3" '{ d = ($1 - $2) / $1; if (d < 0) d = -d; if (d > limit || $2 == "") bad = 1 } END { exit bad }'
}

# compare NAME LIMIT FLAGS...
compare() {
  local name=$1 limit=$2
  shift 2
  losses cpu "$@" >cpu.txt
  losses simt "$@" >simt.txt
  check "$name" close cpu.txt simt.txt "$limit"
}
compare "20 steps in fp32, dense, with memory and dropout: the cpu's losses to 1e-4" 1e-4
compare "20 steps in fp32, exact top-k: the cpu's losses to 1e-4" 1e-4 --topk 16
compare "20 steps in bf16, dense: the cpu's losses to 1e-2" 1e-2 --dtype bf16
compare "20 steps in bf16, exact top-k, bf16 master and moments: the cpu's losses to 1e-2" 1e-2 \
  --topk 16 --dtype bf16 --master bf16 --moments bf16

for prompt in "Click " "单击"; do
  for device in cpu simt; do
    "$longhand" generate --model tiny.safetensors --prompt "$prompt" --tokens 24 --temperature 0 --device $device >$device.txt
  done
  check "generate writes the cpu's greedy tokens after \"$prompt\"" cmp -s cpu.txt simt.txt
done
