#!/usr/bin/env bash
# From data that the program makes to answers and their figures: build, fine-tune, answer, compare, and bad input.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"
model=$sources/weights/tiny.safetensors

"$longhand" data build numbers.jsonl --task numbers --languages en,zh --greatest 99 --examples 160 --seed 5 >build.txt
check "numbers are made, each language its share" test "$(grep -c '"task":"numbers-zh"' numbers.jsonl)" -eq 80
"$longhand" data build again.jsonl --task numbers --languages en,zh --greatest 99 --examples 160 --seed 5 >/dev/null
check "one seed makes one file" cmp numbers.jsonl again.jsonl
check "dates and amounts are made" quietly "$longhand" data build dates.jsonl --task dates --examples 24
check "in every language unless some are named" test "$(grep -c . dates.jsonl)" -eq 24

tune=("$longhand" finetune --model "$model" --data numbers.jsonl --template plain --max-seq-length 128 --batch-size 4
  --validation-ratio 0.2 --seed 5)
"${tune[@]}" --lr 3e-3 --steps 60 --output fast --answers 12 >fast.txt || cat fast.txt
check "fine-tuning shows answers from before and after" test "$(grep -cE '^  (before|after) ' fast.txt)" -eq 8
check "and their figures" grep -qE '^mean +12 ' fast.txt
check "and keeps them" test "$(grep -c '"before"' fast/answers.jsonl)" -eq 12
"$longhand" report fast >/dev/null
check "the report shows answers" grep -q "Answers to validation examples" fast/report.html
"${tune[@]}" --lr 1e-5 --steps 2 --output slow --answers 12 >/dev/null

eval=("$longhand" eval --data numbers.jsonl --template plain --validation-ratio 0.2 --seed 5)
"${eval[@]}" --model fast/model.safetensors --limit 12 --output answers.jsonl >eval.txt || cat eval.txt
check "eval answers the examples that fine-tuning held back, and alike" \
  cmp <(sed 's/,"before.*//; s/}$//' fast/answers.jsonl) <(sed 's/}$//' answers.jsonl)
check "drafts change no answer" \
  cmp answers.jsonl <("${eval[@]}" --model fast/model.safetensors --limit 12 --speculate 7 --output drafted.jsonl >/dev/null; cat drafted.jsonl)
nats() { "${eval[@]}" --json "$@" | sed -nE 's/.*"mean".*"nats":([0-9.]+).*/\1/p'; }
check "the tuned model is nearer to what is wanted" \
  awk -v a="$(nats --model fast/model.safetensors)" -v b="$(nats --model "$model")" 'BEGIN { exit !(a > 0 && a < b / 2) }'
check "an example by itself has the answer it has among others" \
  cmp answers.jsonl <("${eval[@]}" --model fast/model.safetensors --limit 12 --rows 1 --output one.jsonl >/dev/null; cat one.jsonl)
check "--all answers every example" \
  test "$("${eval[@]}" --model "$model" --all --limit 0 --tokens 1 --json | grep mean | grep -c '"examples":160')" -eq 1

"$longhand" compare slow fast >compare.txt
check "compare puts runs side by side" test "$(grep -cE '^(slow|fast) ' compare.txt)" -eq 3
check "and is sure that the faster rate learnt more" grep -qE '^fast +12 +-[0-9.]+ \(-[0-9.]+ to -' compare.txt
check "compare as JSON names both ends of an interval" \
  test "$("$longhand" compare --json slow fast | grep -c '"difference":{"examples":12,"nats":{"mean":-[0-9.e-]*,"low":-')" -eq 1

refused "an unknown task" 2 "--task poems" "$longhand" data build x.jsonl --task poems
refused "a language that ICU does not spell" 2 "--languages xx" "$longhand" data build x.jsonl --task numbers --languages xx
refused "pages that are not there" 1 "nothing" "$longhand" data build x.jsonl --task cloze --corpus-directory nothing
check "a refused build leaves no file" test ! -e x.jsonl
refused "eval without data" 2 "--data is missing" "$longhand" eval --model "$model"
refused "no validation part" 1 "--all takes every one" "$longhand" eval --model "$model" --data numbers.jsonl --validation-ratio 0
refused "one run alone" 2 "two runs or more" "$longhand" compare fast
refused "a directory without a run" 1 "no log.jsonl" "$longhand" compare fast .
echo '{"task": 1}' >fast/answers.jsonl
refused "answers that are none" 1 "answers.jsonl:1" "$longhand" compare slow fast
