#!/usr/bin/env python3
"""What carried memory is worth, measured on validation text of a trained model.

    bench/memory.py --model weights/tiny.safetensors --tokens data/tokens.safetensors [--output bench/results/memory]

1. Loss over memory length: every validation stream is scored in segments of 64 tokens with memories of several lengths.
2. Speed of scoring with memory beside a one-step sliding window of the same reach, which computes the whole window again for
   every token (Dai et al. 2019, section 4.5, compare the two in the same way).
"""
import argparse
import json
import pathlib
import struct
import subprocess


def validation_streams(path):
    """Token ids of every validation stream of a token file, read as any safetensors reader would."""
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    streams = {}
    for name, entry in header.items():
        if name.startswith("validation.") and name.endswith(".tokens"):
            begin, end = entry["data_offsets"]
            count, width = entry["shape"][0], {"U16": "H", "U32": "I"}[entry["dtype"]]
            streams[name.split(".")[1]] = struct.unpack(f"<{count}{width}", data[8 + length + begin:8 + length + end])
    return streams


def score(arguments, ids, *flags):
    command = [arguments.longhand, "score", "--model", arguments.model, "--ids", ",".join(map(str, ids)), "--summary", *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longhand", default="build/longhand")
    parser.add_argument("--model", default="weights/tiny.safetensors")
    parser.add_argument("--tokens", default="data/tokens.safetensors")
    parser.add_argument("--memories", default="0,16,32,64,128,256,512")
    parser.add_argument("--windows", default="128,256,512,1024")
    parser.add_argument("--most", type=int, default=8000, help="tokens of each stream")
    parser.add_argument("--output", default="bench/results/memory")
    a = parser.parse_args()
    streams = {name: ids[:a.most] for name, ids in sorted(validation_streams(a.tokens).items())}

    rows = [f"`{a.model}`, segments of 64 tokens, nats a token, mean over {len(streams)} languages.", "",
            "| memory | nats a token | against no memory |", "|---|---|---|"]
    without = None
    for memory in map(int, a.memories.split(",")):
        loss = sum(score(a, ids, "--segment", "64", "--mem-len", str(memory))["nats_per_token"] for ids in streams.values()) / len(streams)
        without = loss if without is None else without
        rows.append(f"| {memory} | {loss:.4f} | {100 * (loss / without - 1):+.2f}% |")

    rows += ["", "Scoring with memory beside a one-step sliding window of the same reach (half segment, half memory), tokens a second.", "",
             "| reach | memory | sliding window | ratio |", "|---|---|---|---|"]
    ids = max(streams.values(), key=len)
    for window in map(int, a.windows.split(",")):
        half, few = window // 2, 24
        fast = score(a, ids, "--segment", str(half), "--mem-len", str(half))["tokens_per_s"]
        slow = score(a, ids[:window + few + 1], "--sliding-window", str(window), "--from", str(window + 1))["tokens_per_s"]
        rows.append(f"| {window} | {fast:.0f} | {slow:.1f} | {fast / slow:.0f}x |")
    table = "\n".join(rows) + "\n"
    output = pathlib.Path(a.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".md").write_text(table)
    print(table)


main()
