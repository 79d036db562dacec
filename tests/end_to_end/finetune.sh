#!/usr/bin/env bash
# Fine-tuning from examples to an answer: the guide's configuration as it stands, low-rank updates beside and merged into
# the weights, early stopping, a killed run, and every kind of bad input.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"
model=$sources/weights/tiny.safetensors

for i in $(seq 1 120); do
  echo "{\"instruction\": \"Repeat.\", \"input\": \"number $((i * 37 % 90 + 10))\", \"output\": \"number $((i * 37 % 90 + 10))\"}"
done >data.jsonl
cat >guide.yaml <<'YAML'
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
short=(--max-seq-length 256 --batch-size 4 --lr 1e-3 --seed 4)

"$longhand" finetune --model "$model" --data data.jsonl --config guide.yaml --steps 1 --output guide >guide.txt
check "the guide's configuration runs as it stands" test $? -eq 0
check "it says how many examples there are" grep -q "examples to train on" guide.txt
check "validation comes before and after" test "$(grep -c '"type":"validation"' guide/log.jsonl)" -eq 2
check "the run has a report" quietly "$longhand" report guide

"$longhand" finetune --model "$model" --data data.jsonl "${short[@]}" --steps 6 --lora 8 --lora-sites q,k,v,output,up,down \
  --output low >low.txt || cat low.txt
check "an adapter file is small" test "$(stat -c %s low/adapter.safetensors)" -lt 1000000
"$longhand" merge --model "$model" --adapter low/adapter.safetensors --dtype fp32 --output merged.safetensors >/dev/null
score() { "$longhand" score --text "Repeat the number 25." --summary "$@" | sed 's/,"tokens_per_s.*//'; }
check "a merged model scores as the adapter beside its weights, to 1e-5" \
  awk -F'[:,]' '{ nats[NR] = $4 } END { d = nats[1] / nats[2] - 1; exit !(NR == 2 && d < 1e-5 && d > -1e-5) }' \
  <(score --model merged.safetensors) <(score --model "$model" --adapter low/adapter.safetensors)
check "an adapter changes the model" \
  test "$(score --model "$model")" != "$(score --model "$model" --adapter low/adapter.safetensors)"
check "chat and generate take an adapter" quietly "$longhand" generate --model "$model" \
  --adapter low/adapter.safetensors --prompt "Repeat" --tokens 4

"$longhand" finetune --model "$model" --data data.jsonl "${short[@]}" --steps 6 --adapters 16 --output narrow >narrow.txt ||
  cat narrow.txt
check "a file of bottleneck adapters is small" test "$(stat -c %s narrow/adapter.safetensors)" -lt 200000
check "a run answers with its adapters" test "$(wc -l <narrow/answers.jsonl)" -gt 0
"$longhand" merge --model "$model" --adapter narrow/adapter.safetensors --dtype fp32 --output whole.safetensors >/dev/null
check "a model that took adapters in scores as they do beside its weights" \
  test "$(score --model whole.safetensors)" = "$(score --model "$model" --adapter narrow/adapter.safetensors)"
check "adapters change the model" \
  test "$(score --model "$model")" != "$(score --model "$model" --adapter narrow/adapter.safetensors)"
generate() { "$longhand" generate --prompt "Repeat" --tokens 8 --temperature 0 --dtype fp32 "$@"; }
check "and generate the same text" \
  test "$(generate --model whole.safetensors)" = "$(generate --model "$model" --adapter narrow/adapter.safetensors)"
check "eval takes them" quietly "$longhand" eval --model "$model" --adapter narrow/adapter.safetensors --data data.jsonl --limit 2
check "low-rank updates stack with them" test "$(score --model "$model" --adapter narrow/adapter.safetensors)" != \
  "$(score --model "$model" --adapter narrow/adapter.safetensors --adapter low/adapter.safetensors)"
refused "bottleneck adapters of two files" 1 "both hold bottleneck adapters" "$longhand" score --model "$model" \
  --adapter narrow/adapter.safetensors --adapter narrow/adapter.safetensors --text a
refused "adapters in another format" 1 "adapters beside its weights" "$longhand" export --model whole.safetensors --output x
refused "adapters of other weights" 1 "other weights" "$longhand" score --model merged.safetensors \
  --adapter narrow/adapter.safetensors --text a
refused "dropout of updates that are not there" 2 "--lora-dropout needs --lora" "$longhand" finetune --model "$model" \
  --data data.jsonl --max-seq-length 256 --lora-dropout 0.1
refused "an unknown part of a layer" 2 '"x" has no adapter' "$longhand" finetune --model "$model" --data data.jsonl \
  --adapters 4 --adapter-sites x
check "plan knows adapters" grep -q '"gradients":530432,' <("$longhand" plan --preset tiny --adapters 64 --json)

lora=("$longhand" finetune --model "$model" --data data.jsonl "${short[@]}" --steps 12 --lora 4 --dropout 0.1 --lora-dropout 0.1
  --adapters 8 --adapter-sites feedforward
  --checkpoint-every 2)
"${lora[@]}" --output through >/dev/null
"${lora[@]}" --output killed >/dev/null &
pid=$!
until [ -e killed/checkpoint-4.safetensors ] || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"${lora[@]}" --output killed --resume >/dev/null
check "a killed run that goes on ends in the same bits" cmp through/adapter.safetensors killed/adapter.safetensors

# Every recipe at once, over more steps than the two epochs after which an attention layer joins.
echo 'figure: numeral, number' >thesaurus.txt
head -20 data.jsonl >first.jsonl
head -12 data.jsonl | sed 's/"input": "number \([0-9]*\)"/"input": "please say the figure \1 again"/' >second.jsonl
recipes=("$longhand" finetune --model "$model" --data first.jsonl --data second.jsonl --max-seq-length 256 --batch-size 4
  --validation-ratio 0.3 --lr 1e-3 --seed 4 --steps 16 --unfreeze --layer-decay 0.9 --fgm 0.5 --dropout 0.1
  --augment --thesaurus thesaurus.txt
  --curriculum loss --curriculum-steps 5 --task-weight second=0.5 --task-temperature 2 --checkpoint-every 2 --keep 20)
"${recipes[@]}" --output all >all.txt || cat all.txt
check "an attention layer thaws in the third epoch" grep -q '"event":"thawed","text":"layers.3.attention' all/log.jsonl
check "tasks are validated apart" grep -q '"second":' all/log.jsonl
"${recipes[@]}" --output cut >/dev/null &
pid=$!
until [ -e cut/checkpoint-4.safetensors ] || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"${recipes[@]}" --output cut --resume >/dev/null
check "a killed run with unfreezing, FGM, augmentation and a curriculum ends in the same bits" \
  cmp all/model.safetensors cut/model.safetensors
thaw=$(sed -nE 's/.*"step":([0-9]+),"event":"thawed".*/\1/p' all/log.jsonl | head -1)
for from in $((thaw / 2 * 2)) $((thaw / 2 * 2 + 2)); do
  mkdir "from-$from"
  cp all/log.jsonl "all/checkpoint-$from.safetensors" "from-$from"
  "${recipes[@]}" --output "from-$from" --resume >/dev/null
  check "the thaw is at step $thaw: from the checkpoint of step $from a run ends in the same bits" \
    cmp all/model.safetensors "from-$from/model.safetensors"
done
check "a thaw is logged once" test "$(grep -c '"event":"thawed"' all/log.jsonl)" -eq "$(grep -c '"event":"thawed"' cut/log.jsonl)"
echo 'figure: digit' >other.txt
refused "another thesaurus at --resume" 2 "other data" "${recipes[@]}" --output cut --resume --thesaurus other.txt

"$longhand" data augment second.jsonl --output changed.jsonl --thesaurus thesaurus.txt --augment-synonyms 1 >augment.txt
check "data augment writes as many examples as it read" test "$(wc -l <changed.jsonl)" -eq 12
check "with other words" grep -q "say the num" changed.jsonl
check "and keeps their answers" test "$(grep -o '"output":.*' changed.jsonl | tr -d ' ')" = "$(grep -o '"output":.*' second.jsonl | tr -d ' ')"
printf 'sch\xf6n: nett\n' >latin.txt
refused "a thesaurus in another encoding" 1 "not valid UTF-8" "$longhand" data augment second.jsonl --output x \
  --thesaurus latin.txt
refused "a task that is not there" 2 "no example has the task fr-en" "$longhand" finetune --model "$model" --data data.jsonl \
  --max-seq-length 256 --task-weight fr-en=2
refused "unfreezing without the first stage" 2 "nothing trains in the first two epochs" "$longhand" finetune --model "$model" \
  --data data.jsonl --unfreeze --lora 4
refused "an unknown curriculum" 2 "it takes none, length, rarity, loss" "$longhand" finetune --model "$model" \
  --data data.jsonl --curriculum size

"$longhand" finetune --model "$model" --data data.jsonl --max-seq-length 256 --batch-size 4 --seed 4 --steps 40 --lr 0.3 --warmup-ratio 0 --spike 0 \
  --validate-every 1 --patience 2 --output early >early.txt || cat early.txt
"$longhand" report all >/dev/null
check "the report shows what trains from when on" grep -q "layers.3.attention trains from step $thaw" all/report.html
check "a run that gets worse stops early" grep -q "early stop" early.txt
check "and keeps its best weights" cmp early/best.safetensors early/model.safetensors

"$longhand" finetune --model "$model" --data data.jsonl "${short[@]}" --steps 2 --train-only '*.bias' --output bias >bias.txt
check "biases alone are trained when asked for" grep -q "trained)" bias.txt

refused "no data" 2 "--data is missing" "$longhand" finetune --model "$model"
refused "no model" 2 "--model is missing" "$longhand" finetune --data data.jsonl
refused "another optimizer" 2 "it takes adamw" "$longhand" finetune --model "$model" --data data.jsonl --optimizer lion
refused "nothing to train" 2 "nothing is left to train" "$longhand" finetune --model "$model" --data data.jsonl --freeze '*'
printf '%s\nbroken\n' "$(head -1 data.jsonl)" >bad.jsonl
refused "a line that is no JSON" 1 "bad.jsonl:2" "$longhand" finetune --model "$model" --data bad.jsonl
echo '{colour}' >colour.txt
refused "a template with an absent field" 1 '"colour"' "$longhand" finetune --model "$model" --data data.jsonl \
  --template colour.txt
refused "weights are no adapter" 1 "is no adapter file" "$longhand" score --model "$model" --adapter "$model" --text a
refused "an adapter of another model" 1 "other weights" "$longhand" score --model merged.safetensors \
  --adapter low/adapter.safetensors --text a
refused "an unknown site" 2 '"x" has no low-rank update' "$longhand" finetune --model "$model" --data data.jsonl \
  --lora 4 --lora-sites q,x

"$longhand" data check data.jsonl >check.txt
check "data check leaves with 3 where it warns" test $? -eq 3
check "data check names what is wrong" grep -q "5000 are recommended" check.txt
refused "data check of a file without examples" 1 "holds no examples" "$longhand" data check /dev/null
