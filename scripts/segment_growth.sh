#!/usr/bin/env bash
# Growing segments in pre-training: the tiny preset from random weights over the same tokens with segments of full length, and with
# segments that grow, at several seeds. Writes bench/results/segment_growth.md. What has been run is not run again.
#
#   CORPUS (data/corpus), LANGUAGES (en,de), EPOCHS (0.2), SEEDS ("1 2 3"), GROWTH (200 steps to full length), RUNS (runs/segments),
#   THREADS (2), RESULT
set -euo pipefail
cd "$(dirname "$0")/.."

given=
for name in LANGUAGES EPOCHS SEEDS GROWTH THREADS; do [ -z "${!name:-}" ] || given+=$(printf '%s=%q ' "$name" "${!name}"); done
longhand=${LONGHAND:-build/longhand}
corpus=${CORPUS:-data/corpus} languages=${LANGUAGES:-en,de} epochs=${EPOCHS:-0.2} seeds=${SEEDS:-1 2 3}
runs=${RUNS:-runs/segments} threads=${THREADS:-2} result=${RESULT:-bench/results/segment_growth.md}
shape=(--preset tiny --segment 256 --mem-len 256 --batch-size 4 --lr 3e-3 --epochs "$epochs" --validate-tokens 50000
  --validate-every 100000 --threads "$threads")
mkdir -p "$runs"
[ -e "$runs/tokens.safetensors" ] || "$longhand" prepare --corpus libreoffice --corpus-directory "$corpus" --languages "$languages" \
  --tokenizer weights/tiny.safetensors --output "$runs/tokens.safetensors" --threads "$threads" >"$runs/tokens.txt"

run() { # NAME FLAGS...
  local name=$1 seed
  shift
  for seed in $seeds; do
    [ -e "$runs/$name-$seed/model.safetensors" ] || "$longhand" train --tokens "$runs/tokens.safetensors" "${shape[@]}" --seed "$seed" \
      --output "$runs/$name-$seed" --resume "$@" >"$runs/$name-$seed.txt"
  done
  row "$name" "$*" >>"$runs/rows.part"
}

# row NAME FLAGS: mean and spread over the seeds, and the least time
row() {
  local seed
  for seed in $seeds; do
    awk -v lanes=4 -v full=256 '
      function number(key) { return match($0, "\"" key "\":[0-9.e+-]+") ? substr($0, RSTART + length(key) + 3, RLENGTH - length(key) - 3) : "" }
      /"type":"step"/ { n = number("segment"); tokens += lanes * (n == "" ? full : n); ++steps; time += number("seconds") }
      /"type":"validation"/ { bits = number("bits_per_byte"); nats = number("nats") }
      END { print steps, tokens, nats, bits, time }' "$runs/$1-$seed/log.jsonl"
  done | awk -v name="$1" -v flags="$2" '
    { steps = $1; tokens = $2; nats += $3; squares += $3 * $3; bits += $4; if (NR == 1 || $5 < time) time = $5 }
    END { mean = nats / NR; spread = NR > 1 ? sqrt(squares / NR - mean * mean < 0 ? 0 : (squares / NR - mean * mean) * NR / (NR - 1)) : 0
      printf "| %s | `%s` | %d | %d | %.4f | %.4f | %.4f | %.0f s |\n", name, flags, steps, tokens, mean, spread, bits / NR, time }' | sed 's/ `` / /'
}

rm -f "$runs/rows.part"
run full
run linear --segment-start 32 --segment-steps "${GROWTH:-200}"
run root --segment-start 32 --segment-steps "${GROWTH:-200}" --pacing root
{
  printf '# Segments that grow\n\n`%sscripts/segment_growth.sh`: `train` with\n`%s`,\n%s of the help corpus, seeds %s. The same tokens for all; ' \
    "$given" "${shape[*]}" "$languages" "$seeds"
  printf 'validation with segments of 256 and\ncarried memory, mean over the seeds, with the standard deviation of nats. Time is that of the steps, of the\nfastest seed on a machine with other work.\n\n'
  printf '| segments | flags | steps | tokens | nats a token | spread | bits a byte | time |\n|---|---|---|---|---|---|---|---|\n'
  cat "$runs/rows.part"
} >"$result.part"
mv "$result.part" "$result"
cat "$result"
