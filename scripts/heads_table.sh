#!/usr/bin/env bash
# Heads on the tiny weights, measured: topics of paragraphs, and elements of the user interface, keys and code as tags, from the
# English help pages; pages of the validation part are in no training. Writes bench/results/heads.md. A run that is there already is
# not made again, what was broken off goes on.
#
#   scripts/heads_table.sh [RUNS] [CORPUS]      runs/heads and data/corpus when not given; THREADS=1, STEPS=300
set -euo pipefail
cd "$(dirname "$0")/.."

runs=${1:-runs/heads} corpus=${2:-data/corpus} threads=${THREADS:-1} steps=${STEPS:-300} longhand=${LONGHAND:-build/longhand}
model=weights/tiny.safetensors
result=bench/results/heads.md
mkdir -p "$runs"

for task in topics tags; do
  [ -e "$runs/$task.jsonl" ] || "$longhand" data build "$runs/$task.jsonl" --corpus-directory "$corpus" --task $task --examples 6000
done

# tune NAME DATA FLAGS...: a run, then the scores of its head on the whole validation part.
tune() {
  local name=$1 data=$2 run=$runs/$1 weights
  shift 2
  if [ ! -e "$run/model.safetensors" ] && [ ! -e "$run/adapter.safetensors" ]; then
    echo "$name"
    "$longhand" finetune --model "$model" --data "$runs/$data.jsonl" --head "$data" --threads "$threads" --max-seq-length 128 \
      --batch-size 16 --lr 1e-3 --steps "$steps" --validation-ratio 0.1 --validate-every "$steps" --output "$run" --resume "$@" \
      >>"$run.txt"
  fi
  [ -e "$run/scores.json" ] && return
  weights=(--model "$run/model.safetensors")
  [ -e "$run/adapter.safetensors" ] && weights=(--model "$model" --adapter "$run/adapter.safetensors")
  "$longhand" eval --data "$runs/$data.jsonl" --validation-ratio 0.1 --max-seq-length 128 --threads "$threads" --json \
    "${weights[@]}" >"$run/scores.part"
  mv "$run/scores.part" "$run/scores.json"
}

tune topics topics
tune topics-lora topics --lora 8 --lora-sites q,k,v,output,up,down
tune topics-frozen topics --freeze 'embedding.*,layers.*,norm.*'
for lookahead in 0 4; do
  tune tags-$lookahead tags --lookahead $lookahead
  tune tags-crf-$lookahead tags --lookahead $lookahead --crf
done
tune tags-crf-lora tags --lookahead 4 --crf --lora 8 --lora-sites q,k,v,output,up,down
tune tags-crf-frozen tags --lookahead 4 --crf --freeze 'embedding.*,layers.*,norm.*'

python3 - "$runs" "$steps" >"$result" <<'PYTHON'
import json, sys
runs, steps = sys.argv[1:]

def row(name):
    score = json.loads(open(f'{runs}/{name}/scores.json').readline())
    meta = json.loads(open(f'{runs}/{name}/log.jsonl').readline())
    return score, meta['trained']

def percent(x):
    return f'{100 * x:.1f}%'

print(f'''# Heads on the tiny weights, measured

By `scripts/heads_table.sh`: {steps} steps of 16 rows of 128 tokens, learning rate 1e-3, seed 0; 6,000 English examples of the help corpus,
a tenth of them, by page, held back. Every figure is of the whole validation part.

## Topics: which part of the office suite a paragraph is about

```
{"run":<18}{"trained":>10}{"examples":>10}{"nats":>8}{"accuracy":>10}{"commonest":>11}''')
for name in ['topics', 'topics-lora', 'topics-frozen']:
    s, trained = row(name)
    print(f'{name:<18}{trained:>10}{s["labels"]:>10}{s["nats"]:>8.3f}{percent(s["accuracy"]):>10}{percent(s["majority"]):>11}')
print(f'''```

`commonest` is the accuracy of always saying the commonest topic.

## Tags: elements of the user interface, keys, code

```
{"run":<18}{"lookahead":>9}{"crf":>5}{"trained":>10}{"words":>7}{"accuracy":>10}{"precision":>11}{"recall":>8}{"F1":>8}''')
for name in [f'tags{crf}-{k}' for k in (0, 4) for crf in ('', '-crf')] + ['tags-crf-lora', 'tags-crf-frozen']:
    s, trained = row(name)
    lookahead = name[-1] if name[-1].isdigit() else '4'
    print(f'{name:<18}{lookahead:>9}{"yes" if "crf" in name else "no":>5}{trained:>10}{s["labels"]:>7}{percent(s["accuracy"]):>10}'
          f'{percent(s["precision"]):>11}{percent(s["recall"]):>8}{percent(s["f1"]):>8}')
print('''```

Accuracy is of words, the other figures of whole entities. A lookahead is how many tokens behind a word's first one the model has read
before its tag is said.''')
PYTHON
cat "$result"
