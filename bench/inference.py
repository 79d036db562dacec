#!/usr/bin/env python3
"""Decoding and reading speed beside llama.cpp and ik_llama.cpp at 1.1e9 parameters, in one run.

    bench/inference.py --peer llama.cpp=DIR [--peer ik_llama.cpp=DIR] [--python PYTHON] [--models FOLDER] [--rounds 3]

Each DIR is a checkout with llama-bench and llama-quantize built into DIR/build/bin (cmake, Release, GGML_NATIVE=ON). PYTHON has
the package gguf. The peers' model is drawn once into FOLDER (5 GB) and kept there. Programs run in turn, formats within rounds, so
that a machine whose speed drifts treats them alike; figures are the best of the rounds, which other work disturbs least. A token
reads every weight, so decoding stands beside the measured read bandwidth; reading a prompt stands beside the fp32 peak.
"""
import argparse
import json
import pathlib
import subprocess
import sys

ROUNDED = "int8, activations int8"  # as the peers have it with Q8_0
FORMATS = {"fp16": "F16", "bf16": "BF16", "int8": "Q8_0", "int4": "Q4_0", ROUNDED: "Q8_0"}
PROMPT_FORMATS = ("fp16", "int8", ROUNDED)
HERE = pathlib.Path(__file__).resolve().parent


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}: ends with {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def make_models(options, peers):
    folder = pathlib.Path(options.models)
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"random-{name}.gguf" for name in FORMATS.values()}
    if not files["F16"].exists():
        beside = folder / "random-F16.part"
        run(options.python, HERE / "peers/random_gguf.py", beside)
        beside.rename(files["F16"])
    quantize = next(iter(peers.values())) / "llama-quantize"
    for name, file in files.items():
        if not file.exists():
            beside = folder / f"random-{name}.part"
            run(quantize, files["F16"], beside, name, options.threads)
            beside.rename(file)
    return files


def ours(options, task, weights):
    tokens = ["--tokens", 16, "--window", 512] if task == "decode" else ["--tokens", 512, "--rounds", 1]
    kind, rounded, _ = weights.partition(", activations ")
    out = run(options.longhand, "bench", task, "--preset", HERE / "1b.json", "--types", kind, "--threads", options.threads,
              "--activations", "int8" if rounded else "floats", "--json", *tokens)
    return json.loads(out.splitlines()[-1])


def theirs(options, folder, task, file):
    sizes = ["-p", 0, "-n", 16] if task == "decode" else ["-p", 512, "-n", 0]
    out = json.loads(run(folder / "llama-bench", "-m", file, "-t", options.threads, "-r", 1, "-o", "json", *sizes))
    return {"tokens_per_s": out[-1]["avg_ts"], "weight_bytes": out[-1]["model_size"], "commit": out[-1]["build_commit"],
            "parameters": out[-1]["model_n_params"]}


def table(task, results, peers):
    unit = "read bandwidth" if task == "decode" else "fp32 peak"
    lines = [f"| weights | tokens/s | of the {unit} | weights, GB | " + " | ".join(f"{p} | GB" for p in peers) +
             " | times the better |", "|---|---|---|---|" + "---|---|" * len(peers) + "---|"]
    for weights, result in results.items():
        best = max(result["longhand"], key=lambda r: r["tokens_per_s"])
        rate = best["operations_per_s"]
        share = best["read_share"] if task == "decode" else rate / max(r["fma_ceiling"] for r in result["longhand"])
        row = [weights, f"{best['tokens_per_s']:.1f}", f"{100 * share:.0f}%", f"{best['weight_bytes'] / 1e9:.2f}"]
        peer_best = 0
        for peer in peers:
            speed = max(r["tokens_per_s"] for r in result[peer])
            peer_best = max(peer_best, speed)
            row += [f"{FORMATS[weights]} {speed:.1f}", f"{result[peer][0]['weight_bytes'] / 1e9:.2f}"]
        lines.append("| " + " | ".join(row) + f" | {best['tokens_per_s'] / peer_best:.2f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longhand", default="build/longhand")
    parser.add_argument("--peer", action="append", required=True, metavar="NAME=DIR")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--models", default="build/peer_models")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt-rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--formats", default=";".join(FORMATS), help="separated by semicolons")
    parser.add_argument("--output", default="bench/results/inference_peers")
    options = parser.parse_args()
    peers = {name: pathlib.Path(folder) / "build/bin" for name, folder in (p.split("=", 1) for p in options.peer)}
    formats = options.formats.split(";")
    files = make_models(options, peers)

    results = {task: {w: {name: [] for name in ("longhand", *peers)} for w in formats
                      if (w != ROUNDED if task == "decode" else w in PROMPT_FORMATS)}
               for task in ("decode", "prefill")}
    for task, rounds in (("decode", options.rounds), ("prefill", options.prompt_rounds)):
        for _ in range(rounds):
            for weights, result in results[task].items():
                result["longhand"].append(ours(options, task, weights))
                for name, folder in peers.items():
                    result[name].append(theirs(options, folder, task, files[FORMATS[weights]]))
                print(task, weights, {n: round(r[-1]["tokens_per_s"], 1) for n, r in result.items()}, flush=True)

    first = next(iter(results["decode"].values()))
    ceiling = first["longhand"][0]
    commits = ", ".join(f"{name} {first[name][0]['commit']} ({first[name][0]['parameters'] / 1e9:.2f}e9 parameters)" for name in peers)
    text = (f"# Generation beside its peers\n\n`bench/inference.py --rounds {options.rounds}`, {options.threads} threads: reads "
            f"{ceiling['read_ceiling'] / 1e9:.1f} GB/s, fp32 {ceiling['fma_ceiling'] / 1e9:.0f} GFLOP/s; {ceiling['parameters'] / 1e9:.2f}e9 "
            f"drawn parameters here. Peers: {commits}. Best of the rounds.\n\n## Decoding, a token at a time\n\n"
            f"{table('decode', results['decode'], peers)}\n")
    if options.prompt_rounds and results["prefill"]:
        text += f"\n## A prompt of 512 tokens\n\n{table('prefill', results['prefill'], peers)}\n"
    pathlib.Path(options.output + ".md").write_text(text)
    pathlib.Path(options.output + ".json").write_text(json.dumps(results, indent=1) + "\n")
    print(text)


main()
