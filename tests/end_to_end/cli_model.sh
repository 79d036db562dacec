#!/usr/bin/env bash
# generate, chat, score and info on models made on the spot. Prints ok / not ok a check.
source "$(dirname "${BASH_SOURCE[0]}")/lib/checks.sh"

# Logarithms of two score files, position by position.
same_scores() {
  paste -d' ' <(sed -E 's/.*"logprob": ([-0-9.e]+)\}/\1/' "$1") <(sed -E 's/.*"logprob": ([-0-9.e]+)\}/\1/' "$2") |
    awk -v limit="$3" '{ d = $1 - $2; if (d < 0) d = -d; if (d > worst) worst = d } END { exit !(NR > 0 && worst < limit) }'
}

shape=(--d-model 16 --n-layer 2 --n-head 2 --mem-len 12 --segment 12 --batch-size 2 --threads 1)

# A model of bare ids.
seq 1 4000 | awk '{ print ($1 * $1 + 7) % 31 }' >ids.txt
"$longhand" train "${shape[@]}" --vocab-size 31 --tokens ids.txt --steps 20 --lr 0.01 --output bare.safetensors >log.txt 2>&1
check "a model of bare ids was made" test -s bare.safetensors

ids=3,1,4,1,5,9,2,6,5,3,5,8,9,7,9,3,2,3,8,4,6,2,6,4,3,3,8,3,2,7,9,5
bare=("$longhand" generate --model bare.safetensors --threads 1 --ids 3,1,4)
"${bare[@]}" --tokens 60 --seed 5 >one.txt
"${bare[@]}" --tokens 60 --seed 5 >two.txt
"${bare[@]}" --tokens 60 --seed 6 >other.txt
check "the same seed writes the same" cmp -s one.txt two.txt
check "another seed writes something else" test "$(cmp -s one.txt other.txt; echo $?)" -eq 1
check "as many tokens as asked, beyond the window" test "$(wc -w <one.txt)" -eq 60
"${bare[@]}" --tokens 60 --seed 5 --num-samples 3 >three.txt
check "the first of several samples is the single one" test "[1] $(cat one.txt)" = "$(head -1 three.txt)"
check "samples differ" test "$(sort -u three.txt | cut -c5- | sort -u | wc -l)" -eq 3
"${bare[@]}" --tokens 9 --temperature 0 --json >json.txt
check "--json states ids, end and speed" grep -qE \
  '^\{"sample":0,"prompt_tokens":3,"ids":\[[0-9,]+\],"finish_reason":"length",.*"tokens_per_s":[0-9.e+]+\}$' json.txt
greedy=$("${bare[@]}" --tokens 1 --temperature 0)
best=$(for t in $(seq 0 30); do
  "$longhand" score --model bare.safetensors --threads 1 --ids "3,1,4,$t" 2>log.txt | tail -1 |
    sed -E "s/.*\"logprob\": ([-0-9.e]+)\}/\1 $t/"
done | sort -g | tail -1 | cut -d' ' -f2)
check "temperature 0 writes what score finds likeliest" test "$greedy" = "$best"

score=("$longhand" score --model bare.safetensors --threads 1 --ids "$ids")
"${score[@]}" >whole.txt 2>summary.txt
check "every token after the first is scored" test "$(wc -l <whole.txt)" -eq 31
check "a line has position, token and logprob" grep -qE \
  '^\{"position": 1, "token": 1, "logprob": -[0-9.]+\}$' whole.txt
check "the summary is on standard error" grep -qE '^31 tokens, [0-9.]+ nats a token, [0-9.]+ tokens/s$' summary.txt
"${score[@]}" --segment 32 --mem-len 0 >one_pass.txt 2>log.txt
"${score[@]}" --segment 5 --mem-len 40 >pieces.txt 2>log.txt
check "short segments with memory give the scores of one pass" same_scores one_pass.txt pieces.txt 1e-4
"${score[@]}" --sliding-window 31 >window.txt 2>log.txt
check "a sliding window over everything gives the scores of one pass" same_scores one_pass.txt window.txt 1e-4
"${score[@]}" --sliding-window 8 --from 20 >late.txt 2>log.txt
check "--from leaves out what comes before" test "$(wc -l <late.txt)" -eq 12
check "--summary is one object" grep -qE '^\{"tokens":31,"nats_per_token":[0-9.]+,.*\}$' <("${score[@]}" --summary)

# A model of text.
{
  cat "$sources"/LICENSE "$sources"/include/longhand/tensor.h
  for i in $(seq 1 60); do echo "The cat number $i sat on the mat, and die Katze saß auf der Matte; 猫坐在垫子上。"; done
} >text.txt
"$longhand" prepare --text text.txt --split-lines --vocab-size 500 --output tokens.safetensors >log.txt 2>&1 ||
  cat log.txt
"$longhand" train "${shape[@]}" --tokens tokens.safetensors --steps 60 --lr 0.01 --output text.safetensors >log.txt 2>&1 ||
  tail -1 log.txt
check "a model of text was made" test -s text.safetensors
text=("$longhand" generate --model text.safetensors --threads 1)
"${text[@]}" --prompt "The cat" --tokens 80 --temperature 2 --ignore-end >stream.txt
check "what is streamed is UTF-8" iconv -f utf8 -t utf8 -o /dev/null stream.txt
check "--echo begins with the prompt" grep -q '^The cat' <("${text[@]}" --prompt "The cat" --tokens 4 --echo)
printf 'The cat\n' >prompt.txt
"${text[@]}" --prompt "The cat" --tokens 20 --seed 3 >direct.txt
"${text[@]}" --prompt-file prompt.txt --tokens 20 --seed 3 >file.txt
"${text[@]}" --prompt - --tokens 20 --seed 3 <prompt.txt >stdin.txt
check "a prompt from a file is the prompt" cmp -s direct.txt file.txt
check "a prompt from standard input is the prompt" cmp -s direct.txt stdin.txt
long=("${text[@]}" --prompt "The cat number" --tokens 100 --seed 4 --ignore-end)
full=$("${long[@]}")
stop=${full:40:5}
check "a stop string ends the text before itself" test "$("${long[@]}" --stop "$stop"; echo .)" = "${full%%"$stop"*}"$'\n.'
check "the reason is stop" grep -q '"finish_reason":"stop"' <("${long[@]}" --stop "$stop" --json)
# Drafts: the same text in fewer passes.
ids() { sed -E 's/.*"ids":(\[[^]]*\]).*"finish_reason":("[a-z]*").*/\1 \2/'; }
repeated="The cat number one. The cat number two. The cat number one. The cat number"
for rules in "--temperature 0" "--temperature 0.6 --repetition-penalty 1.2" "--temperature 0.5 --num-samples 3"; do
  drafts=("${text[@]}" --prompt "$repeated" --tokens 60 --seed 2 --ignore-end --json $rules --stop "$stop")
  check "drafts change no token: $rules" test "$("${drafts[@]}" --speculate 8 | ids)" = "$("${drafts[@]}" | ids)"
done
check "drafts are made" grep -qE '"drafted":[1-9]' <("${drafts[@]}" --speculate 8)
talk=("$longhand" chat --model text.safetensors --threads 1 --tokens 20 --temperature 0 --json)
printf 'The cat\nThe cat\nThe cat\n' | "${talk[@]}" --session plain >plain.txt
printf 'The cat\nThe cat\nThe cat\n' | "${talk[@]}" --session drafted --speculate 8 >drafted.txt
check "a conversation with drafts is the same, and so is its file" bash -c "cmp -s plain.txt drafted.txt && cmp -s plain drafted"
# Rings and the keys that are attended to.
far=("${text[@]}" --prompt "The cat number" --tokens 200 --window 300 --seed 4 --ignore-end)
"${far[@]}" >dense.txt
"${far[@]}" --ring fp32 --attention pages --pages 6 >pages.txt
check "all pages are the dense text" cmp -s dense.txt pages.txt
for flags in "--ring bf16" "--ring int8" "--ring int8 --attention pages --pages 2" "--ring bf16 --attention topk --keys 9"; do
  check "as many tokens with $flags" grep -q '"finish_reason":"length"' <("${far[@]}" $flags --json)
done
printf 'The cat\n' | "${talk[@]}" --session narrow --window 300 --ring int8 --attention pages --pages 2 >narrow.txt
refused "a session of another ring is refused" 1 "a ring of i8" "${talk[@]}" --session narrow --window 300 --attention pages --pages 2
refused "a ring of no such type is refused" 2 "--ring fp16" "${text[@]}" --prompt a --ring fp16
refused "pages without their number are refused" 2 "--pages N" "${text[@]}" --prompt a --attention pages
refused "a number of pages alone is refused" 2 "--attention pages" "${text[@]}" --prompt a --pages 4
refused "keys with pages are refused" 2 "--attention topk" "${text[@]}" --prompt a --attention pages --pages 4 --keys 3
refused "too long drafts are refused" 2 "--speculate 33" "${text[@]}" --prompt a --speculate 33

# Choices: a text is one of them, whatever the model would have written.
printf 'The cat\nThe cat number\n猫\n' >choices.txt
for seed in 1 2 3 4 5 6; do
  "${text[@]}" --prompt "The" --seed $seed --temperature 3 --top-p 1 --choices-file choices.txt --speculate $((seed % 2 * 8))
done >chosen.txt
check "a text of choices is one of them" test "$(grep -vxcFf choices.txt chosen.txt)" = 0
check "and not always the same" test "$(sort -u chosen.txt | wc -l)" -gt 1
check "its reason is stop" grep -q '"text":" yes","finish_reason":"stop"' <("${text[@]}" --prompt "The" --choices " yes" --json)
refused "an empty choice is refused" 2 '"" cannot be written' "${text[@]}" --prompt a --choices "yes||no"
refused "choices twice are refused" 2 "give one of" "${text[@]}" --prompt a --choices "yes" --choices-file choices.txt
refused "choices without an end are refused" 2 "--ignore-end" "${text[@]}" --prompt a --choices "yes" --ignore-end
refused "choices of a model without tokenizer are refused" 2 "needs a tokenizer" "${bare[@]}" --choices "yes"
"$longhand" score --model text.safetensors --threads 1 --text "The cat, 猫" >scored.txt 2>summary.txt
check "scored text has its pieces" test "$(sed -E 's/.*"text": "(.*)", "logprob".*/\1/' scored.txt | tail -1)" = "猫"
check "the summary of text has bits a byte" grep -q 'bits a byte' summary.txt
printf 'Hello\n\n/reset\nAgain\n/exit\nnever\n' |
  "$longhand" chat --model text.safetensors --threads 1 --tokens 8 --seed 1 --json >chat.txt
check "chat answers each line of a pipe until /exit" test "$(grep -c '^{"text":' chat.txt)" -eq 2
printf 'Hello\n/reset\nHello\n' | "$longhand" chat --model text.safetensors --threads 1 --tokens 8 --temperature 0 --json >chat.txt
check "/reset forgets" test "$(sort -u chat.txt | wc -l)" -eq 1
check "chat at the end of its input leaves with 0" "$longhand" chat --model text.safetensors --threads 1 </dev/null

check "info shows weights" grep -q '^text.safetensors: weights' <("$longhand" info text.safetensors)
check "info verifies checksums" grep -qE 'checksums of [0-9]+ tensors verified' <("$longhand" info text.safetensors)
check "info shows the configuration" grep -qE '^  d_model +16$' <("$longhand" info text.safetensors)
check "info shows token files" grep -qE '^  train +[0-9,]+ tokens' <("$longhand" info tokens.safetensors)
check "info speaks JSON" grep -qE '^\{"file":.*"kind":.*"parameters":[0-9]+' <("$longhand" info text.safetensors --json)

refused "a prompt without a tokenizer is refused" 2 "has no tokenizer" "${bare[@]:0:6}" --prompt hello
refused "an id outside the vocabulary is refused" 2 "token 31 is outside" "${bare[@]:0:6}" --ids 1,31
refused "an id that is no number is refused" 2 "--ids" "${bare[@]:0:6}" --ids 1,x
refused "two prompts are refused" 2 "give one of" "${text[@]}" --prompt a --ids 1
refused "an impossible temperature is refused" 2 "--temperature" "${text[@]}" --prompt a --temperature -1
refused "a prompt that is not UTF-8 is refused" 1 "not valid UTF-8" "${text[@]}" --prompt $'a\xff'
refused "an absent model is one clear line" 1 "absent.safetensors" "$longhand" generate --model absent.safetensors --prompt a
refused "a token file is no model" 1 "holds no model" "$longhand" generate --model tokens.safetensors --prompt a
refused "a text file is no model" 1 "text.txt" "$longhand" generate --model text.txt --prompt a
refused "a text of one token has nothing to score" 2 "tokens" "$longhand" score --model bare.safetensors --ids 1
head -c 5000 text.safetensors >cut.safetensors
refused "a cut file is one clear line" 1 "cut.safetensors" "$longhand" info cut.safetensors
