#!/usr/bin/env bash
# What each recipe of fine-tuning does on a small task: translation between English and German with weights/tiny, plain and
# with one recipe at a time, at three seeds. What has been run is not run again, and a run that was cut off goes on, so the
# script may be stopped and started at will. It writes bench/results/ablation.md.
#
#   CORPUS (data/corpus), EXAMPLES (240), STEPS (60), SEEDS ("1 2 3"), RUNS (runs/ablation), RESULT; THESAURUS: flags for
#   synonyms, e.g. "--thesaurus en=/usr/share/mythes/th_en_US_v2.dat"
set -euo pipefail
cd "$(dirname "$0")/.."

longhand=${LONGHAND:-build/longhand}
corpus=${CORPUS:-data/corpus} runs=${RUNS:-runs/ablation} result=${RESULT:-bench/results/ablation.md}
examples=${EXAMPLES:-240} steps=${STEPS:-60} seeds=${SEEDS:-1 2 3} thesaurus=${THESAURUS:-}
shape=(--max-seq-length 128 --batch-size 8 --lr 1e-3 --warmup-ratio 0.1 --validation-ratio 0.15 --validate-every 5
  --threads "${THREADS:-2}")

mkdir -p "$runs"
data=$runs/data.jsonl table=$runs/results.tsv
if [ ! -e "$data" ]; then
  "$longhand" data build "$data" --corpus-directory "$corpus" --languages en,de --examples "$examples" --largest 60 --seed 1
fi
touch "$table"

# The mean validation loss of the weights that a run leaves: the last one, with patience the best.
loss_of() {
  grep '"type":"validation"' "$1/log.jsonl" | sed -E 's/.*"step":([0-9]+),"nats":([0-9.eE+-]+).*/\2/' |
    if [[ $2 == *patience* ]]; then sort -g | head -1; else tail -1; fi
}

run() { # NAME FLAGS...
  local name=$1 seed directory nats
  shift
  for seed in $seeds; do
    grep -qP "^$name\t$seed\t" "$table" && continue
    directory=$runs/$name-$seed
    "$longhand" finetune --model weights/tiny.safetensors --data "$data" "${shape[@]}" --steps "$steps" --seed "$seed" \
      --output "$directory" --resume "$@" >"$runs/$name-$seed.txt"
    nats=$(loss_of "$directory" "$*")
    printf '%s\t%s\t%s\t%s\n' "$name" "$seed" "$nats" "$*" >>"$table"
    echo "$name, seed $seed: $nats nats a token"
    rm -f "$directory"/*.safetensors
  done
}

run plain
run fgm --fgm 0.5
run label-smoothing --label-smoothing 0.1
run focal --focal-gamma 2
run curriculum --curriculum length --pacing root
# shellcheck disable=SC2086
run augmentation --augment $thesaurus
run unfreezing --unfreeze --layer-decay 0.9
run dropout --dropout-embedding 0.1 --dropout-attention 0.2 --dropout-feedforward 0.3
run early-stopping --patience 3

awk -F'\t' -v examples="$examples" -v steps="$steps" -v shape="${shape[*]}" '
  { if (!($1 in count)) order[++names] = $1
    loss[$1, $2] = $3; flags[$1] = $4; seed[$1, ++count[$1]] = $2 }
  function mean_of(values, n,   i, sum) { for (i = 1; i <= n; ++i) sum += values[i]; return sum / n }
  function spread_of(values, n, mean,   i, sum) {
    if (n < 2) return 0
    for (i = 1; i <= n; ++i) sum += (values[i] - mean) ^ 2
    return sqrt(sum / (n - 1))
  }
  END {
    print "# Recipes of fine-tuning, one at a time\n"
    print "`scripts/ablate.sh`: translation of short texts between English and German, " examples " examples from the help"
    print "corpus, `weights/tiny.safetensors`, " steps " steps with `" shape "`.\nThe figure is the validation loss of the weights that the run leaves, in nats a token, as the mean over the seeds with their"
    print "standard deviation; the difference is taken to the plain run of the same seed. Below 0 a recipe helps. So few examples are"
    print "soon learnt by heart: what stops or slows that gains most.\n"
    print "| recipe | flags | loss | spread | difference | its spread | seeds |\n|---|---|---|---|---|---|---|"
    for (i = 1; i <= names; ++i) {
      name = order[i]; n = 0; delete all; delete differences
      for (j = 1; j <= count[name]; ++j) {
        s = seed[name, j]
        if (!(("plain", s) in loss)) continue
        all[++n] = loss[name, s]; differences[n] = loss[name, s] - loss["plain", s]
      }
      mean = mean_of(all, n); change = mean_of(differences, n)
      printf "| %s | `%s` | %.4f | %.4f | %+.4f | %.4f | %d |\n", name, flags[name], mean, spread_of(all, n, mean), change, spread_of(differences, n, change), n
    }
  }' "$table" | sed 's/| `` |/| |/' >"$result.part"
mv "$result.part" "$result"
cat "$result"
