"""Clients that send a byte now and then: half of them a header that never ends, half a body. Prints what became of them, one
JSON object: {"answers": {"408": N, ...}, "longest": seconds}.

    slow_clients.py PORT CLIENTS SECONDS-BETWEEN-BYTES GIVE-UP-AFTER
"""
import json, selectors, socket, sys, time

port, clients, pause, give_up = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])
BEGIN = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
BODY = BEGIN + b"Content-Type: application/json\r\nContent-Length: 5000\r\n\r\n{"


class Client:
    def __init__(self, number):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.began, self.heard, self.next = time.time(), b"", 0
        self.socket.sendall(BODY if number % 2 else BEGIN + b"X-Slow: ")
        self.socket.setblocking(False)


answers, longest, begun = {}, 0.0, time.time()
waiting = selectors.DefaultSelector()
for number in range(clients):
    client = Client(number)
    waiting.register(client.socket, selectors.EVENT_READ, client)
while waiting.get_map() and time.time() - begun < give_up:
    for key, _ in waiting.select(timeout=pause / 4):
        client = key.data
        try:
            part = client.socket.recv(4096)
        except OSError:
            part = b""
        client.heard += part
        if not part:
            status = client.heard[9:12].decode() or "closed"
            answers[status] = answers.get(status, 0) + 1
            longest = max(longest, time.time() - client.began)
            waiting.unregister(client.socket)
            client.socket.close()
    now = time.time()
    for key in list(waiting.get_map().values()):
        client = key.data
        if now < client.next:
            continue
        client.next = now + pause
        try:
            client.socket.send(b"a")
        except OSError:
            pass  # the answer is on its way
if waiting.get_map():
    answers["none"] = len(waiting.get_map())
print(json.dumps({"answers": answers, "longest": longest}))
