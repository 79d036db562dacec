#!/usr/bin/env python3
"""A running server against the official `openai` client, and its metrics against `prometheus_client`.

    pip install openai prometheus_client
    build/longhand serve &
    scripts/openai_client_check.py http://127.0.0.1:8000

The key, where the server asks for one, is in LONGHAND_API_KEY. Prints `ok NAME` or `not ok NAME: why` a check, and leaves with 1
when one failed. What is not installed is left out, with a line that says so.
"""
import os
import sys
import urllib.request

URL = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8000"
KEY = os.environ.get("LONGHAND_API_KEY", "none")
failed = 0


def check(name, holds, seen=""):
    global failed
    failed += not holds
    print(f"ok {name}" if holds else f"not ok {name}: {str(seen)[:300]}", flush=True)


def refused(name, kind, status, text, call):
    """The call fails with the client's exception for that status, and the server's words."""
    try:
        answer = call()
        check(name, False, f"answered: {answer}")
    except kind as error:
        check(name, error.status_code == status and text in error.message, error)
    except Exception as error:  # another exception than the one that the client has for this status
        check(name, False, f"{type(error).__name__}: {error}")


def guarded(checks, *arguments):
    """What the client does not understand ends its group of checks, not the others."""
    try:
        checks(*arguments)
    except Exception as error:
        check(checks.__name__, False, f"{type(error).__name__}: {error}")


def check_completions(client, model):
    ask = dict(model=model, prompt="Click the ", max_tokens=12, seed=7, temperature=0.8, top_p=0.9)
    first = client.completions.create(**ask)
    again = client.completions.create(**ask)
    check("completions: a text", isinstance(first.choices[0].text, str) and first.object == "text_completion", first)
    check("completions: the same seed, the same text", first.choices[0].text == again.choices[0].text, (first, again))
    check("completions: usage adds up", first.usage.total_tokens == first.usage.prompt_tokens + first.usage.completion_tokens,
          first.usage)
    stream = list(client.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].text for part in stream if part.choices)
    check("completions: a stream has the same text", text == first.choices[0].text, text)
    check("completions: a stream ends with its usage", stream[-1].usage == first.usage, stream[-1])
    check("completions: its last piece says why it ended",
          [part.choices[0].finish_reason for part in stream if part.choices][-1] == first.choices[0].finish_reason, stream[-2:])
    several = client.completions.create(**ask, n=3)
    check("completions: n", [choice.index for choice in several.choices] == [0, 1, 2] and
          several.choices[0].text == first.choices[0].text, several)
    prompts = client.completions.create(model=model, prompt=["Click ", "The "], max_tokens=2, temperature=0)
    check("completions: several prompts", len(prompts.choices) == 2, prompts)
    ids = client.completions.create(model=model, prompt=[5, 6, 7], max_tokens=2, temperature=0)
    check("completions: token ids as a prompt", ids.usage.prompt_tokens == 3, ids)
    notes = client.completions.create(model=model, prompt="Click the ", max_tokens=5, temperature=0, logprobs=3,
                                      extra_body={"ignore_eos": True}).choices[0].logprobs
    check("completions: logprobs", len(notes.tokens) == len(notes.token_logprobs) == len(notes.top_logprobs) == 5, notes)
    check("completions: greedy tokens are the likeliest",
          all(abs(max(top.values()) - taken) < 1e-4 for top, taken in zip(notes.top_logprobs, notes.token_logprobs)), notes)
    whole = client.completions.create(model=model, prompt="Click the ", max_tokens=40, temperature=0).choices[0].text
    stopped = client.completions.create(model=model, prompt="Click the ", max_tokens=40, temperature=0, stop=["e", "zzz"])
    check("completions: stop", stopped.choices[0].text == whole.split("e")[0] and stopped.choices[0].finish_reason == "stop",
          (stopped, whole))
    echoed = client.completions.create(model=model, prompt="Click the ", max_tokens=1, echo=True).choices[0].text
    check("completions: echo", echoed.startswith("Click the "), echoed)


def check_chats(client, model):
    messages = [{"role": "system", "content": "Answer briefly."}, {"role": "user", "content": "How do I save?"}]
    ask = dict(model=model, messages=messages, max_tokens=12, seed=3, temperature=0.8)
    first = client.chat.completions.create(**ask)
    check("chat: a message", first.choices[0].message.role == "assistant" and first.object == "chat.completion", first)
    stream = list(client.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    text = "".join(part.choices[0].delta.content or "" for part in stream if part.choices)
    check("chat: a stream has the same text", text == first.choices[0].message.content, text)
    check("chat: a stream begins with the role", stream[0].choices[0].delta.role == "assistant", stream[0])
    check("chat: a stream ends with its usage", stream[-1].usage.total_tokens == first.usage.total_tokens, stream[-1])
    check("chat: max_completion_tokens",
          client.chat.completions.create(model=model, messages=messages, max_completion_tokens=3, extra_body={"ignore_eos": True})
          .usage.completion_tokens <= 3)
    parts = [{"role": "user", "content": [{"type": "text", "text": "How do I save?"}]}]
    plain = [{"role": "user", "content": "How do I save?"}]
    answers = [client.chat.completions.create(model=model, messages=m, max_tokens=8, temperature=0) for m in (parts, plain)]
    check("chat: content in parts", answers[0].choices[0].message.content == answers[1].choices[0].message.content, answers)
    notes = client.chat.completions.create(**{**ask, "temperature": 0}, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    check("chat: logprobs", all(len(note.top_logprobs) == 2 and note.top_logprobs[0].logprob >= note.top_logprobs[1].logprob and
                                bytes(note.bytes) is not None for note in notes), notes)
    check("chat: n", len(client.chat.completions.create(**ask, n=2).choices) == 2)
    with client.chat.completions.with_streaming_response.create(**ask) as raw:
        check("chat: the raw response is JSON", raw.headers["content-type"].startswith("application/json"), raw.headers)


def check_models_and_embeddings(client, model):
    check("models: the list has it", model in [entry.id for entry in client.models.list()])
    check("models: one by its name", client.models.retrieve(model).id == model)
    both = client.embeddings.create(model=model, input=["a cell", "a cell range"])
    check("embeddings: one a text, in order", [entry.index for entry in both.data] == [0, 1], both.usage)
    floats = client.embeddings.create(model=model, input="a cell", encoding_format="float").data[0].embedding
    check("embeddings: base64, the client's default, and float are the same numbers",
          len(floats) == len(both.data[0].embedding) and
          all(abs(a - b) <= 1e-6 * abs(a) + 1e-9 for a, b in zip(floats, both.data[0].embedding)), floats[:4])


def check_refusals(openai, client, model):
    chat = lambda **more: client.chat.completions.create(
        **{"model": model, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1, **more})
    write = lambda **more: client.completions.create(**{"model": model, "prompt": "a", "max_tokens": 1, **more})
    refused("404: no such model", openai.NotFoundError, 404, "there is no model", lambda: write(model="no-such-model"))
    refused("404: no such model by its name", openai.NotFoundError, 404, "there is no model",
            lambda: client.models.retrieve("no-such-model"))
    refused("400: a temperature below 0", openai.BadRequestError, 400, "temperature", lambda: write(temperature=-1))
    refused("400: an unknown field", openai.BadRequestError, 400, "temperatur", lambda: write(extra_body={"temperatur": 1}))
    refused("400: a field that is not supported", openai.BadRequestError, 400, "presence_penalty",
            lambda: write(presence_penalty=1.5))
    refused("400: no messages", openai.BadRequestError, 400, "messages", lambda: chat(messages=[]))
    refused("400: a stream of a bad request", openai.BadRequestError, 400, "top_p", lambda: chat(top_p=7, stream=True))
    refused("413: a prompt that is too long", openai.APIStatusError, 413, "at most", lambda: write(prompt=[5] * 200000))
    if KEY == "none":
        print("keys: left out, the server is asked without one (LONGHAND_API_KEY)")
        return
    wrong = client.with_options(api_key="wrong", max_retries=0)
    refused("401: a wrong key", openai.AuthenticationError, 401, "key", lambda: wrong.models.list())


def check_queue(openai, client, model):
    """Long streams, one beside the other, until the client's share of the queue is full (--client-queue)."""
    streams, refusal = [], None
    while not refusal and len(streams) < 100:
        try:
            streams.append(client.completions.create(model=model, prompt="a", max_tokens=4096, stream=True,
                                                     extra_body={"ignore_eos": True}))
        except openai.RateLimitError as error:
            refusal = error
    for stream in streams:
        stream.close()
    check("429: too many requests of one client", refusal and refusal.status_code == 429 and "try again" in refusal.message and
          refusal.response.headers["retry-after"] == "1", f"{len(streams)} streams were taken; {refusal}")
    later = client.with_options(max_retries=5).completions.create(model=model, prompt="a", max_tokens=1)
    check("429: when the streams are closed the client comes through", len(later.choices) == 1, later)


def check_metrics(parser):
    query = urllib.request.Request(URL + "/metrics", headers={"Authorization": "Bearer " + KEY})
    with urllib.request.urlopen(query) as answer:
        families = list(parser.text_string_to_metric_families(answer.read().decode()))
    check("metrics: every family has a type and a help text",
          all(family.type in ("counter", "gauge", "histogram") and family.documentation for family in families), families)
    names = [family.name for family in families]
    check("metrics: no family stands twice", len(names) == len(set(names)) and len(names) > 10, names)
    for family in families:
        if family.type != "histogram":
            continue
        buckets = [sample for sample in family.samples if sample.name.endswith("_bucket")]
        count = [sample.value for sample in family.samples if sample.name.endswith("_count")][0]
        values = [sample.value for sample in buckets]
        check(f"metrics: {family.name} is cumulative and ends at +Inf",
              values == sorted(values) and buckets[-1].labels["le"] == "+Inf" and values[-1] == count, family)


def main():
    try:
        import openai
    except ImportError:
        print("openai client: left out, the package openai is not installed (pip install openai)")
    else:
        client = openai.OpenAI(base_url=URL + "/v1", api_key=KEY, max_retries=0, timeout=120)
        model = client.models.list().data[0].id
        for checks in (check_completions, check_chats, check_models_and_embeddings):
            guarded(checks, client, model)
        guarded(check_refusals, openai, client, model)
        guarded(check_queue, openai, client, model)
    try:
        from prometheus_client import parser
    except ImportError:
        print("metrics: left out, the package prometheus_client is not installed (pip install prometheus_client)")
    else:
        guarded(check_metrics, parser)
    sys.exit(failed > 0)


main()
