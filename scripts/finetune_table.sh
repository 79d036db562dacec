#!/usr/bin/env bash
# Fine-tuning of the tiny weights, measured: the guide's configuration with its learning rate and a greater one, what to train,
# numbers in words with and without digits apart. Writes bench/results/finetuning.md. A run that is there already is not made again,
# what was broken off goes on.
#
#   scripts/finetune_table.sh [RUNS] [CORPUS]      runs/finetuning and data/corpus when not given; THREADS=2
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${1:-runs/finetuning} corpus=${2:-data/corpus} threads=${THREADS:-2} longhand=${LONGHAND:-build/longhand}
model=weights/tiny.safetensors
result=bench/results/finetuning.md
mkdir -p "$runs"

cat >"$runs/guide.yaml" <<'YAML'
training:
  batch_size: 32
  learning_rate: 2e-5
  max_seq_length: 2048
  num_train_epochs: 5
  warmup_ratio: 0.1
optimizer:
  type: AdamW
  weight_decay: 0.01
YAML

# build NAME FLAGS...: a file of examples.
build() {
  local name=$1
  shift
  [ -e "$runs/$name.jsonl" ] || "$longhand" data build "$runs/$name.jsonl" --corpus-directory "$corpus" "$@"
}

# answer NAME DATA LIMIT FLAGS...: the answers of a model to validation examples of DATA, and their figures.
answer() {
  local name=$1 data=$2 limit=$3
  shift 3
  [ -e "$runs/$name/scores.txt" ] && return
  mkdir -p "$runs/$name"
  "$longhand" eval --data "$runs/$data.jsonl" --template plain --limit "$limit" --show 3 --threads "$threads" \
    --output "$runs/$name/answers.jsonl" "$@" >"$runs/$name/scores.part"
  mv "$runs/$name/scores.part" "$runs/$name/scores.txt"
}

# tune NAME DATA LIMIT FLAGS...: a run, then its answers.
tune() {
  local name=$1 data=$2 limit=$3 run=$runs/$1
  shift 3
  if [ ! -e "$run/model.safetensors" ] && [ ! -e "$run/adapter.safetensors" ]; then
    echo "$name"
    "$longhand" finetune --model "$model" --data "$runs/$data.jsonl" --template plain --threads "$threads" --answers 0 \
      --output "$run" --resume "$@" >>"$run.txt"
  fi
  if [ -e "$run/adapter.safetensors" ]; then
    answer "$name" "$data" "$limit" --model "$model" --adapter "$run/adapter.safetensors"
  else
    answer "$name" "$data" "$limit" --model "$run/model.safetensors"
  fi
}

build translate --task translation --languages en,de --examples 6000
build numbers --task numbers --examples 36000

answer tiny translate 200 --model "$model"
tune guide translate 200 --config "$runs/guide.yaml"
tune guide-1e-3 translate 200 --config "$runs/guide.yaml" --lr 1e-3

model=weights/small.safetensors
answer small translate 200 --model "$model"
tune small-guide translate 200 --config "$runs/guide.yaml"
model=weights/tiny.safetensors

short=(--max-seq-length 256 --batch-size 16 --epochs 1)
tune full translate 200 "${short[@]}" --lr 1e-3
tune lora-8 translate 200 "${short[@]}" --lr 5e-3 --lora 8 --lora-sites q,k,v,output,up,down
tune adapters translate 200 "${short[@]}" --lr 5e-3 --adapters 64
tune bias translate 200 "${short[@]}" --lr 1e-2 --train-only '*bias'
tune embedding translate 200 "${short[@]}" --lr 3e-3 --train-only 'embedding.*'

tune numbers numbers 0 --lr 2e-3 --max-seq-length 256 --batch-size 8 --epochs 2 --validate-tokens 2000

# The same from random weights, once with every digit a token, once with a vocabulary whose pieces may hold several.
four=en,es,it,zh
build numbers-four --task numbers --languages $four --examples 16000
for digits in apart joined; do
  tokens=$runs/$digits.safetensors
  [ -e "$tokens" ] || "$longhand" prepare --corpus-directory "$corpus" --languages $four --vocab-size 4096 \
    $([ $digits = apart ] || echo --join-digits) --output "$tokens" --threads "$threads"
  model=$runs/start-$digits/model.safetensors
  [ -e "$model" ] || "$longhand" train --preset tiny --tokens "$tokens" --steps 1 --batch-size 1 --segment 64 --threads "$threads" \
    --output "$runs/start-$digits" --overwrite >/dev/null
  tune digits-$digits numbers-four 0 --lr 2e-3 --max-seq-length 256 --batch-size 8 --epochs 2 --validate-tokens 2000
done

compare() { (cd "$runs" && "$OLDPWD/$longhand" compare "$@"); }
[ "${longhand#/}" = "$longhand" ] || compare() { (cd "$runs" && "$longhand" compare "$@"); }
block() { printf '```\n%s\n```\n' "$1"; }
scores() { sed -n '/^task /,$p' "$runs/$1/scores.txt"; }

{
  echo "# Fine-tuning the tiny weights, measured"
  echo
  echo "By \`scripts/finetune_table.sh\`, $threads thread$([ "$threads" = 1 ] || echo s) of $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1), template \`plain\`."
  echo "Losses are nats a token of the answers; answers are greedy, to validation examples that no training saw."
  echo
  echo "## The guide's configuration: 6,000 translation pairs, English and German"
  echo
  block "$(compare guide guide-1e-3)"
  echo
  echo "Before:"
  echo
  block "$(scores tiny)"
  echo
  echo "After, with the guide's learning rate, 2e-5:"
  echo
  block "$(scores guide)"
  echo
  echo "After, with 1e-3:"
  echo
  block "$(cat "$runs/guide-1e-3/scores.txt")"
  echo
  echo "The same configuration with \`weights/small.safetensors\`:"
  echo
  block "$(compare guide small-guide | sed '/^$/,$d')"
  echo
  echo "Before:"
  echo
  block "$(scores small)"
  echo
  echo "After, with 2e-5:"
  echo
  block "$(cat "$runs/small-guide/scores.txt")"
  echo
  echo "## What to train: the same pairs, rows of 256 tokens, one epoch"
  echo
  block "$(compare full lora-8 adapters bias embedding)"
  echo
  echo "## Numbers in words, 0 to 9999, twelve languages"
  echo
  echo "36,000 examples, 3,000 numbers a language; the answers are to the numbers that were held back."
  echo
  block "$(cat "$runs/numbers/scores.txt")"
  echo
  echo "Four languages from random weights, 4,000 numbers a language, two epochs, every digit a token:"
  echo
  block "$(scores digits-apart)"
  echo
  echo "The same with a vocabulary that was trained on the same text without splitting digits (\`prepare --join-digits\`):"
  echo
  block "$(scores digits-joined)"
} >"$result.part"
mv "$result.part" "$result"
echo "$result"
