#!/usr/bin/env bash
# A server built with the address and undefined-behaviour sanitizers, or with the thread sanitizer, under everything at once: load
# whose clients hang up, slow clients and mutated requests, with drafts, int8 rings, sessions, an adapter and an experiment; then
# more clients than connections; then a shutdown under load. Nothing is reported, and each ends with 0.
#
#     tests/sanitized/serve.sh PROGRAM [SECONDS [REQUESTS]]              10 seconds of load, 2000 mutated requests
#     setarch -R tests/sanitized/serve.sh PROGRAM [SECONDS [REQUESTS]]   with the thread sanitizer
#
# $PLAIN (build/longhand), built without, makes the load.
LONGHAND=${1:?the program to test} plain=$(realpath "${PLAIN:-build/longhand}") seconds=${2:-10} requests=${3:-2000}
source "$(dirname "$0")/../end_to_end/lib/checks.sh"

model=$sources/weights/tiny.safetensors
source "$sources/tests/end_to_end/lib/server.sh"
lib=$sources/tests/end_to_end/lib
export TSAN_OPTIONS=suppressions=$sources/tests/sanitized/thread.suppressions${TSAN_OPTIONS:+:$TSAN_OPTIONS}

clean() {  # clean NAME: the server has ended with 0 and reported nothing
  if [ "$status" -eq 0 ] && ! grep -qE 'Sanitizer|runtime error' serve.err; then
    echo "ok $1"
  else
    echo "not ok $1: it ended with $status: $(grep -m1 -A12 -E 'Sanitizer|runtime error' serve.err)"
  fi
}

echo '{"instruction": "Repeat.", "input": "1", "output": "1"}' >data.jsonl
"$plain" finetune --model "$model" --data data.jsonl --lora 2 --steps 1 --max-seq-length 128 --answers 0 --output polite >tune.txt \
  || cat tune.txt
start --sessions kept --speculate 7 --ring int8 --adapter polite=polite/adapter.safetensors --variant a,model=tiny \
  --variant b,model=polite,temperature=0.5 --max-tokens 64 --queue 256 --client-queue 256 --read-timeout 10
port=${url##*:}
python3 "$lib/slow_clients.py" "$port" 16 0.05 60 >slow.json &
slow=$!
"$plain" bench serve --url "$url" --clients 24 --seconds "$seconds" --tokens 24 --hang-up 0.3 >load.txt 2>&1 &
load=$!
check "mutated requests beside load and slow clients" python3 "$lib/fuzz_requests.py" "$port" "$requests"
check "load whose clients hang up" wait $load
cat load.txt
wait $slow
check "slow clients are told 408" test "$(field 'd["answers"]' <slow.json)" = "{'408': 16}"
stop
clean "everything at once"

start --connections 8 --read-timeout 60
python3 "$lib/slow_clients.py" "${url##*:}" 24 0.05 8 >slow.json
stop
clean "more slow clients than connections"

start --client-queue 64
"$plain" bench serve --url "$url" --clients 24 --seconds 20 --tokens 64 --hang-up 0.1 >load.txt 2>&1 &
load=$!
sleep 3
stop
wait $load
check "a shutdown is told to clients" grep -q 'tokens/s' load.txt
clean "a shutdown under load"
