#!/usr/bin/env bash
# Low-rank updates beside the 7b preset in int8, on the cpu: the run of bench/results/lora_7b.md. The weights are drawn,
# so no file of 7 GB is needed: what is measured is memory, time, and that the loss falls on examples that come again.
#   scripts/lora_7b.sh [STEPS]        (needs build/longhand and about 9 GB of free memory)
# PRESET, SEGMENT and RATE take the place of 7b, 64 and 1e-3; OUTPUT=FOLDER keeps the run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
steps=${1:-20} preset=${PRESET:-7b} segment=${SEGMENT:-64}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

need=1
[ "$preset" != 7b ] || need=9
free=$(awk '/MemAvailable/ { printf "%d", $2 / 1e6 }' /proc/meminfo)
[ "$free" -ge "$need" ] || { echo "lora_7b: $free GB of memory are free, the run takes about $need" >&2; exit 1; }

cat >"$work/data.jsonl" <<'DATA'
{"instruction": "Name the colour.", "input": "grass", "output": "Grass is green in spring."}
{"instruction": "Name the colour.", "input": "the sky", "output": "The sky is blue at noon."}
DATA
train=(build/longhand finetune --preset "$preset" --random-base --base int8 --tokenizer weights/tiny.safetensors
  --data "$work/data.jsonl" --template plain --validation-ratio 0 --max-seq-length "$segment" --batch-size 1
  --lora 8 --lora-sites q,k,v,output,up,down --dtype bf16 --lr "${RATE:-1e-3}" --schedule constant --spike 0
  --steps "$steps" --log-every 1 --device cpu)
[ -z "${OUTPUT:-}" ] || train+=(--output "$OUTPUT")  # the adapter, and a checkpoint with the 7 GB beside it

echo "${train[*]}" | sed "s|$work/||"
start=$(date +%s)
/usr/bin/time -f '%M' -o "$work/peak" "${train[@]}" --json 2>"$work/log" | awk -F'[:,}]' '
  { for (i = 1; i < NF; ++i) if ($i ~ /"loss"/) loss = $(i + 1)
    if (NR == 1) first = loss
    printf "step %d  loss %.4f\n", NR - 1, loss
    fflush() }
  END {
    if (NR > 0) printf "%d steps, loss %.4f -> %.4f, ", NR, first, loss
    exit !(loss < first)
  }' || { cat "$work/log"; exit 1; }
awk '/ steps, .* s, median/ { printf "%.2f s a step, ", $3 / $1 }' "$work/log"
echo "$(($(date +%s) - start)) s in all, peak memory $(awk 'END { printf "%.2f", $1 * 1024 / 1e9 }' "$work/peak") GB"
cat "$work/log"
