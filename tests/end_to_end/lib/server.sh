# Sourced by tests of the server, after lib/checks.sh and `model=`: a server under test, requests by curl, what generate says.
server=0
trap '[ $server -ne 0 ] && kill -9 $server 2>/dev/null; rm -rf "$work"' EXIT

# start FLAGS...: a server on a free port; $url, $server.
start() {
  : >serve.out
  "$longhand" serve --model "$model" --port 0 --json "$@" >serve.out 2>serve.err &
  server=$!
  for _ in $(seq 300); do
    url=$(sed -n 's/.*"url":"\([^"]*\)".*/\1/p' serve.out)
    [ -n "$url" ] && return
    kill -0 $server 2>/dev/null || break
    sleep 0.1
  done
  echo "not ok the server starts: $(cat serve.err)"
  exit 1
}

# stop: ends it with SIGTERM; $status is its exit code.
stop() {
  kill -TERM $server
  wait $server
  status=$?
  server=0
}

post() {  # post PATH BODY CURL-FLAGS...
  local path=$1 body=$2
  shift 2
  curl -sS --max-time 120 -H 'Content-Type: application/json' -d "$body" "$@" "$url$path"
}

field() {  # field EXPRESSION: of the JSON on standard input, d
  python3 -c "import json, sys; d = json.load(sys.stdin); print($1)"
}

joined() {  # the text of a stream of server-sent events on standard input
  python3 -c '
import json, sys
texts = {}
for line in sys.stdin:
    if line.startswith("data: {"):
        for c in json.loads(line[6:])["choices"]:
            texts[c["index"]] = texts.get(c["index"], "") + (c["text"] if "text" in c else c["delta"].get("content") or "")
print(json.dumps([texts[i] for i in sorted(texts)]))'
}

# answered NAME STATUS TEXT CURL...: the status, and one line of JSON whose message holds the text.
answered() {
  local name=$1 want=$2 text=$3 got
  shift 3
  got=$("$@" -o answer.json -w '%{http_code}')
  if [ "$got" = "$want" ] && [ "$(wc -l <answer.json)" -eq 1 ] && field 'd["error"]["message"]' <answer.json | grep -qF -- "$text"; then
    echo "ok $name"
  else
    echo "not ok $name: status $got instead of $want, or not \"$text\": $(head -c 300 answer.json)"
  fi
}

generated() {  # what longhand generate writes: a JSON list of texts
  "$longhand" generate --model "$model" --json "$@" | python3 -c '
import json, sys
print(json.dumps([json.loads(line)["text"] for line in sys.stdin]))'
}

texts='json.dumps([c["text"] for c in d["choices"]])'  # for field
