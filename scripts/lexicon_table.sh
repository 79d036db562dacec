#!/usr/bin/env bash
# What a lexicon does on the help corpus: the words of its training text that save most tokens become terms of weights/tiny, then
# both models train a little further on the same text. Writes bench/results/lexicon.md. Runs that are there are not made again.
#
#   CORPUS (data/corpus), LANGUAGES (en,de), TERMS (200), STEPS (150), RUNS (runs/lexicon), THREADS (2), RESULT
set -euo pipefail
cd "$(dirname "$0")/.."

longhand=${LONGHAND:-build/longhand} model=weights/tiny.safetensors
corpus=${CORPUS:-data/corpus} languages=${LANGUAGES:-en,de} terms=${TERMS:-200} steps=${STEPS:-150}
runs=${RUNS:-runs/lexicon} threads=${THREADS:-2} result=${RESULT:-bench/results/lexicon.md}
shape=(--segment 128 --batch-size 8 --steps "$steps" --validate-every "$steps" --validate-tokens 20000 --seed 1 --threads "$threads")
mkdir -p "$runs"

tokens() { # NAME MODEL: the corpus in the tokens of a model
  [ -e "$runs/$1.safetensors" ] || "$longhand" prepare --corpus libreoffice --corpus-directory "$corpus" --languages "$languages" \
    --tokenizer "$2" --output "$runs/$1.safetensors" --threads "$threads" >"$runs/$1.txt"
}
train() { # NAME TOKENS FLAGS...
  local name=$1 data=$2
  shift 2
  [ -e "$runs/$name/model.safetensors" ] || "$longhand" train --tokens "$runs/$data.safetensors" --output "$runs/$name" --resume \
    "${shape[@]}" "$@" >"$runs/$name.txt"
}
# figure NAME first|last: validation, bits a byte
figure() {
  grep '"type":"validation"' "$runs/$1/log.jsonl" | { if [ "$2" = first ]; then head -1; else tail -1; fi; } |
    sed -E 's/.*"bits_per_byte":([0-9.]+),"streams".*/\1/' | awk '{ printf "%.4f", $1 }'
}
count() { # TOKENS: of training and validation
  "$longhand" info "$runs/$1.safetensors" --json | tr '{' '\n' | sed -nE 's/.*"tokens":([0-9]+).*/\1/p' | awk '{ s += $1 } END { printf "%d", s }'
}

tokens plain "$model"
if [ ! -e "$runs/extended.safetensors" ]; then
  "$longhand" lexicon --model "$model" --suggest "$terms" --text "$runs/plain.safetensors" --output "$runs/terms.txt"
  "$longhand" lexicon --model "$model" --terms "$runs/terms.txt" --output "$runs/extended.part.safetensors" \
    --text "$runs/plain.safetensors" | sed "s,$runs/,,g; s,extended.part,extended," >"$runs/lexicon.txt"
  mv "$runs/extended.part.safetensors" "$runs/extended.safetensors"
fi
tokens with-terms "$runs/extended.safetensors"

train plain-all plain --init "$model" --lr 5e-4
train terms-rows with-terms --init "$runs/extended.safetensors" --lr 5e-3 --train-only 'embedding.weight[8192:]'
train terms-all with-terms --init "$runs/extended.safetensors" --lr 5e-4

{
  printf '# A lexicon for the help corpus\n\n`scripts/lexicon_table.sh`: the %s words of the training text (%s) that save most tokens become terms of\n' \
    "$terms" "$languages"
  printf '`weights/tiny.safetensors`; then %s steps with\n`%s`.\n\n```\n' "$steps" "${shape[*]}"
  cat "$runs/lexicon.txt"
  printf '```\n\nSome of them: %s.\n\n' "$(head -12 "$runs/terms.txt" | paste -sd, | sed 's/,/, /g')"
  printf 'Validation is in bits a byte of the text, so that vocabularies can be compared; a step sees as many tokens with terms as without.\n\n'
  printf '| model | trained | tokens, training and validation | bits a byte before | after |\n|---|---|---|---|---|\n'
  printf '| without terms | everything | %s | %s | %s |\n' "$(count plain)" "$(figure plain-all first)" "$(figure plain-all last)"
  printf '| with terms | their rows | %s | %s | %s |\n' "$(count with-terms)" "$(figure terms-rows first)" "$(figure terms-rows last)"
  printf '| with terms | everything | %s | %s | %s |\n' "$(count with-terms)" "$(figure terms-all first)" "$(figure terms-all last)"
} >"$result.part"
mv "$result.part" "$result"
cat "$result"
