#!/usr/bin/env python3
"""bf16 mixed precision beside fp32: loss after the same steps, planned bytes and measured peak memory.

    bench/precision.py --tokens data/tokens.safetensors [--steps 500] [--seeds 1,2] [--output bench/results/precision]

Trains the same model from the same seeds with fp32 throughout, with bf16 and fp32 master weights, and with bf16 throughout
(master weights and moments rounded stochastically). A run that is there is not made again. Peak memory is the process's
largest resident size; the planned bytes are those of weights, gradients, moments and activations.
"""
import argparse
import json
import pathlib
import statistics
import subprocess

MODES = {
    "fp32": [],
    "bf16, fp32 master, fp32 moments": ["--dtype", "bf16"],
    "bf16, fp32 master, bf16 moments": ["--dtype", "bf16", "--moments", "bf16"],
    "bf16 throughout": ["--dtype", "bf16", "--master", "bf16", "--moments", "bf16"],
}


def run(a, mode, seed):
    folder = pathlib.Path(a.runs) / f"{mode.replace(', ', '-').replace(' ', '-')}-seed{seed}"
    if not (folder / "model.safetensors").exists():
        subprocess.run([a.longhand, "train", "--preset", a.preset, "--tokens", a.tokens, "--steps", str(a.steps), "--seed", str(seed),
                        "--validate-every", "1000000", "--validate-tokens", a.validate_tokens, "--checkpoint-every", "1000000", "--threads", a.threads, "--overwrite",
                        "--output", str(folder), *MODES[mode]], check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    last = {kind: [line for line in lines if line["type"] == kind][-1] for kind in ("meta", "validation", "end")}
    steps = [line["loss"] for line in lines if line["type"] == "step"]
    arenas = last["meta"]["arenas"]
    planned = sum(arenas.get(name, 0) for name in ("weights", "gradients", "master", "moments", "activations"))
    return {"mode": mode, "seed": seed, "nats": last["validation"]["nats"], "loss": statistics.mean(steps[-50:]),
            "planned": planned, "peak": last["end"]["peak_memory_bytes"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longhand", default="build/longhand")
    parser.add_argument("--tokens", default="data/tokens.safetensors")
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", default="1")
    parser.add_argument("--validate-tokens", default="16384", help="of each language")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--runs", default="runs/precision")
    parser.add_argument("--output", default="bench/results/precision")
    a = parser.parse_args()
    results = [run(a, mode, int(seed)) for seed in a.seeds.split(",") for mode in MODES]
    mean = lambda mode, key: statistics.mean(r[key] for r in results if r["mode"] == mode)
    rows = [f"`{a.preset}`, {a.steps} steps, seeds {a.seeds}: validation loss in nats a token over all languages, training loss as the mean "
            "of the last 50 steps; bytes of weights, gradients, master weights, moments and activations as planned; the process's "
            "peak resident memory.", "",
            "| | validation | against fp32 | training | planned MB | against fp32 | peak MB | against fp32 |", "|---|---|---|---|---|---|---|---|"]
    for mode in MODES:
        part = lambda key: f"{100 * (mean(mode, key) / mean('fp32', key) - 1):+.2f}%"
        rows.append(f"| {mode} | {mean(mode, 'nats'):.4f} | {part('nats')} | {mean(mode, 'loss'):.4f} | {mean(mode, 'planned') / 1e6:.1f} | "
                    f"{part('planned')} | {mean(mode, 'peak') / 1e6:.1f} | {part('peak')} |")
    table = "\n".join(rows) + "\n"
    output = pathlib.Path(a.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".md").write_text(table)
    output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    print(table)


main()
