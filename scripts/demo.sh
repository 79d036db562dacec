#!/usr/bin/env bash
# make demo: real text in twelve languages -> token file -> a tiny model -> samples and a report. What is there already is
# used again; `rm -r data runs/demo` starts afresh.
set -euo pipefail
cd "$(dirname "$0")/.."

longhand=build/longhand
corpus=data/corpus tokens=data/tokens.safetensors run=runs/demo
train_seconds=${TRAIN_SECONDS:-100}
# Few tokens a step: in so short a run the number of steps counts most.
shape=(--preset tiny --segment 128 --mem-len 128 --batch-size 4 --lr 3e-3 --min-lr-ratio 0.02 --dtype bf16 --tokens "$tokens" --seed 1)

step() { printf '\n== %s\n' "$*"; }

step "corpus: twelve languages of the LibreOffice help"
scripts/fetch_corpus.sh "$corpus"

step "vocabulary and token file"
if [ -e "$tokens" ]; then
  echo "$tokens is there"
else
  "$longhand" prepare --corpus libreoffice --corpus-directory "$corpus" --vocab-size 8192 --output "$tokens"
fi

step "training"
if [ -e "$run/model.safetensors" ]; then
  echo "$run/model.safetensors is there"
else
  # A few steps tell how many fit into the time; the schedule then reaches its floor at the last of them. The fastest one
  # counts: what else the machine does can only slow a step down.
  rate=$("$longhand" train "${shape[@]}" --steps 20 --json --validate-tokens 0 |
    sed -nE 's/.*"tokens_per_s": *([0-9.]+).*/\1/p' | tail -15 | sort -n | tail -1)
  steps=$(awk -v rate="$rate" -v seconds="$train_seconds" \
    'BEGIN { s = int(rate * seconds / 512); if (s < 100) s = 100; if (s > 6000) s = 6000; print s }')
  "$longhand" train "${shape[@]}" --steps "$steps" --output "$run" --resume \
    --validate-tokens 4096 --validate-every $(((steps + 3) / 4))
fi

sample() {
  printf '%-4s%s' "$2" "$3"
  "$longhand" generate --model "$1" --prompt "$3" --tokens 40 --temperature 0.5 --top-p 0.9 --seed 7 | tr '\n' ' '
  echo
}
# No prompt ends in a blank: words begin with theirs.
samples() {
  sample "$1" en "To insert a new row,"
  sample "$1" de "Klicken Sie auf"
  sample "$1" fr "Cliquez sur"
  sample "$1" es "Haga clic en el"
  sample "$1" zh "在对话框中"
  sample "$1" ja "選択した"
}
step "samples of this model, a few minutes old"
samples "$run/model.safetensors"
step "samples of weights/small.safetensors, trained for an hour on one core"
samples weights/small.safetensors

step "report"
"$longhand" report "$run"

step "summary"
"$longhand" info "$run/model.safetensors" | sed -n 1p
grep -h '"type":"validation"' "$run/log.jsonl" | tail -1 | grep -oE '"bits_per_byte":[0-9.]+' | head -1 |
  sed -E 's/.*:([0-9]+\.[0-9]{3}).*/validation: \1 bits a byte, mean over twelve languages/'
grep -h '"type":"end"' "$run/log.jsonl" | tail -1 |
  sed -E 's/.*"seconds":([0-9]+)[0-9.]*,.*"tokens_per_s":([0-9]+)[0-9.]*,.*"peak_memory_bytes":([0-9]+).*/training: \1 s, \2 tokens a second, \3 bytes at most/'

cat <<TEXT

Three commands to try next:
  $longhand chat --model $run/model.safetensors
  $longhand train --preset tiny --tokens $tokens --output runs/longer --steps 3000
  $longhand plan --preset 7b --dtype bf16 --master bf16 --moments bf16
and open $run/report.html in a browser.
TEXT
