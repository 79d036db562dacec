#!/usr/bin/env bash
# Several adapters over one base: each is a model of its own name, and says what longhand generate --adapter says, whoever
# is written beside it and whatever holds the weights.
source "$(dirname "$0")/lib/checks.sh"

model=$sources/weights/tiny.safetensors
source "$sources/tests/end_to_end/lib/server.sh"

for i in $(seq 1 12); do
  echo "{\"instruction\": \"Repeat.\", \"input\": \"number $i\", \"output\": \"number $i\"}"
done >data.jsonl
tune() { "$longhand" finetune --model "$model" --data data.jsonl --max-seq-length 128 --batch-size 2 --steps 2 --answers 0 \
  --output "$@" >tune.txt || cat tune.txt; }
tune every --lr 3e-3 --lora 4 --lora-sites q,k,v,position,output,up,down
tune few --lr 1e-2 --lora 8 --lora-sites q,v --seed 5
tune narrow --lr 1e-2 --adapters 8
tune biases --lr 1e-3 --lora 2 --train-only '*.bias'
adapters=(--adapter every=every/adapter.safetensors --adapter few=few/adapter.safetensors --adapter narrow=narrow/adapter.safetensors)

ask='"prompt":"Click the ","max_tokens":16,"seed":7,"temperature":0.8,"top_p":0.95,"n":2'
ways=(--prompt "Click the " --tokens 16 --seed 7 --num-samples 2)
# compare TITLE: the adapters and the weights alone at once, each against generate.
compare() {
  for name in every few narrow base; do
    named=$name
    [ $name = base ] && named=$(basename "$model" .safetensors)
    post /v1/completions "{\"model\":\"$named\",$ask}" >$name.json &
  done
  wait $(jobs -p | grep -vx $server)
  for name in every few narrow; do
    check "$1: $name says what generate --adapter says" test "$(field "$texts" <$name.json)" \
      = "$(generated "${ways[@]}" --adapter $name/adapter.safetensors)"
  done
  check "$1: beside them the weights alone say what they say alone" test "$(field "$texts" <base.json)" = "$(generated "${ways[@]}")"
}

start "${adapters[@]}" --batch 8 --sessions kept --variant plain,model=tiny --variant tuned,model=few,share=3
check "adapters are among the models" test \
  "$(curl -sS "$url/v1/models" | field '[(m["id"], m.get("parent")) for m in d["data"]]')" \
  = "[('tiny', None), ('every', 'tiny'), ('few', 'tiny'), ('narrow', 'tiny'), ('ab', None)]"
compare "fp32"
check "an adapter changes the text" test "$(field "$texts" <every.json)" != "$(field "$texts" <base.json)"
check "an answer names the adapter" test "$(field 'd["model"]' <few.json)" = few
vector() { post /v1/embeddings "{\"model\":\"$1\",\"input\":\"a cell\"}" | field 'd["data"][0]["embedding"][:4]'; }
check "an adapter changes an embedding" test "$(vector tiny)" != "$(vector few)"
for i in $(seq 12); do post /v1/completions '{"model":"ab","prompt":"a","max_tokens":1}'; done >variants.txt
check "a variant can be an adapter" grep -q '"variant":"tuned"' variants.txt
curl -sS "$url/metrics" >metrics.txt
check "metrics count each adapter's tokens" grep -q '^longhand_generated_tokens_total{model="every"} 32$' metrics.txt
check "the batch is the weights'" grep -q '^longhand_sequences{model="tiny"} 8$' metrics.txt
say='"session":"talk","max_tokens":4,"messages":[{"role":"user","content":"Hello"}]'
check "a session under an adapter" test "$(post /v1/chat/completions "{\"model\":\"few\",$say}" -o /dev/null -w '%{http_code}')" = 200
answered "it is that adapter's" 409 "other weights" post /v1/chat/completions "{\"model\":\"every\",$say}"
stop

"$longhand" quantize --model "$model" --type int8 --output int8.safetensors >/dev/null
model=int8.safetensors
start "${adapters[@]}" --batch 8
compare "int8"
stop
: >serve.out  # what stands in it is the server's before
mkdir folder
cp "$sources/weights/tiny.safetensors" folder && cp few/adapter.safetensors folder/polite.safetensors
"$longhand" serve --models folder --port 0 --json >serve.out 2>serve.err &
server=$!
for _ in $(seq 100); do [ -s serve.out ] && break; sleep 0.1; done
check "an adapter in a folder of models is served by its file's name" grep -q '"models":\["tiny","polite"\]' serve.out
stop

model=$sources/weights/tiny.safetensors
refused "an adapter without a name" 2 "NAME=FILE" "$longhand" serve --model "$model" --adapter few/adapter.safetensors
refused "two of one name" 1 "are named few" "$longhand" serve --model "$model" --port 0 "${adapters[@]}" \
  --adapter few=few/adapter.safetensors
refused "an adapter that replaces weights" 1 "merge it" "$longhand" serve --model "$model" --port 0 \
  --adapter biases=biases/adapter.safetensors
"$longhand" merge --model "$model" --adapter few/adapter.safetensors --output other.safetensors >/dev/null
refused "an adapter of other weights" 1 "other weights" "$longhand" serve --model other.safetensors --port 0 "${adapters[@]}"
"$longhand" quantize --model other.safetensors --type int8 --output other8.safetensors >/dev/null
refused "an adapter of other weights, quantised" 1 "other weights" "$longhand" generate --model other8.safetensors --prompt a \
  --adapter few/adapter.safetensors
