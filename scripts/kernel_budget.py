#!/usr/bin/env python3
"""Reads what ptxas says of every kernel (BUILD/ptx/sm_*/*.usage) and compares it with tests/simt/kernel_budget.txt.

usage: kernel_budget.py check|write BUILD TOOLKIT ARCHITECTURE...   (scripts/kernel_budget.sh calls it)
"""
import glob
import os
import re
import subprocess
import sys
from collections import namedtuple

TABLE = 'tests/simt/kernel_budget.txt'
COLUMNS = ('arch', 'registers', 'static', 'dynamic', 'threads', 'blocks', 'spilled', 'conflicts', 'kernel')
Row = namedtuple('Row', COLUMNS)

# Of one multiprocessor: registers, bytes of shared memory, threads, blocks. Every block takes 1 KiB of shared memory more.
Multiprocessor = namedtuple('Multiprocessor', 'registers shared threads blocks')
MULTIPROCESSORS = {
    'sm_80': Multiprocessor(65536, 164 * 1024, 2048, 32),
    'sm_90': Multiprocessor(65536, 228 * 1024, 2048, 32),
    'sm_120': Multiprocessor(65536, 100 * 1024, 1536, 24),
}


def resident_blocks(arch, registers, shared, threads):
    """Blocks that one multiprocessor holds at once: registers go to warps in pieces of 256, warps in fours."""
    limits = MULTIPROCESSORS[arch]
    warps = -(-threads // 32)
    registers_of_warp = -(-registers * 32 // 256) * 256
    resident_warps = limits.registers // registers_of_warp // 4 * 4
    return min(limits.blocks, limits.threads // (32 * warps), resident_warps // warps, limits.shared // (shared + 1024))


def demangle(names):
    """Names as people write them, without what nvcc calls an anonymous namespace."""
    text = subprocess.run(['c++filt'], input='\n'.join(names), capture_output=True, text=True, check=True).stdout
    return [re.sub(r'(\(anonymous namespace\)|_GLOBAL__N_\w*|_INTERNAL_\w*)::', '', line) for line in text.splitlines()]


def short(name):
    """A demangled kernel without its return type, its parameters and the namespaces that all kernels are in."""
    name = re.sub(r'^void ', '', name.replace('longhand::simt_device::', '').replace('longhand::', ''))
    depth = 0
    for i, letter in enumerate(name):
        depth += {'<': 1, '>': -1}.get(letter, 0)
        if letter == '(' and depth == 0:
            return name[:i]
    return name


def launches(path):
    """Kernel -> (threads, dynamic shared memory, conflicts per 100 phases of ldmatrix) of the runs on the host."""
    found = {}
    if os.path.exists(path):
        for line in list(open(path))[1:]:
            _, threads, shared, phases, conflicts, name = line.rstrip('\n').split('\t')
            ratio = f'{100 * int(conflicts) / int(phases):.1f}' if int(phases) else '-'
            found[short(name)] = (int(threads), int(shared), ratio)
    return found


def threads_declared(ptx):
    """Mangled kernel -> threads of __launch_bounds__."""
    text = open(ptx).read()
    return {name: int(threads) for name, threads in re.findall(r'\.entry (\w+)\([^)]*\)\s*\.maxntid (\d+)', text)}


def measure(build, archs):
    ran = launches(f'{build}/ptx/launches.txt')
    rows = []
    for path in sorted(path for arch in archs for path in glob.glob(f'{build}/ptx/sm_{arch}/*.usage')):
        arch = path.split('/')[-2]
        declared = threads_declared(path.replace('.usage', '.ptx'))
        text = open(path).read()
        entries = re.findall(r"Compiling entry function '(\w+)' for.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
                             r'.*?Used (\d+) registers([^\n]*)', text, re.S)
        for (mangled, stores, loads, registers, rest), name in zip(entries, demangle([e[0] for e in entries])):
            kernel = short(name)
            static = int((re.search(r'(\d+) bytes smem', rest) or [0, 0])[1])
            threads, dynamic, conflicts = ran.get(kernel, (declared.get(mangled, 1024), 0, '-'))
            blocks = resident_blocks(arch, int(registers), static + dynamic, threads)
            rows.append(Row(arch, int(registers), static, dynamic, threads, blocks, int(stores) + int(loads), conflicts, kernel))
    return sorted(rows, key=lambda row: (row.kernel, int(row.arch[3:])))


def write(rows, toolkit):
    header = (f'# toolkit {toolkit}. Written by scripts/kernel_budget.sh write. Registers a thread, bytes of static and dynamic shared\n'
              '# memory a block, threads a block, blocks a multiprocessor holds, bytes spilled, extra passes per 100 of ldmatrix.\n')
    lines = ['{:7}{:>10}{:>8}{:>9}{:>9}{:>8}{:>9}{:>11}  {}'.format(*row) for row in [COLUMNS, *rows]]
    with open(TABLE, 'w') as table:
        table.write(header + '\n'.join(lines) + '\n')
    print(f'{TABLE}: {len(rows)} rows')


def read():
    toolkit, rows = '', {}
    for line in open(TABLE):
        if line.startswith('# toolkit'):
            toolkit = line.split()[2].rstrip('.')
        elif not line.startswith(('#', 'arch')):
            fields = line.split(None, len(COLUMNS) - 1)
            numbers = [int(field) for field in fields[1:7]]
            row = Row(fields[0], *numbers, fields[7], fields[8].rstrip('\n'))
            rows[row.arch, row.kernel] = row
    return toolkit, rows


def worse(row, budget, same_toolkit):
    """What of a row is worse than the table's; another toolkit's registers are its own affair, a spill is not."""
    reasons = [f'spills {row.spilled} bytes'] if row.spilled else []
    if budget is None:
        return reasons + ['is not in the table']
    if same_toolkit:
        if row.registers > budget.registers:
            reasons.append(f'takes {row.registers} registers, not {budget.registers}')
        if row.static + row.dynamic > budget.static + budget.dynamic:
            reasons.append(f'takes {row.static} + {row.dynamic} bytes of shared memory, not {budget.static} + {budget.dynamic}')
        if row.blocks < budget.blocks:
            reasons.append(f'fits {row.blocks} times, not {budget.blocks}')
    if row.conflicts != '-' and budget.conflicts != '-' and float(row.conflicts) > float(budget.conflicts):
        reasons.append(f'has {row.conflicts} bank conflicts in 100, not {budget.conflicts}')
    return reasons


def check(rows, toolkit):
    if not os.path.exists(TABLE):
        sys.exit(f'kernel budget: no {TABLE}; write it with scripts/kernel_budget.sh write')
    table_toolkit, table = read()
    if table_toolkit != toolkit:
        print(f'# the table is of toolkit {table_toolkit}, this one is {toolkit}: only spills and bank conflicts are compared')
    bad = 0
    for row in rows:
        reasons = worse(row, table.get((row.arch, row.kernel)), table_toolkit == toolkit)
        print(f'{"not ok" if reasons else "ok"} {row.arch} {row.kernel}{": " if reasons else ""}{"; ".join(reasons)}')
        bad += bool(reasons)
    gone = {key for key in table if key[0] in {row.arch for row in rows}} - {(row.arch, row.kernel) for row in rows}
    for arch, kernel in sorted(gone):
        print(f'not ok {arch} {kernel}: the table has it, the sources do not; write the table anew')
    sys.exit(1 if bad or gone else 0)


if __name__ == '__main__':
    mode, build, toolkit, *archs = sys.argv[1:]
    measured = measure(build, archs)
    write(measured, toolkit) if mode == 'write' else check(measured, toolkit)
