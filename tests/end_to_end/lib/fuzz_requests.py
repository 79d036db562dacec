"""Mutations of valid requests, as raw bytes against a running server. Every answer is HTTP with a status that the server has a
meaning for, and a refusal is one line of JSON; a status of 500 counts as a failure. Prints the counts by status, one JSON object,
and leaves with 1 when an answer was wrong.

    fuzz_requests.py PORT REQUESTS [SEED]
"""
import json, random, socket, sys, threading

port, requests, seed = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1
THREADS = 8
STATUSES = {200, 400, 401, 403, 404, 405, 408, 409, 411, 413, 414, 415, 416, 429, 431, 503}
BODIES = [
    ("/v1/completions", {"prompt": "Click the ", "max_tokens": 2, "seed": 7, "temperature": 0.8, "top_p": 0.9, "top_k": 5,
                         "min_p": 0.01, "n": 2, "stop": ["a", "bc"], "logprobs": 2, "echo": False}),
    ("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/completions", {"prompt": ["a", "b"], "max_tokens": 1, "model": "tiny", "user": "x", "session": "s-1"}),
    ("/v1/chat/completions", {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
                              "max_tokens": 2, "logprobs": True, "top_logprobs": 2}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "max_tokens": 1,
                              "stream": True, "session": "s-2"}),
    ("/v1/completions", {"prompt": "Is it? ", "model": "polite", "guided_choice": ["yes", "no", "maybe"], "logprobs": 1}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "model": "polite", "session": "s-3",
                              "guided_choice": ["yes", "yes, it is"], "stream": True}),
    ("/v1/embeddings", {"input": ["a cell", "b"], "encoding_format": "base64"}),
    ("/tokenize", {"text": "Größe 123 你好"}),
    ("/ab/feedback", {"id": "cmpl-0", "rating": "up"}),
]
ODD = [None, True, -1, 0, 1e308, -1e308, 2**63, 2**64, 10**40, "", "a" * 300, "\u0000", "\ud800", [], {}, [[]], [None], {"a": {}},
       [1, "a"], [[5, 6], "a"], 0.5, "tiny", "polite", "ab", "no-such-model", [2**31], [-1], ["a"] * 40, "DEEP", [1, "DEEP"],
       "b" * 500000]
DEEP = b"[" * 250000 + b"]" * 250000  # in place of "DEEP"
HEADERS = ["Range: bytes=0-3", "Range: bytes=" + "0-1," * 1900 + "0-1", "Range: bytes=9-2", "Accept-Encoding: gzip, br",
           "Expect: 100-continue", "Content-Encoding: gzip", "Authorization: Bearer x", "Origin: http://a", "X: " + "a" * 8000,
           "Cookie: a=b", "Forwarded: for=::1", "Content-Type: multipart/form-data; boundary=a"]
PIECES = [b"\r\n", b"\r\n\r\n", b"\0", b"\xff\xfe", b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n",
          b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n", b"Connection: keep-alive\r\n", b"Content-Encoding: gzip\r\n",
          b"%00%2e%2e%2f", b"HTTP/9.9", b"{" * 200, b"[" * 500, b"\"" * 3, b"5\r\nabcde\r\n0\r\n\r\n", b"Range: bytes=0-\r\n", b"a" * 9000]


def mutated_json(value, chance):
    """One place of the value, or its shape, is another."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(list(value))
        kind = chance.randrange(4)
        if kind == 0:
            return {k: v for k, v in value.items() if k != name}
        if kind == 1:
            return {**value, name + chance.choice(["", "x", "\u00e9"]): chance.choice(ODD)}
        return {**value, name: mutated_json(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return value[:at] + [mutated_json(value[at], chance)] + value[at + chance.randrange(2):]
    return chance.choice(ODD)


def mutated_bytes(data, chance):
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice([1, 1, 2, 7, 40]))
        kind = chance.randrange(6)
        if kind == 0:
            data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1:]
        elif kind == 1:
            data = data[:at] + data[end:]
        elif kind == 2:
            data = data[:at] + data[at:end] * chance.choice([2, 3, 50]) + data[end:]
        elif kind == 3:
            data = data[:at] + chance.choice(PIECES) + data[at:]
        elif kind == 4:
            data = data[:at] + chance.choice(PIECES) + data[end:]
        else:
            data = data[:at]
    return data


def request_of(chance):
    path, body = chance.choice(BODIES)
    if chance.random() < 0.6:
        for _ in range(chance.randint(1, 3)):
            body = mutated_json(body, chance)
    content = json.dumps(body, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass").replace(b'"DEEP"', DEEP)
    if chance.random() < 0.1:
        method, content = chance.choice(["GET", "PUT", "OPTIONS", "DELETE"]), b""
    else:
        method = "POST"
    more = chance.choice(HEADERS) + "\r\n" if chance.random() < 0.2 else ""
    head = (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}Content-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n")
    data = head.encode() + content
    whole = chance.random() < 0.4
    return (data if whole else mutated_bytes(data, chance)), whole


def answer_to(data, whole):
    """A request that may want more bytes is told that there are none."""
    with socket.create_connection(("127.0.0.1", port), timeout=300) as connection:
        try:
            connection.sendall(data)
            if not whole:
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server has answered and closed
        heard = b""
        try:
            while part := connection.recv(65536):
                heard += part
        except ConnectionResetError:
            pass
        return heard.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")


def fault(heard, whole):
    """What is wrong with an answer; none when nothing is. To a client that has closed its side none is owed."""
    if not heard:
        return "no answer" if whole else None
    if not heard.startswith(b"HTTP/1.1 ") or not heard[9:12].isdigit():
        return "no HTTP"
    status = int(heard[9:12])
    if status not in STATUSES and status not in (100, 204) and (whole or status != 499):
        return f"status {status}"
    head, _, body = heard.partition(b"\r\n\r\n")
    if status >= 400 and b"Content-Encoding: " not in head:
        body = body.split(b"\n", 1)[0]
        try:
            if body and not json.loads(body)["error"]["message"]:
                return "a refusal without words"
        except (ValueError, KeyError, TypeError):
            return "a refusal that is no JSON"
    return None


counts, faults, lock = {}, [], threading.Lock()


def run(thread):
    for number in range(thread, requests, THREADS):
        data, whole = request_of(random.Random(f"{seed} {number}"))
        try:
            heard = answer_to(data, whole)
            wrong = fault(heard, whole)
        except OSError as error:
            heard, wrong = b"", f"{type(error).__name__}: {error}"
        with lock:
            status = heard[9:12].decode("latin-1") if heard else "closed"
            counts[status] = counts.get(status, 0) + 1
            if wrong:
                faults.append((number, wrong, data[:200], heard[:200]))


threads = [threading.Thread(target=run, args=(thread,)) for thread in range(THREADS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for number, wrong, data, heard in faults[:10]:
    print(f"request {number}: {wrong}\n  sent {data}\n  heard {heard}", file=sys.stderr)
print(json.dumps(dict(sorted(counts.items()))))
sys.exit(bool(faults))
