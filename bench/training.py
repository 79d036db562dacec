#!/usr/bin/env python3
"""Training speed on the CPU beside its peers, in one run: model FLOPs a second, medians, and the share of the FMA peak.

    bench/training.py [--llmc DIR] [--torch /usr/bin/python3] [--rounds 3] [--output bench/results/cpu_training]

DIR is a checkout of llm.c; without it, or without PyTorch, those columns stay empty. Programs run in turn, so that a machine
whose speed drifts treats them alike. FLOPs are counted for each model as docs/MODEL.md says.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

SIZES = {
    # name: (flags of longhand, lanes, tokens, memory, flags of PyTorch's model)
    "base, vocabulary 50,304, T 64": (["--preset", "base", "--vocab-size", "50304"], 4, 64, 0,
                                      "--layers 12 --width 768 --heads 12 --vocab 50304"),
    "base, vocabulary 50,304, T 256": (["--preset", "base", "--vocab-size", "50304"], 4, 256, 0,
                                       "--layers 12 --width 768 --heads 12 --vocab 50304"),
    "base, T = M = 256": (["--preset", "base"], 4, 256, 256, None),
    "small, T = M = 256": (["--preset", "small"], 8, 256, 256, None),
    "small, T 256, M 0": (["--preset", "small"], 8, 256, 0, "--layers 6 --width 320 --heads 5 --vocab 16384"),
    "tiny, T = M = 256": (["--preset", "tiny"], 8, 256, 256, None),
}


def ids_file(folder, vocabulary, count):
    path = pathlib.Path(folder) / f"ids{vocabulary}.txt"
    if not path.exists():
        path.write_text(" ".join(str((i * 7919 + i // 13) % vocabulary) for i in range(count)))
    return str(path)


def longhand(program, flags, lanes, tokens, memory, folder, extra):
    vocabulary = 50304 if "50304" in flags else 8192
    command = [program, "train", *flags, "--batch-size", str(lanes), "--segment", str(tokens), "--mem-len", str(memory), "--tokens",
               ids_file(folder, vocabulary, 200_000), "--steps", "5", "--json", "--validate-tokens", "0", "--output",
               str(pathlib.Path(folder) / "run"), "--overwrite", "--checkpoint-every", "1000000", *extra]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = (pathlib.Path(folder) / "run" / "log.jsonl").read_text().splitlines()
    steps = [json.loads(line) for line in log if '"type":"step"' in line][1:]
    return {"gflops": statistics.median(s["gflops"] for s in steps),
            "tokens_per_s": statistics.median(s["tokens_per_s"] for s in steps)}


def peer(command, environment=None):
    try:
        out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        return json.loads(out.strip().splitlines()[-1])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--longhand", default="build/longhand")
    parser.add_argument("--llmc", default="")
    parser.add_argument("--torch", default="/usr/bin/python3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", default="bench/results/cpu_training")
    a = parser.parse_args()
    here = pathlib.Path(__file__).resolve().parent
    llmc = None
    if a.llmc:
        llmc = "build/bench/llmc"
        subprocess.run(["gcc", "-Ofast", "-march=native", "-fopenmp", "-DOMP", "-w", "-I", a.llmc, str(here / "peers/llmc.c"), "-lm",
                        "-o", llmc], check=True)
    ceiling = json.loads(subprocess.run([a.longhand, "info", "--json"], check=True, capture_output=True, text=True).stdout)
    peak = ceiling["fma_fp32"] / 1e9
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(a.rounds):
            for name, (flags, lanes, tokens, memory, torch_flags) in SIZES.items():
                if a.only and a.only not in name:
                    continue
                row = results.setdefault(name, {"longhand fp32": [], "longhand bf16": [], "llm.c": [], "PyTorch": []})

                def add(program, result):
                    row[program].append(result)
                    print(f"{name}: {program} {result['gflops']:.1f} GFLOP/s" if result else f"{name}: {program} did not run", flush=True)

                add("longhand fp32", longhand(a.longhand, flags, lanes, tokens, memory, folder, []))
                add("longhand bf16", longhand(a.longhand, flags, lanes, tokens, memory, folder, ["--dtype", "bf16"]))
                if llmc and "50304" in flags:
                    add("llm.c", peer([llmc, str(lanes), str(tokens), "2"]))
                if torch_flags:
                    add("PyTorch", peer([a.torch, str(here / "peers/torch_train.py"), *torch_flags.split(), "--lanes", str(lanes),
                                         "--tokens", str(tokens), "--steps", "2"]))
    columns = ["longhand fp32", "longhand bf16", "llm.c", "PyTorch"]
    rows = [f"GFLOP/s of model FLOPs, medians of {a.rounds} rounds; measured fp32 FMA peak {peak:.0f} GFLOP/s with "
            f"{ceiling['threads']} threads on {ceiling['processor']}.", "",
            "| model | " + " | ".join(columns) + " | fp32 of peak | over llm.c | over PyTorch |", "|---" * (len(columns) + 4) + "|"]
    for name, row in results.items():
        median = {c: statistics.median(r["gflops"] for r in row[c] if r) if any(row[c]) else None for c in columns}
        ours = median["longhand fp32"]
        figure = lambda x, form: form.format(x) if x else ""
        rows.append(f"| {name} | " + " | ".join(figure(median[c], "{:.1f}") for c in columns) +
                    f" | {100 * ours / peak:.0f}% | {figure(median['llm.c'] and ours / median['llm.c'], '{:.2f}x')} | "
                    f"{figure(median['PyTorch'] and ours / median['PyTorch'], '{:.2f}x')} |")
    table = "\n".join(rows) + "\n"
    output = pathlib.Path(a.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".md").write_text(table)
    output.with_suffix(".json").write_text(json.dumps({"ceilings": ceiling, "results": results}, indent=1) + "\n")
    print(table)


main()
