#!/usr/bin/env python3
"""From ncu's raw CSV to a table in plain words: one line a kernel, the longest first.

    scripts/profile_table.py kernels.csv
"""
import collections
import csv
import re
import sys

TIME = "gpu__time_duration.sum"
MEMORY = "gpu__dram_throughput.avg.pct_of_peak_sustained_elapsed"
CORES = "sm__throughput.avg.pct_of_peak_sustained_elapsed"
TENSOR = "sm__inst_executed_pipe_tensor.avg.pct_of_peak_sustained_elapsed"
WARPS = "sm__warps_active.avg.pct_of_peak_sustained_active"
TO_MICROSECONDS = {"ns": 1e-3, "nsecond": 1e-3, "us": 1, "usecond": 1, "ms": 1e3, "msecond": 1e3, "s": 1e6, "second": 1e6}


def short(name):
    """attention_forward's forward_kernel<64, false>, without namespaces and parameters."""
    name = re.sub(r"\(anonymous namespace\)::|longhand::cuda_device::|<unnamed>::|^void ", "", name)
    return re.sub(r"\(.*", "", name)[:56]


def limiter(memory, cores, warps):
    if max(memory, cores) < 40:
        return "latency: too few warps" if warps < 30 else "latency"
    return "bandwidth" if memory > cores else "arithmetic and shared memory"


def main():
    rows = list(csv.reader(open(sys.argv[1], encoding="utf-8")))
    header, units, rows = rows[0], rows[1], rows[2:]
    column = {name: index for index, name in enumerate(header)}
    value = lambda row, name: float(row[column[name]].replace(",", "") or 0)
    scale = TO_MICROSECONDS[units[column[TIME]]]
    kernels = collections.defaultdict(list)
    for row in rows:
        kernels[short(row[column["Kernel Name"]])].append(row)
    total = sum(value(row, TIME) for row in rows) * scale
    print(f"{total / 1e3:.2f} ms in {len(rows)} launches\n")
    print("| kernel | launches | us | of the step | bandwidth | cores | tensor cores | limited by |")
    print("|---|---|---|---|---|---|---|---|")
    for name, group in sorted(kernels.items(), key=lambda item: -sum(value(row, TIME) for row in item[1])):
        time = sum(value(row, TIME) for row in group) * scale
        mean = lambda metric: sum(value(row, metric) * value(row, TIME) for row in group) * scale / time
        memory, cores = mean(MEMORY), mean(CORES)
        print(f"| `{name}` | {len(group)} | {time:.1f} | {100 * time / total:.1f}% | {memory:.0f}% | {cores:.0f}% | {mean(TENSOR):.0f}% | "
              f"{limiter(memory, cores, mean(WARPS))} |")


main()
