#!/usr/bin/env bash
# A run that is killed, or interrupted, and resumed ends in the same files as one that went through: with dropout on, in
# both master-weight modes, at one thread and at two.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"

seq 1 40000 | awk '{ print ($1 * $1 + int($1 / 7)) % 97 }' >tokens.txt
train=("$longhand" train --d-model 32 --n-layer 2 --n-head 2 --vocab-size 97 --mem-len 24 --segment 32 --batch-size 4
  --micro-batch 2 --steps 120 --dropout 0.1 --tokens tokens.txt --checkpoint-every 7 --seed 3)
modes=("--dtype fp32 --segment-start 8 --segment-steps 60 --pacing root" "--dtype bf16 --master fp32" "--dtype bf16 --master bf16 --moments bf16")

same() {  # same NAME RUN-A RUN-B
  check "$1: the weights are the same bits" cmp "$2/model.safetensors" "$3/model.safetensors"
  check "$1: the checkpoints are the same bits" cmp "$2/checkpoint-120.safetensors" "$3/checkpoint-120.safetensors"
}

wait_for_step() {  # wait_for_step RUN PID STEP: until a checkpoint of that step or a later one is there
  while kill -0 "$2" 2>/dev/null; do
    for file in "$1"/checkpoint-*.safetensors; do
      file=${file##*-}
      if [ "${file%.safetensors}" -ge "$3" ] 2>/dev/null; then return; fi
    done
    sleep 0.01
  done
}

for threads in 1 2; do
  for mode in "${modes[@]}"; do
    name="$mode, $threads threads"
    command=("${train[@]}" $mode --threads "$threads")
    rm -rf through again killed stopped
    "${command[@]}" --output through >through.txt || cat through.txt
    "${command[@]}" --output again >/dev/null
    same "$name, twice" through again

    "${command[@]}" --output killed >/dev/null &
    pid=$!
    wait_for_step killed $pid $((RANDOM % 70 + 7))
    sleep "0.0$((RANDOM % 10))"
    kill -9 $pid 2>/dev/null
    wait $pid 2>/dev/null
    "${command[@]}" --output killed --resume >/dev/null
    same "$name, killed" through killed

    "${command[@]}" --output stopped >/dev/null &
    pid=$!
    wait_for_step stopped $pid 14
    kill -INT $pid 2>/dev/null
    wait $pid
    status=$?
    check "$name: an interrupted run leaves with 130" test "$status" -eq 130
    check "$name: an interrupted run has no final weights yet" test ! -e stopped/model.safetensors
    "$longhand" train --resume --output stopped --tokens tokens.txt --threads "$threads" >/dev/null
    same "$name, interrupted" through stopped
  done
done
