#!/usr/bin/env bash
# What train and plan print and log.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"

seq 1 6000 | awk '{ print $1 * 7 % 31 }' >tokens.txt
train=("$longhand" train --d-model 16 --n-layer 1 --n-head 2 --vocab-size 31 --mem-len 8 --segment 16 --batch-size 2
  --tokens tokens.txt --threads 1 --steps 10)

"${train[@]}" --json >steps.jsonl 2>words.txt
check "--json prints one object a step" test "$(wc -l <steps.jsonl)" -eq 10
check "the first step is 0" grep -qE \
  '^\{"step":0,"loss":[0-9.]+,"grad_norm":[0-9.]+,"lr":[0-9.e-]+,"tokens_per_s":[0-9.]+\}$' <(head -1 steps.jsonl)
check "the last step is steps - 1" grep -q '^{"step":9,' <(tail -1 steps.jsonl)
check "nothing is written without --output" test "$(ls | sort | tr '\n' ' ')" = "steps.jsonl tokens.txt words.txt "

"${train[@]}" --output run --log-every 5 >words.txt
check "the arenas are shown before the first step" grep -q '^activations ' words.txt
check "a line names step, loss, norm, rate, speed and share of the speed of light" grep -qE \
  '^step +4/10  loss [0-9.]+  norm [0-9.e-]+  lr [0-9.e-]+  [0-9,]+ tokens/s  sol [0-9.]+%  left [0-9]+s$' words.txt
check "no line is redrawn in a pipe" test -z "$(grep -P '\r|\x1b' words.txt)"
check "the log starts with the run's description" \
  grep -q '^{"type":"meta","command":.*"config":{.*"flags":{' <(head -1 run/log.jsonl)
check "the log has every step" test "$(grep -c '^{"type":"step"' run/log.jsonl)" -eq 10
check "the log ends with peak memory" grep -q '^{"type":"end".*"peak_memory_bytes":[0-9]' <(tail -1 run/log.jsonl)
check "files carry no paths" test -z "$(grep -laF "$work" run/*.safetensors)"

"$longhand" train --init run/model.safetensors --tokens tokens.txt --batch-size 2 --steps 3 --threads 1 --json \
  >again.jsonl 2>words.txt
first=$(sed -nE '1s/.*"loss":([0-9.]+).*/\1/p' again.jsonl)
last=$(sed -nE '10s/.*"loss":([0-9.]+).*/\1/p' steps.jsonl)
check "--init starts where the other run ended" awk "BEGIN { exit !($first < $last * 1.1) }"

cat >run.yaml <<YAML
model: {d_model: 16, n_layer: 1, n_head: 2, vocab_size: 31, mem_len: 8}
training:
  segment: 16
  batch_size: 2
  steps: 10
YAML
"$longhand" train --config run.yaml --tokens tokens.txt --threads 1 --json 2>words.txt | cut -d, -f1-4 >yaml.jsonl
check "a configuration file gives the same run" cmp -s yaml.jsonl <(cut -d, -f1-4 steps.jsonl)

"$longhand" plan --preset 7b --dtype bf16 --master bf16 --moments bf16 --memory-gb 80 >plan.txt
check "plan counts 8 bytes a parameter for bf16 throughout" grep -q 'bytes a parameter: 8.0, all fp32 16.0' plan.txt
"$longhand" plan --preset 7b --memory-gb 80 >plan.txt
check "plan says which flags would make it fit" grep -qE 'does not fit .* it does with --dtype bf16' plan.txt
check "plan speaks JSON" grep -q '"fits":false' <("$longhand" plan --preset 7b --memory-gb 80 --json)
