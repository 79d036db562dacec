#!/usr/bin/env bash
# Fine-tuning beside weights of fewer bits: a quantised file, weights quantised while they load, drawn weights; a killed
# run; what cannot be trained so.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"
model=$sources/weights/tiny.safetensors

for i in $(seq 1 60); do
  echo "{\"instruction\": \"Repeat.\", \"input\": \"number $((i * 37 % 90 + 10))\", \"output\": \"number $((i * 37 % 90 + 10))\"}"
done >data.jsonl
"$longhand" quantize --model "$model" --type int8 --output int8.safetensors >/dev/null
"$longhand" quantize --model "$model" --type int4 --output int4.safetensors >/dev/null
tune=("$longhand" finetune --data data.jsonl --max-seq-length 128 --batch-size 4 --lr 3e-3 --seed 4 --threads 1)
lora=(--lora 4 --lora-sites q,k,v,position,output,up,down --dropout 0.1)
losses() { grep '"type":"step"' "$1/log.jsonl" | sed 's/,"grad_norm.*//'; }

"${tune[@]}" --model int8.safetensors "${lora[@]}" --steps 12 --checkpoint-every 2 --output through >through.txt || cat through.txt
check "updates train beside a quantised file" test -s through/adapter.safetensors
check "the loss falls" awk -F'[:,]' '/"type":"step"/ { for (i = 1; i < NF; ++i) if ($i == "\"loss\"") last = $(i + 1); if (!first) first = last }
  END { exit !(last < 0.9 * first) }' through/log.jsonl
check "the adapter holds the updates alone" test "$(stat -c %s through/adapter.safetensors)" -lt 1000000
"${tune[@]}" --model int8.safetensors "${lora[@]}" --steps 12 --checkpoint-every 2 --output killed >/dev/null &
pid=$!
until [ -e killed/checkpoint-4.safetensors ] || ! kill -0 $pid 2>/dev/null; do sleep 0.05; done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"${tune[@]}" --model int8.safetensors "${lora[@]}" --steps 12 --checkpoint-every 2 --output killed --resume >/dev/null
check "a killed run that goes on ends in the same bits" cmp through/adapter.safetensors killed/adapter.safetensors
check "a checkpoint goes on without the weights it began with" quietly "${tune[@]}" "${lora[@]}" --steps 13 --output killed --resume

"${tune[@]}" --model "$model" --base int8 "${lora[@]}" --steps 12 --output loaded >loaded.txt || cat loaded.txt
check "weights quantised while they load are those of the quantised file" test "$(losses loaded)" = "$(losses through)"
check "they take a quarter of the memory" test "$(grep -o '"weights":[0-9]*' loaded/log.jsonl | grep -o '[0-9]*')" -lt 2500000
printf 'base: int4\nlora-rank: 4\n' >base.yaml
check "the base is a key of the configuration file" quietly "${tune[@]}" --model "$model" --config base.yaml --steps 2
check "and int4 files, fp16 matrices and bf16 activations do" quietly "${tune[@]}" --model int4.safetensors --lora 4 --steps 2 --dtype bf16
check "fp16" quietly "${tune[@]}" --model "$model" --base fp16 --lora 4 --steps 2
check "biases and norms train beside integers" quietly "${tune[@]}" --model int8.safetensors --train-only '*.bias,*.norm.weight' --steps 2 --output bias
check "and leave a model of integers" quietly "$longhand" score --model bias/model.safetensors --text "Repeat." --summary
check "the embedding trains while the others are held" quietly "${tune[@]}" --model "$model" --base int8 --lora 4 --train-only 'embedding.*' --steps 2

drawn=("${tune[@]}" --preset tiny --random-base --base int8 --tokenizer "$model" --lora 4)
"${drawn[@]}" --steps 4 --output drawn >drawn.txt || cat drawn.txt
check "drawn weights need no file" test -s drawn/adapter.safetensors
check "their checkpoint scores" quietly "$longhand" info drawn/checkpoint-4.safetensors
"$longhand" plan --preset 7b --lora 8 --base int8 --dtype bf16 --batch-size 1 --memory-gb 80 >plan.txt
check "a plan says what updates beside the 7b preset take" grep -q "it fits into 80.0 GB" plan.txt

refused "training integers" 2 "is read, not trained" "${tune[@]}" --model int8.safetensors
refused "training an embedding of integers" 2 "embedding.weight is held as i8" "${tune[@]}" --model int8.safetensors --lora 4 --train-only 'embedding.*'
refused "adversarial training of such an embedding" 2 "embedding.weight is held as i8" "${tune[@]}" --model int8.safetensors --lora 4 --fgm 0.5
refused "a base where all trains" 2 "all of them do" "${tune[@]}" --model "$model" --base int8
refused "another base than the file's" 2 "as int8 already" "${tune[@]}" --model int8.safetensors --base int4 --lora 4
refused "an unknown base" 2 "it takes fp32, bf16, fp16, int8 or int4" "${tune[@]}" --model "$model" --base int7 --lora 4
refused "drawn weights beside a file" 2 "give one of them" "${drawn[@]}" --model "$model"
refused "drawn weights of no shape" 2 "--random-base needs --preset" "${tune[@]}" --random-base --lora 4
refused "a tokenizer beside weights" 2 "is for --random-base" "${tune[@]}" --model "$model" --tokenizer "$model"
refused "another base at --resume" 2 "as int8 already" "${tune[@]}" --model int8.safetensors "${lora[@]}" --output killed --resume --base fp16
