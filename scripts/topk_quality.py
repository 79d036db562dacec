#!/usr/bin/env python3
"""Top-k attention against dense attention: quality and executed operations, measured.

    scripts/topk_quality.py --tokens data/tokens.safetensors [--steps 400] [--seeds 1,2,3] [--output bench/results/topk_quality]

Trains the same model with dense attention, with exact top-k and, as a control, with the nearest k keys alone (same_length
with mem_len = k), for the same steps on the same data. A run that is there is not made again, so the script can be stopped
and started. Writes OUTPUT.md (the table) and OUTPUT.json (every run).
"""
import argparse
import json
import pathlib
import statistics
import subprocess


def mean_visible(segment, memory, window=None):
    """Visible keys of a query, averaged over a segment whose memory is full."""
    keys = [memory + i + 1 for i in range(segment)]
    return statistics.mean(min(k, window) if window else k for k in keys)


def executed(setting, k, segment, memory):
    """Operations of the attention core, forward plus backward, over those of dense attention (docs/MODEL.md)."""
    dense_keys = mean_visible(segment, memory)
    if setting == "dense":
        return 1.0
    if setting == "nearest":
        return mean_visible(segment, memory, k) / dense_keys
    kept = mean_visible(segment, memory, k) / dense_keys
    return (4 + 2 * kept + 16 * kept) / 22


def run(arguments, setting, k, seed):
    folder = pathlib.Path(arguments.runs) / f"{setting}{k or ''}-seed{seed}"
    log = folder / "log.jsonl"
    if not (folder / "model.safetensors").exists():
        flags = {"dense": [], "topk": ["--topk", str(k)], "nearest": ["--same-length"]}[setting]
        memory = k if setting == "nearest" else arguments.segment
        start = ["--init", arguments.init] if arguments.init else ["--preset", "tiny"]
        command = [arguments.longhand, "train", *start, "--tokens", arguments.tokens, "--segment",
                   str(arguments.segment), "--mem-len", str(memory), "--batch-size", str(arguments.lanes), "--steps",
                   str(arguments.steps), "--lr", arguments.lr, "--warmup-ratio", "0.05", "--seed", str(seed), "--validate-every", "1000000",
                   "--validate-tokens", "1000000", "--checkpoint-every", "1000000", "--threads", arguments.threads, "--dropout", arguments.dropout, "--output", str(folder),
                   *flags]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    validation = [line for line in lines if line["type"] == "validation"][-1]
    end = [line for line in lines if line["type"] == "end"][-1]
    return {"setting": setting, "k": k, "seed": seed, "bits_per_byte": validation["bits_per_byte"],
            "nats": validation["nats"], "seconds": end["seconds"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longhand", default="build/longhand")
    parser.add_argument("--tokens", default="data/tokens.safetensors")
    parser.add_argument("--runs", default="runs/topk_quality")
    parser.add_argument("--output", default="bench/results/topk_quality")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--segment", type=int, default=512)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--init", default="", help="go on from these weights instead of training from nothing")
    parser.add_argument("--lr", default="3e-3")
    parser.add_argument("--dropout", default="0", help="of every site; with --init it is what tells the seeds apart")
    parser.add_argument("--threads", default="0")
    parser.add_argument("--ks", default="64,128,256")
    parser.add_argument("--seeds", default="1,2,3")
    a = parser.parse_args()
    if a.init and float(a.dropout) == 0:
        parser.error("with --init and without --dropout every seed gives the same run")
    seeds = [int(s) for s in a.seeds.split(",")]
    settings = [("dense", 0)] + [(s, int(k)) for k in a.ks.split(",") for s in ("topk", "nearest")]
    results = [run(a, setting, k, seed) for seed in seeds for setting, k in settings]

    dense = statistics.mean(r["bits_per_byte"] for r in results if r["setting"] == "dense")
    origin = f", going on from `{a.init}` with dropout {a.dropout}" if a.init else ""
    rows = [f"`tiny`{origin}, T = M = {a.segment}, {a.lanes} lanes, {a.steps} steps, seeds {a.seeds}; validation bits a byte, mean of "
            f"twelve languages; operations of the attention core, forward plus backward, as executed, over dense.", "",
            "| keys | bits a byte, mean | lowest – highest | against dense | operations | saved |", "|---|---|---|---|---|---|"]
    for setting, k in settings:
        values = [r["bits_per_byte"] for r in results if (r["setting"], r["k"]) == (setting, k)]
        mean, part = statistics.mean(values), executed(setting, k, a.segment, a.segment)
        name = {"dense": "all", "topk": f"best {k}", "nearest": f"nearest {k}"}[setting]
        rows.append(f"| {name} | {mean:.4f} | {min(values):.4f} – {max(values):.4f} | {100 * (mean / dense - 1):+.2f}% | "
                    f"{100 * part:.1f}% | {100 * (1 - part):.1f}% |")
    table = "\n".join(rows) + "\n"
    output = pathlib.Path(a.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".md").write_text(table)
    output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    print(table)


main()
