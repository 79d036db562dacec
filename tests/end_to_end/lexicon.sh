#!/usr/bin/env bash
# Terms of a domain as tokens of their own: added in one command, old texts unchanged, used by every command that reads the
# model, their rows trained alone, and bad lists refused with the line.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"
model=$sources/weights/tiny.safetensors
score() { "$longhand" score "$@" --json --threads 1 2>/dev/null; }
tokens() { score --text "$2" --model "$1" | wc -l; }

printf 'Kaleidoskop\nPageMaker Import\n单元格格式\nscape\tanywhere\n' >terms.txt
text='Open the Kaleidoskop, then PageMaker Import, landscape 单元格格式.'
echo "$text" >text.txt
"$longhand" lexicon --model "$model" --terms terms.txt --output new.safetensors --text text.txt >lexicon.txt || cat lexicon.txt
check "the command says how many tokens a text takes before and after" grep -qE "takes [0-9]+ tokens, [0-9]+ before \(-" lexicon.txt
check "and how to train the new rows alone" grep -qF -- "--train-only 'embedding.weight[8192:]'" lexicon.txt
check "a text with terms takes fewer tokens" test "$(tokens new.safetensors "$text")" -lt "$(tokens "$model" "$text")"
old='Click Format, then Cells. Kaleidoskope PageMaker Imports'
check "a text without them takes the same tokens" diff \
  <(score --text "$old" --model "$model" | sed 's/"logprob.*//') <(score --text "$old" --model new.safetensors | sed 's/"logprob.*//')
logprobs() { score --text "$old" --model "$1" | sed -nE 's/.*"logprob": ?(-[0-9.e-]+).*/\1/p'; }
check "whose log-probabilities fall a little, none rises" awk '{ d = $1 - $2; if (d < -1e-6 || d > 0.5 || $2 == "") bad = 1 } END { exit bad || NR < 9 }' \
  <(paste <(logprobs "$model") <(logprobs new.safetensors))
check "the terms are a part of the text" test "$(score --text "$text" --model new.safetensors | sed -nE 's/.*"text": ?"([^"]*)".*/\1/p' | tr -d '\n')" = "${text#Open}"

"$longhand" quantize --model new.safetensors --type int4 --output new4.safetensors >/dev/null
check "a quantised model keeps them" test "$(tokens new4.safetensors "$text")" -eq "$(tokens new.safetensors "$text")"
"$longhand" quantize --model "$model" --output int8.safetensors >/dev/null
"$longhand" lexicon --model int8.safetensors --terms terms.txt --output later8.safetensors >/dev/null
check "and takes them" test "$(tokens later8.safetensors "$text")" -eq "$(tokens new.safetensors "$text")"
check "generate writes with them" quietly "$longhand" generate --model new.safetensors --prompt "Kaleidoskop" --tokens 4
printf 'Zwiebelfisch\n' >more.txt
"$longhand" lexicon --model new.safetensors --terms more.txt --output twice.safetensors >twice.txt
check "more terms come behind the first" grep -q "embedding.weight\[8199:\]" twice.txt

for i in $(seq 1 40); do
  echo "{\"instruction\": \"Name it.\", \"input\": \"number $i\", \"output\": \"Kaleidoskop $i\"}"
done >data.jsonl
tune=("$longhand" finetune --data data.jsonl --max-seq-length 128 --batch-size 2 --steps 3 --lr 1e-2 --answers 0 --threads 1)
"${tune[@]}" --model new.safetensors --train-only 'embedding.weight[8192:]' --output rows >rows.txt || cat rows.txt
check "the rows of the terms are trained alone" grep -q "(896 trained)" rows.txt
check "the run's weights keep the terms" test "$(tokens rows/model.safetensors "$text")" -eq "$(tokens new.safetensors "$text")"
"${tune[@]}" --model "$model" --lora 2 --output before >/dev/null
"${tune[@]}" --model new.safetensors --lora 2 --output after >/dev/null
for run in before after; do
  check "an adapter made $run the terms serves the model that has them" quietly "$longhand" score --model new.safetensors \
    --adapter $run/adapter.safetensors --text "$text"
done
"$longhand" merge --model new.safetensors --adapter after/adapter.safetensors --output merged.safetensors >/dev/null
check "merged weights keep them" test "$(tokens merged.safetensors "$text")" -eq "$(tokens new.safetensors "$text")"

for i in $(seq 1 300); do echo "Open the Kaleidoskop and the PageMaker Import, line $i."; done >corpus.txt
"$longhand" prepare --text corpus.txt --split-lines --tokenizer new.safetensors --output tokens.safetensors >/dev/null 2>&1
check "prepare writes token files with them" quietly "$longhand" train --init new.safetensors --tokens tokens.safetensors \
  --segment 32 --batch-size 2 --steps 2 --train-only 'embedding.*' --threads 1
refused "a model without the terms does not take them" 2 "vocabulary" "$longhand" train --init "$model" --tokens tokens.safetensors \
  --segment 32 --batch-size 2 --steps 1
"$longhand" lexicon --model "$model" --suggest 3 --text corpus.txt >list.txt
check "words that save most are suggested" test "$(head -1 list.txt)" = Kaleidoskop

printf 'Kaleidoskop\nthe\n' >known.txt
refused "a term that is a token already" 1 'known.txt:2: "the" is a token already' "$longhand" lexicon --model "$model" \
  --terms known.txt --output x.safetensors
refused "the same term again" 1 '"Kaleidoskop" is a token already' "$longhand" lexicon --model new.safetensors \
  --terms terms.txt --output x.safetensors
printf 'Kaleidoskop\n\n' >empty.txt
refused "an empty line" 1 'empty.txt:2: the term is empty' "$longhand" lexicon --model "$model" --terms empty.txt --output x.safetensors
refused "no terms" 2 "--terms and --output are needed" "$longhand" lexicon --model "$model"
check "nothing is left of what was refused" test ! -e x.safetensors
