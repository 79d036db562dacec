#!/usr/bin/env bash
# The server against clients that are slow, many, or send anything at all; then OpenAI's own client, where it is installed for
# $OPENAI_PYTHON (python3). $FUZZ_REQUESTS (2000) requests are mutated.
source "$(dirname "$0")/lib/checks.sh"

model=$sources/weights/tiny.safetensors
source "$sources/tests/end_to_end/lib/server.sh"
lib=$sources/tests/end_to_end/lib
small='{"prompt":"Click the ","max_tokens":4,"temperature":0}'

# Half of them send a header that never ends, half a body: a byte every 50 ms.
start --connections 48 --read-timeout 4
port=${url##*:}
python3 "$lib/slow_clients.py" "$port" 40 0.05 40 >slow.json &
slow=$!
answers=0
for _ in $(seq 10); do
  post /v1/completions "$small" | grep -q '"text_completion"' && answers=$((answers + 1))
done
check "others are answered beside 40 slow clients" test "$answers" -eq 10
wait $slow
check "each slow client is told 408" test "$(field 'd["answers"]' <slow.json)" = "{'408': 40}"
check "at the time that is allowed, however the bytes trickle in" test "$(field 'd["longest"] < 12' <slow.json)" = True
stop

# More slow clients than there are connections: the slowest give way.
start --connections 8 --read-timeout 60
port=${url##*:}
python3 "$lib/slow_clients.py" "$port" 12 0.05 15 >slow.json &
slow=$!
came_through() {  # long before the slow ones give up
  for _ in $(seq 25); do
    post /v1/completions "$small" 2>/dev/null | grep -q '"text_completion"' && return
    sleep 0.2
  done
  return 1
}
crowded() {  # until all of them are there
  for _ in $(seq 200); do
    curl -sS "$url/health" 2>/dev/null | grep -q 'too many connections' && return
    sleep 0.02
  done
  return 1
}
check "more slow clients than connections leave no room at first" crowded
check "then a client finds a place among them" came_through
long() { post /v1/completions '{"prompt":"a","max_tokens":400,"ignore_eos":true}'; }
for i in 1 2 3; do long >long.$i & done
wait $(jobs -p | grep -vx $server)
check "an answer under way does not give way" test "$(cat long.? | grep -c '"finish_reason":"length"')" -eq 3
check "those that gave way are told 408" test "$(field 'd["answers"].get("408", 0) > 0' <slow.json)" = True
stop

echo '{"instruction": "Repeat.", "input": "1", "output": "1"}' >data.jsonl
"$longhand" finetune --model "$model" --data data.jsonl --lora 2 --steps 1 --max-seq-length 128 --answers 0 --output polite >tune.txt \
  || cat tune.txt
start --sessions kept --max-tokens 64 --read-timeout 5 --variant a,model=tiny --variant b,model=polite,temperature=0.5 \
  --adapter polite=polite/adapter.safetensors
python3 -c 'print("{\"prompt\":[1," + "[" * 400000 + "]" * 400000 + "]}")' >deep.json
answered "nesting without end" 400 "nests deeper" curl -sS -H 'Content-Type: application/json' --data-binary @deep.json "$url/v1/completions"
check "ranges of an answer are not asked for" test \
  "$(post /v1/completions "$small" -H 'Range: bytes=0-1,0-1' -o whole.json -w '%{http_code}') $(field 'd["object"]' <whole.json)" = "200 text_completion"
check "mutated requests are answered or refused" python3 "$lib/fuzz_requests.py" "${url##*:}" "${FUZZ_REQUESTS:-2000}"
check "the server is well after them" test "$(curl -sS "$url/health")" = '{"status":"ok"}'
check "and writes what it wrote before" test "$(post /v1/completions '{"prompt":"Click the ","max_tokens":8,"temperature":0}' | field "$texts")" \
  = "$(generated --prompt "Click the " --tokens 8 --temperature 0)"
stop
check "and ends with 0" test "$status" -eq 0

export LONGHAND_API_KEY=sesame
start --max-prompt 4000
"${OPENAI_PYTHON:-python3}" "$sources/scripts/openai_client_check.py" "$url"
stop
