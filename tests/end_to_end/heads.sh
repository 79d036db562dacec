#!/usr/bin/env bash
# Heads from examples to what they say: labels, tags with and without transitions, dialogue states beside the language;
# trained whole, beside low-rank updates and on a frozen model; a killed run, and every kind of bad input.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"
model=$sources/weights/tiny.safetensors
flags=(--max-seq-length 64 --batch-size 8 --lr 2e-3 --seed 4 --answers 0 --validation-ratio 0.2)
finetune=("$longhand" finetune --model "$model" "${flags[@]}")
further=("$longhand" finetune --model animal/model.safetensors "${flags[@]}")

for i in $(seq 1 60); do
  echo "{\"text\": \"The cat number $i sleeps.\", \"label\": \"cat\"}"
  echo "{\"text\": \"The dog number $i sleeps.\", \"label\": \"dog\"}"
  echo "{\"tokens\": [\"Press\", \"Ctrl\", \"+\", \"$i\", \"in\", \"File\", \".\"], \"tags\": [\"O\", \"B-KEY\", \"I-KEY\", \"I-KEY\", \"O\", \"B-UI\", \"O\"]}" >>tags.jsonl
  echo "{\"messages\": [{\"role\": \"user\", \"content\": \"A room for $i.\"}, {\"role\": \"assistant\", \"content\": \"Fine.\"}], \"state\": {\"domain\": \"hotel\", \"size\": \"$((i % 2))\"}}" >>states.jsonl
  echo "{\"messages\": [{\"role\": \"user\", \"content\": \"A seat for $i.\"}, {\"role\": \"assistant\", \"content\": \"Fine.\"}], \"state\": {\"domain\": \"train\"}}" >>states.jsonl
done >labels.jsonl

figure() { grep '"type":"validation"' "$1/log.jsonl" | tail -1 | grep -o "\"$2\":[0-9.e-]*" | tail -1 | cut -d: -f2; }
above() { awk -v x="$1" -v y="$2" 'BEGIN { exit !(x > y) }'; }

"${finetune[@]}" --data labels.jsonl --head animal --steps 30 --output animal >animal.txt || cat animal.txt
check "a head learns labels" above "$(figure animal accuracy)" 0.95
check "what it learns is said" grep -q "head animal: label of cat, dog" animal.txt
"$longhand" extract --model animal/model.safetensors --text "The dog number 99 sleeps." >said.json
check "extract says the label with probabilities" grep -q '"label":"dog","probabilities":{"cat":' said.json
"$longhand" eval --model animal/model.safetensors --data labels.jsonl --seed 4 --validation-ratio 0.2 --json >eval.json
check "eval scores the part that the run held back" grep -q '"head":"animal","labels":[0-9]*,.*"accuracy":1.0' eval.json
check "score reads a model with a head" quietly "$longhand" score --model animal/model.safetensors --text "The cat"

"${finetune[@]}" --data tags.jsonl --head names --crf --steps 40 --output crf >crf.txt || cat crf.txt
check "a conditional random field learns tags" above "$(figure crf f1)" 0.9
"${finetune[@]}" --data tags.jsonl --head names --lookahead 1 --lora 4 --steps 60 --output low >low.txt || cat low.txt
check "plain tags are learnt beside low-rank updates" above "$(figure low f1)" 0.9
"$longhand" extract --model "$model" --adapter low/adapter.safetensors --text "Prêt: Press Ctrl+7 in File." >low.json
check "an adapter brings its head, and extract counts characters" \
  grep -q '{"type":"KEY","start":12,"end":18,"text":"Ctrl+7"}' low.json
"$longhand" merge --model "$model" --adapter low/adapter.safetensors --dtype fp32 --output merged.safetensors >/dev/null
"$longhand" extract --model merged.safetensors --text "Prêt: Press Ctrl+7 in File." >merged.json
check "a merged model says the same" cmp low.json merged.json

"${further[@]}" --data tags.jsonl --head names --crf --train-only 'head.*' --steps 4 \
  --output both >both.txt || cat both.txt
check "a second head joins the first" grep -q '"animal":.*"names":' <("$longhand" extract --model both/model.safetensors --text "Press F5")
check "on a frozen model the first says the same as before" \
  cmp <("$longhand" extract --model both/model.safetensors --head animal --text "The dog") \
  <("$longhand" extract --model animal/model.safetensors --text "The dog")
"$longhand" quantize --model animal/model.safetensors --type int8 --output int8.safetensors >/dev/null
check "quantised weights keep their head" grep -q '"label":"dog"' \
  <("$longhand" extract --model int8.safetensors --text "The dog number 99 sleeps.")

"${finetune[@]}" --data states.jsonl --steps 40 --output states >states.txt || cat states.txt
check "states are learnt beside the language" grep -q '"parts":{"language":[0-9.e-]*,"domain":[0-9.e-]*' states/log.jsonl
check "and tell dialogues apart" grep -q '"label":"train"' <("$longhand" extract --model states/model.safetensors --head domain --text "A seat for 77.")
"${finetune[@]}" --data states.jsonl --state-weight 0 --steps 1 --output stateless >stateless.txt
check "unless they weigh nothing" test "$(grep -c '"heads":\[' stateless/log.jsonl)" -eq 0

run=("${finetune[@]}" --data tags.jsonl --head names --crf --lora 4 --dropout 0.1 --steps 12 --checkpoint-every 2)
"${run[@]}" --output through >/dev/null
"${run[@]}" --output killed >/dev/null &
pid=$!
until [ -e killed/checkpoint-4.safetensors ] || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"${run[@]}" --output killed --resume >/dev/null
check "a killed run with a head ends in the same bits" cmp through/adapter.safetensors killed/adapter.safetensors

losses() { "${finetune[@]}" --data tags.jsonl --head names --crf --steps 2 --device "$1" --json 2>/dev/null | sed -nE 's/.*"loss":([0-9.]+).*/\1/p'; }
check "the GPU's kernels, run on the host, learn tags as the cpu does" \
  awk 'NF != 2 || $1 - $2 > 1e-3 || $2 - $1 > 1e-3 { bad = 1 } END { exit bad || NR != 2 }' <(paste <(losses cpu) <(losses simt))

refused "labels without a head" 2 "is made or found by --head" "${finetune[@]}" --data labels.jsonl
refused "a head without labels" 2 "no example has a label or tags" "${finetune[@]}" --data states.jsonl --head x
refused "a label that a listed head does not have" 1 'labels.jsonl:2: head animal has no label "dog"' "${finetune[@]}" \
  --data labels.jsonl --head animal --labels cat,horse
echo '{"text": "A cow.", "label": "cow"}' >cow.jsonl
refused "an unknown label in validation" 1 'cow.jsonl:1: head animal has no label "cow"' "${finetune[@]}" --data labels.jsonl \
  --head animal --validation-data cow.jsonl
cat labels.jsonl cow.jsonl >more.jsonl
refused "a head of the model with other labels" 1 'more.jsonl:121: head animal has no label "cow"' "${further[@]}" \
  --data more.jsonl --head animal
refused "a head of another kind" 2 "says label, not tags" "${further[@]}" --data tags.jsonl \
  --head animal
{ head -1 tags.jsonl && echo '{"tokens": ["a", "b"], "tags": ["O"]}'; } >count.jsonl
refused "a tag count that is not the word count" 1 "count.jsonl:2: 1 tags for 2 tokens" "${finetune[@]}" --head x \
  --data count.jsonl
{ head -1 tags.jsonl && echo '{"tokens": ["a", "b"], "tags": ["O", "I-UI"]}'; } >inside.jsonl
refused "a tag that goes on with nothing" 1 "inside.jsonl:2: tag 2 is I-UI behind O" "${finetune[@]}" --head x \
  --data inside.jsonl
refused "extract without heads" 1 "has no heads" "$longhand" extract --model "$model" --text a
refused "extract of a head that is not there" 2 "--head x" "$longhand" extract --model animal/model.safetensors --head x --text a
refused "transitions without a head" 2 "give its name with --head" "${finetune[@]}" --data labels.jsonl --crf
