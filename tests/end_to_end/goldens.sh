#!/usr/bin/env bash
# The program against PyTorch, and Hugging Face checkpoints in and out. Prints ok / not ok a check. The fixtures and their
# .txt (token stream, losses of ten AdamW steps, log-probabilities of the first 15 predictions): scripts/goldens/fixture.py.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"

goldens=$sources/tests/goldens

quiet() { "$@" >/dev/null; }

# near FIELD KIND TOLERANCE FILE LINE: the FIELD of every JSON line of FILE is that of the expected LINE of numbers.
near() {
  sed -nE "s/.*\"$1\": ?(-?[0-9.e+-]+).*/\1/p" "$4" | paste - <(tr ' ' '\n' <<<"$5") | awk -v kind="$2" -v most="$3" '
    NF != 2 { bad = 1 }
    { d = $1 - $2; if (d < 0) d = -d; if (kind == "relative") d /= $2 < 0 ? -$2 : $2; if (!(d <= most)) bad = 1 }
    END { exit bad || NR == 0 }'
}

# program NAME WEIGHTS TEXT: ten training steps and scores.
program() {
  local name=$1 weights=$2 stream losses
  { read -r stream && read -r losses; } <"$3"
  echo "$stream" >tokens.txt
  "$longhand" train --init "$weights" --tokens tokens.txt --batch-size 2 --segment 5 --steps 10 --lr 0.003 \
    --schedule constant --beta1 0.9 --beta2 0.95 --weight-decay 0 --clip 0 --device cpu --json >steps.jsonl 2>errors.txt
  check "$name: ten training steps have PyTorch's losses to 1e-4" near loss relative 1e-4 steps.jsonl "$losses"
  scores "$name" "$weights" "$3"
}

# scores NAME WEIGHTS TEXT: of the first 16 tokens.
scores() {
  local name=$1 weights=$2 stream logprobs
  { read -r stream && read -r _ && read -r logprobs; } <"$3"
  "$longhand" score --model "$weights" --ids "$(cut -d' ' -f1-16 <<<"$stream" | tr ' ' ',')" --segment 5 --mem-len 7 \
    --device cpu >scores.jsonl 2>errors.txt
  check "$name: scores are PyTorch's log-probabilities to 1e-4" near logprob absolute 1e-4 scores.jsonl "$logprobs"
}

for name in reference_pre reference_pre_same_length_clamp reference_post_same_length_clamp reference_topk; do
  program "$name" "$goldens/$name.safetensors" "$goldens/$name.txt"
done
for name in reference_lora reference_adapters reference_lora_adapters_post; do
  scores "$name" "$goldens/$name.safetensors" "$goldens/$name.txt"
done
for name in hf_transfo_xl_post hf_xlnet; do
  check "$name: imports" quiet "$longhand" import "$goldens/$name" --output "$name.safetensors"
  program "$name" "$name.safetensors" "$goldens/$name/golden.txt"
  check "$name: exports" quiet "$longhand" export --model "$name.safetensors" --output "$name"
  "$longhand" import "$name" --output again.safetensors >/dev/null
  check "$name: what was exported imports to the same bytes" cmp -s "$name.safetensors" again.safetensors
done

# PyTorch's own format goes through a script where PyTorch is there.
python=$(command -v /usr/bin/python3 || command -v python3)
if "$python" -c 'import torch' 2>/dev/null; then
  cp -r "$goldens/hf_transfo_xl_pre" bin
  check "pytorch_model.bin: converts" quiet "$python" "$sources/scripts/convert_checkpoint.py" bin
  check "pytorch_model.bin: imports" quiet "$longhand" import bin --output bin.safetensors
  program hf_transfo_xl_pre bin.safetensors "$goldens/hf_transfo_xl_pre/golden.txt"
fi

# Adaptive input and softmax with its words: scores and generates, is not trained.
adaptive=$goldens/hf_transfo_xl_adaptive
{ read -r stream && read -r _ && read -r logprobs; } <"$adaptive/golden.txt"
ids=$(cut -d' ' -f1-16 <<<"$stream")
text=$(for id in $ids; do sed -n "$((id + 1))p" "$adaptive/vocab.txt"; done | paste -sd' ' | sed 's/<eos>/\n/g')
check "adaptive: imports" quiet "$longhand" import "$adaptive" --output adaptive.safetensors
"$longhand" score --model adaptive.safetensors --ids "${ids// /,}" --segment 5 --mem-len 7 --device cpu >scores.jsonl 2>errors.txt
check "adaptive: scores are PyTorch's log-probabilities to 1e-4" near logprob absolute 1e-4 scores.jsonl "$logprobs"
"$longhand" score --model adaptive.safetensors --text "$text" --segment 5 --mem-len 7 --device cpu >words.jsonl 2>errors.txt
check "adaptive: a text of its words has the same scores" cmp -s scores.jsonl words.jsonl
"$longhand" generate --model adaptive.safetensors --prompt "w2 w3 unseen" --tokens 20 --ignore-end --device cpu >text.txt 2>errors.txt
check "adaptive: writes its words" grep -qE '^( (w[0-9]+|café|@-@|<unk>)| *$)+' text.txt
echo "$stream" >tokens.txt
refused "adaptive: training is refused in one line" 2 "adaptive softmax" \
  "$longhand" train --init adaptive.safetensors --tokens tokens.txt --batch-size 1 --segment 5 --steps 1 --device cpu
if "$python" -c 'import pickle' 2>/dev/null; then
  cp -r "$adaptive" words && rm words/vocab.txt
  check "vocab.bin: converts" quiet "$python" "$sources/scripts/convert_checkpoint.py" words
  check "vocab.bin: the words are the same" cmp -s words/vocab.txt "$adaptive/vocab.txt"
fi

check "a checkpoint that cannot be expressed is one line and exit code 1" bash -c '
  message=$("$1" import "$2/hf_transfo_xl_pre" --output x.safetensors 2>&1); code=$?
  [ $code -eq 1 ] && [ "$(wc -l <<<"$message")" -eq 1 ] && [[ $message == *convert_checkpoint.py* ]] && [ ! -e x.safetensors ]
' bash "$longhand" "$goldens"
