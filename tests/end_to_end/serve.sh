#!/usr/bin/env bash
# The server against curl: the same text as longhand generate, streams, limits, errors, clients that hang up, shutdown.
source "$(dirname "$0")/lib/checks.sh"

model=$sources/weights/tiny.safetensors
source "$sources/tests/end_to_end/lib/server.sh"

start --batch 4 --max-body 20000 --max-prompt 2000 --max-tokens 1000000
check "health" test "$(curl -sS "$url/health")" = '{"status":"ok"}'
check "the model has its file's name" test "$(curl -sS "$url/v1/models" | field 'd["data"][0]["id"]')" = tiny

flags=(--prompt "Click the " --tokens 24 --seed 7 --temperature 0.8 --top-p 0.9 --top-k 50 --min-p 0.01)
body='{"prompt":"Click the ","max_tokens":24,"seed":7,"temperature":0.8,"top_p":0.9,"top_k":50,"min_p":0.01,"n":3'
want=$(generated "${flags[@]}" --num-samples 3)
check "a seed gives what longhand generate gives, each of n" test "$(post /v1/completions "$body}" | field "$texts")" = "$want"
check "streamed too" test "$(post /v1/completions "$body,\"stream\":true}" -N | joined)" = "$want"
want=$(generated --prompt "Click the " --tokens 30 --temperature 0 --stop "e")
check "a stop text ends a text as it does there" test \
  "$(post /v1/completions '{"prompt":"Click the ","max_tokens":30,"temperature":0,"stop":"e"}' | field "$texts")" = "$want"
post /v1/completions '{"prompt":["Click ","The "],"max_tokens":5,"temperature":0,"logprobs":2}' >several.json
check "several prompts, log-probabilities and usage" test "$(field \
  '(len(d["choices"]), len(d["choices"][1]["logprobs"]["tokens"]), d["usage"]["completion_tokens"], all(abs(max(t.values()) - l) < 1e-4 for c in d["choices"] for t, l in zip(c["logprobs"]["top_logprobs"], c["logprobs"]["token_logprobs"])))' <several.json)" = "(2, 5, 10, True)"
choice='{"prompt":"Is it so?","max_tokens":9,"guided_choice":["yes","yes, it is","no"],"temperature":2,"n":4,"logprobs":1'
post /v1/completions "$choice,\"seed\":5}" >chosen.json
check "guided_choice: every text is one of the choices" test "$(field \
  'all(c["text"] in ("yes", "yes, it is", "no") and c["finish_reason"] == "stop" for c in d["choices"])' <chosen.json)" = True
check "streamed too, guided" test "$(post /v1/completions "$choice,\"seed\":5,\"stream\":true}" -N | joined)" = "$(field "$texts" <chosen.json)"
check "what longhand generate --choices writes" test "$(field "$texts" <chosen.json)" \
  = "$(generated --prompt "Is it so?" --choices "yes|yes, it is|no" --temperature 2 --top-p 1 --num-samples 4 --seed 5)"
check "a chat of choices" test "$(post /v1/chat/completions \
  '{"messages":[{"role":"user","content":"Is it so?"}],"guided_choice":["maybe"]}' | field 'd["choices"][0]["message"]["content"]')" = maybe
ids=$(post /tokenize '{"text":"Click the button."}' | field 'json.dumps(d["tokens"])')
check "tokens of /tokenize are a prompt too" test "$(post /v1/completions "{\"prompt\":$ids,\"max_tokens\":8,\"temperature\":0}" | field "$texts")" \
  = "$(generated --ids "$(tr -d '[]' <<<"$ids")" --tokens 8 --temperature 0)"
chat='{"messages":[{"role":"user","content":"How do I save a document?"}],"max_tokens":20,"seed":3,"temperature":0.8,"top_p":0.95'
want=$(echo "How do I save a document?" | "$longhand" chat --model "$model" --tokens 20 --seed 3 --json | field 'json.dumps([d["text"]])')
check "a chat answers as longhand chat does" test "$(post /v1/chat/completions "$chat}" | field 'json.dumps([d["choices"][0]["message"]["content"]])')" = "$want"
check "streamed too, chat" test "$(post /v1/chat/completions "$chat,\"stream\":true}" -N | joined)" = "$want"
check "a stream ends with [DONE]" test "$(post /v1/chat/completions "$chat,\"stream\":true}" -N | tail -2 | head -1)" = "data: [DONE]"
check "an embedding has a number for each of d_model" test \
  "$(post /v1/embeddings '{"input":["a","b c"]}' | field '[len(e["embedding"]) for e in d["data"]]')" = "[128, 128]"
check "the page needs nothing from elsewhere" bash -c "curl -sS '$url/' | grep -q '<title>Longhand' && ! curl -sS '$url/' | grep -qE 'https?://'"

answered "no JSON" 400 "not valid JSON" post /v1/completions '{'
answered "a mistyped field" 400 'did you mean "temperature"' post /v1/completions '{"prompt":"a","temperatur":1}'
answered "an unknown model" 404 'there is no model "tinny"' post /v1/completions '{"prompt":"a","model":"tinny"}'
answered "an unknown path" 404 "there is no /v1/completion" post /v1/completion '{}'
answered "a wrong method" 405 "does not take GET" curl -sS "$url/v1/completions"
answered "no JSON by its type" 415 "Content-Type" curl -sS -d '{"prompt":"a"}' "$url/v1/completions"
answered "a body that is too long" 413 "20000 bytes" post /v1/completions "{\"prompt\":\"$(printf 'a%.0s' $(seq 30000))\"}"
answered "a prompt that is too long" 413 "2000 at most" post /v1/completions "{\"prompt\":\"$(printf ' z%.0s' $(seq 6000))\"}"
answered "an empty choice" 400 "an empty one" post /v1/completions '{"prompt":"a","guided_choice":["yes",""]}'
answered "choices without an end" 400 "ignore_eos" post /v1/completions '{"prompt":"a","guided_choice":["yes"],"ignore_eos":true}'
answered "a token outside the vocabulary" 400 "vocabulary" post /v1/completions '{"prompt":[99999999]}'

# A client that hangs up: its text ends long before its last token, however fast the machine is.
post /v1/completions '{"prompt":"a","max_tokens":1000000,"ignore_eos":true,"stream":true}' -N --max-time 1 >/dev/null 2>&1
post /v1/completions '{"prompt":"a","max_tokens":1000000,"ignore_eos":true}' --max-time 1 >/dev/null 2>&1
for _ in $(seq 50); do
  curl -sS "$url/metrics" >metrics.txt
  grep -q '^longhand_texts_cancelled_total{model="tiny"} 2$' metrics.txt && break
  sleep 0.1
done
check "texts of clients that hung up are cancelled" grep -q '^longhand_texts_cancelled_total{model="tiny"} 2$' metrics.txt
check "their places are free again" grep -q '^longhand_sequences_used{model="tiny"} 0$' metrics.txt
check "every line of /metrics is Prometheus' text format" bash -c \
  "! grep -vE '^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z_]+=\"[^\"]*\"(,[a-z_]+=\"[^\"]*\")*\})? [0-9.e+-]+)$' metrics.txt"

# A shutdown lets the answers under way come to their end.
post /v1/completions '{"prompt":"a","max_tokens":300,"ignore_eos":true,"stream":true}' -N >last.txt &
client=$!
for _ in $(seq 100); do [ -s last.txt ] && break; sleep 0.05; done
stop
wait $client
check "SIGTERM ends the server with 0" test "$status" -eq 0
check "after the last answer is whole" grep -q 'data: \[DONE\]' last.txt

echo "sesame" >keys.txt
start --api-key-file keys.txt --read-timeout 1 --timeout 1 --max-tokens 1000000 --connections 4 --batch 1 --queue 1
answered "no key" 401 "Bearer" post /v1/completions '{"prompt":"a"}'
answered "a wrong key" 401 "Bearer" post /v1/completions '{"prompt":"a"}' -H 'Authorization: Bearer sesam'
check "the key" test "$(post /v1/completions '{"prompt":"a","max_tokens":1,"ignore_eos":true}' -H 'Authorization: Bearer sesame' | field 'd["usage"]["completion_tokens"]')" = 1
answered "an answer that takes too long" 408 "longer" post /v1/completions '{"prompt":"a","max_tokens":1000000,"ignore_eos":true,"temperature":0.7}' \
  -H 'Authorization: Bearer sesame'
check "no origin is allowed unless asked for" bash -c "! curl -sSi -H 'Origin: http://a.example' '$url/health' | grep -qi access-control"
port=${url##*:}
slow() {  # a request that never comes to its end, a byte at a time; prints what the server says
  exec 5<>"/dev/tcp/127.0.0.1/$port"
  printf 'POST /v1/completions HTTP/1.1\r\nX-Slow: ' >&5
  for _ in $(seq 8); do printf 'a' >&5; sleep 0.1; done
  timeout 3 cat <&5
}
(slow) >slow.txt 2>/dev/null
check "a request that does not arrive in time" grep -q '^HTTP/1.1 408' slow.txt
for i in 1 2 3 4; do (slow) >slow.$i 2>/dev/null & done
crowded() {  # until all four are there
  for _ in $(seq 60); do
    curl -sS -w '%{http_code}' "$url/health" 2>/dev/null | grep -q 'too many connections.*503' && return
    sleep 0.02
  done
  return 1
}
check "one connection too many is told so" crowded
sleep 2
check "slow clients do not keep the others out" test "$(curl -sS "$url/health")" = '{"status":"ok"}'
stop
check "the server ends with 0 whoever is connected" test "$status" -eq 0

# Sessions: a conversation that the server keeps, as longhand chat has it.
printf 'Hello\nWhat is a cell?\nGo on\n' | "$longhand" chat --model "$model" --temperature 0 --tokens 12 --json >chat.json
printf 'Hello\nWhat is a cell?\n' | "$longhand" chat --model "$model" --temperature 0 --tokens 12 --session talk --json >/dev/null
check "a chat goes on from its file" test "$(printf 'Go on\n' | "$longhand" chat --model "$model" --temperature 0 --tokens 12 --session talk --json)" = "$(tail -1 chat.json)"
say() { post /v1/chat/completions "{\"session\":\"talk-1\",\"temperature\":0,\"max_tokens\":12,\"messages\":[{\"role\":\"user\",\"content\":\"$1\"}]}" "${@:2}"; }
content='json.dumps({"text": d["choices"][0]["message"]["content"]}, ensure_ascii=False, separators=(",", ":"))'
start --sessions kept
say "Hello" | field "$content" >served.json
say "What is a cell?" | field "$content" >>served.json
stop
start --sessions kept --max-tokens 1000000
say "Go on" -N | field "$content" >>served.json
check "a session goes on over a restart, and says what longhand chat says" cmp served.json chat.json
answered "a session of two texts" 400 "one prompt, n 1" post /v1/completions '{"prompt":"a","n":2,"session":"x"}'
answered "a session whose id is no name" 400 "letters, digits" post /v1/completions '{"prompt":"a","session":"../x"}'
post /v1/completions '{"prompt":"a","max_tokens":1000000,"ignore_eos":true,"session":"busy"}' --max-time 3 >/dev/null 2>&1 &
sleep 1
answered "a session that another request has" 409 "another request" post /v1/completions '{"prompt":"a","session":"busy"}'
wait $!
stop
printf 'sesame\nbarley\n' >keys.txt
start --sessions keyed --api-key-file keys.txt
as() { say "$2" -H "Authorization: Bearer $1"; }
mine=$(as sesame "Hello" | field "$content"; as sesame "What is a cell?" | field "$content")
check "a session belongs to the key that made it" test "$(as barley "Hello" | field "$content"; as barley "What is a cell?" | field "$content")" = "$mine"
check "a key has a folder of its own, named by its digest" test -f "keyed/$(printf sesame | sha256sum | cut -d' ' -f1)/talk-1.safetensors"
stop
start --sessions kept --window 20
answered "a session of another window" 409 "--window" say "Hello"
stop

# Drafts: the same answers.
start --speculate 8 --batch 4 --max-tokens 1000000
drafted='{"prompt":"Click OK. Click Cancel. Click OK. Click ","max_tokens":60,"seed":7,"n":3,"ignore_eos":true,"temperature":0.4,"repetition_penalty":1.05}'
want=$(generated --prompt "Click OK. Click Cancel. Click OK. Click " --tokens 60 --seed 7 --num-samples 3 --ignore-end --temperature 0.4 --top-p 1 --repetition-penalty 1.05)
check "drafts change no answer" test "$(post /v1/completions "$drafted" | field "$texts")" = "$want"
check "nor a streamed one" test "$(post /v1/completions "${drafted%\}},\"stream\":true}" -N | joined)" = "$want"
check "drafts are counted" bash -c "curl -sS '$url/metrics' | grep -qE '^longhand_drafted_tokens_total.* [1-9]'"
stop
refused "too long drafts are refused" 2 "--speculate 99" "$longhand" serve --model "$model" --speculate 99

# An experiment: two variants of one model, one of which draws greedily.
start --variant calm,model=tiny,temperature=0 --variant bold,model=tiny,share=3,temperature=1.5
check "an experiment is among the models" test "$(curl -sS "$url/v1/models" | field '[m["id"] for m in d["data"]]')" = "['tiny', 'ab']"
ab='{"model":"ab","prompt":"Click the ","max_tokens":8,"temperature":0.5'
post /v1/completions "$ab,\"user\":\"one\"}" >first.json
check "a user stays with a variant" test "$(for _ in 1 2 3 4; do post /v1/completions "$ab,\"user\":\"one\"}" | field 'd["variant"]'; done | sort -u)" = "$(field 'd["variant"]' <first.json)"
for i in $(seq 24); do post /v1/completions "$ab,\"user\":\"$i\"}"; done >many.json
check "both variants have users" test "$(grep -o '"variant":"[a-z]*"' many.json | sort -u | wc -l)" -eq 2
check "a variant's settings take the place of the request's" \
  test "$(grep '"variant":"calm"' many.json | sed 's/.*"text":"\([^"]*\)".*/\1/' | sort -u | wc -l)" -eq 1
id=$(field 'd["id"]' <first.json)
check "an answer is rated" test "$(post /ab/feedback "{\"id\":\"$id\",\"rating\":\"up\"}")" = '{"status":"ok"}'
answered "an answer that nobody gave" 404 "no answer" post /ab/feedback '{"id":"cmpl-0","rating":"up"}'
answered "a rating that is none" 400 "up or down" post /ab/feedback "{\"id\":\"$id\",\"rating\":\"so so\"}"
check "/ab counts answers and verdicts" \
  test "$(curl -sS "$url/ab" | field 'sum(v["answers"] for v in d["variants"]), sum(v["up"] for v in d["variants"])')" = "29 1"
check "so do the metrics" bash -c "curl -sS '$url/metrics' | grep -q '^longhand_ab_feedback_total{variant=\"[a-z]*\",rating=\"up\"} 1$'"
stop
if command -v chromium >/dev/null; then
  start --variant calm,model=tiny,temperature=0.3 --variant bold,model=tiny,temperature=1.2
  python3 "$sources/tests/end_to_end/lib/chat_page.py" "$url" "${CHAT_PAGE_PICTURE:-$work/page.png}"
  stop
else
  echo "chat page: not looked at, there is no chromium"
fi
refused "one variant" 1 "two variants" "$longhand" serve --model "$model" --port 0 --variant a,model=tiny
refused "a variant of no model" 1 'there is no model "tinny"' "$longhand" serve --model "$model" --port 0 \
  --variant a,model=tiny --variant b,model=tinny
refused "a variant whose setting is out of range" 2 "top-p is a number between" "$longhand" serve --model "$model" \
  --variant a,model=tiny,top-p=5
refused "a variant without a model" 2 "NAME,model=MODEL" "$longhand" serve --model "$model" --variant a,share=1

refused "two sources of models" 2 "one of --model and --models" "$longhand" serve --model a --models b
refused "an empty folder" 1 "no *.safetensors" "$longhand" serve --models "$work"
refused "an address of another machine" 1 "cannot listen" "$longhand" serve --model "$model" --host 192.0.2.1
