#!/usr/bin/env python3
"""The tables of docs/ROOFLINE.md: least work and predicted times of every operation, what the kernels move beyond the least, and
what training and decoding the presets would take; and those of docs/420.md: what 420 tokens/s of one text take.

usage: bench/predict.py            print the tables
       bench/predict.py --update   put them into the two pages, between their markers
       bench/predict.py --check    fail when the pages have others
Needs build/bench/ops. Cards are those of bench/ops.cpp: 90% of bandwidth, 60% of what fp32 cores or mma.sync reach.
"""
import json
import os
import re
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..')
PAGES = [os.path.join(ROOT, 'docs', name) for name in ('ROOFLINE.md', '420.md')]

# Bytes a second, bf16 operations a second: of the tensor cores as the data sheet has them (what cuBLASLt can use) and of mma.sync.
CARDS = {'A100-80': (2.04e12, 312e12, 312e12), 'H100 SXM': (3.35e12, 989e12, 0.63 * 989e12)}


def operations():
    return subprocess.run([os.path.join(ROOT, 'build/bench/ops'), '--predict'], check=True, capture_output=True, text=True).stdout


def least_work(table):
    """(operation, type, shape) -> (MB, MFLOP), from the lines of bench/ops --predict."""
    rows = (line.split(' | ') for line in table.splitlines()[2:])
    return {(r[0][2:], r[1], r[2]): (float(r[3]), float(r[4])) for r in rows}


def up(a, b):
    return -(-a // b)


class Tiles:
    """The 64 x 64 tiles that causal attention walks: for each tile of queries, how many of keys."""

    def __init__(self, s):
        self.pairs, self.width, self.queries, self.keys = s['B'] * s['H'], s['dh'], s['T'], s['T'] + s['M']
        self.heads, self.lanes = s['H'], s['B']
        shift = (64 - s['M'] % 64) % 64
        last = [min(t + 64, s['T']) - 1 + s['M'] for t in range(0, s['T'], 64)]
        self.walks = [(l + shift) // 64 + 1 for l in last]
        self.count = self.pairs * sum(self.walks)       # tiles in all
        self.rows = self.pairs * len(self.walks)        # tiles of queries

    def limited(self, pages):
        """Every tile of queries keeps so many pages."""
        self.walks = [min(n, pages) for n in self.walks]
        self.count = self.pairs * sum(self.walks)
        return self


# Each function: shape, bytes of an element -> bytes loaded and stored in global memory, operations. Tiles of 64 rows: t.
def attention_forward_mma(s, w):
    a = Tiles(s)
    t, unit = 64 * a.width * w, 4096 * a.width
    return a.count * 3 * t + a.rows * (1 + 2 + 1) * t, a.count * 6 * unit + a.rows * 2 * unit


def attention_forward_general(s, w):
    a = Tiles(s)
    t, unit = 64 * a.width * w, 4096 * a.width
    return a.count * 6 * t + a.rows * t, a.count * 6 * unit


def select_keys(s, w):
    visible = s['B'] * s['H'] * sum(s['M'] + i + 1 for i in range(s['T']))
    rows = s['B'] * s['H'] * s['T']
    mask = rows * (s['T'] + s['M']) / 8
    return 5 * 4 * visible + mask + rows * (s['topk'] + 1) * s['dh'] * w, 2 * rows * s['topk'] * s['dh']


def attention_topk(s, w):
    a = Tiles(s)
    t, unit = 64 * a.width * w, 4096 * a.width
    scores = a.count * (2 * t + 4096 * 4) + a.rows * 3 * t, a.count * 4 * unit + a.rows * 2 * unit
    chosen = select_keys(s, w)
    return scores[0] + chosen[0], scores[1] + chosen[1]


def attention_pages(s, w):
    a = Tiles(s).limited(max(up(s['topk'], 64), 2))
    t, unit, pages = 64 * a.width * w, 4096 * a.width, up(a.keys, 64)
    rows = a.pairs * a.queries
    extremes = a.pairs * a.keys * a.width * w * 2 + a.pairs * pages * 2 * a.width * 4 * 2
    bounds = a.rows * up(pages, 64) * 2 * (t + 2 * 64 * a.width * 4) + rows * pages * 4 * 2 * 2
    attention = a.count * 4 * t + a.rows * 3 * t
    return extremes + bounds + attention, rows * pages * 8 * a.width + a.count * 8 * unit


def attention_backward_mma(s, w):
    a = Tiles(s)
    t, unit, key_tiles = 64 * a.width * w, 4096 * a.width, up(a.keys, 64)
    keys = a.count * 3 * t + a.pairs * key_tiles * (2 + 1 + 2) * t
    queries = a.count * 3 * t + a.rows * (1 + 3 + 1) * t
    distances = a.count * 4 * t + a.heads * key_tiles * (1 + 2 * a.lanes) * t
    splits = min(max(512 // (key_tiles * a.heads), 1), a.lanes)
    partials = 2 * 4 * (splits * key_tiles * 64 * a.heads * a.width + (a.lanes + splits) * key_tiles * a.heads * a.width)
    return keys + queries + distances + partials + 2 * a.rows * t, a.count * 29.5 * unit + a.rows * 2 * unit


def attention_backward_general(s, w):
    a = Tiles(s)
    t, unit, key_tiles = 64 * a.width * w, 4096 * a.width, up(a.keys, 64)
    partials = 2 * 4 * 2 * key_tiles * 64 * a.heads * a.width
    return a.count * (9 + 10 + 9) * t + a.rows * 3 * t + partials, a.count * 29 * unit


def attention_decode(s, w):
    rows, width = s['N'] * s['H'], s['dh']
    split = min(max(up(s['window'], 2048) * 64, 64), 512)
    partials = 2 * 4 * rows * up(s['window'], split) * (2 + width) if not s.get('topk') else 0
    kept = s.get('topk') or s['window']
    scores = 7 * 4 * rows * s['window'] + 6 * 4 * rows * kept if s.get('topk') else 0
    moved = rows * (2 * s['window'] + kept) * width * w + partials + scores
    return moved, rows * (4 * s['window'] + 2 * kept) * width


def layernorm_forward(s, w):
    n, residual = s['rows'] * s['D'], s.get('residual', 0) + s.get('sum', 0)
    return n * w * (4 + residual) + 8 * s['rows'], 8 * n


def layernorm_backward(s, w):
    n, stripes = s['rows'] * s['D'], up(s['rows'], max(8, up(s['rows'], 1024)))
    return n * w * 6 + 2 * 2 * 4 * stripes * s['D'], 14 * n


def column_sums(s, w):
    stripes = up(s['rows'], max(32, up(s['rows'], 64)))
    return s['rows'] * s['n'] * w + 2 * 4 * stripes * s['n'], s['rows'] * s['n']


def embedding_backward(s, w):
    n = s['rows'] * s['D']
    return 3 * n * w + 512 * s['rows'] * 4 * 2, 2 * n


def quantized(s, w):
    m, n, k = s['m'], s['n'], s['k']
    weight, group = s['bits'] / 8, s.get('grouped', 0)
    rows, columns = (16, 16) if m <= 16 else (16 * (2 if group or w == 4 else 4), 32)
    scales = n * (2 if s.get('half') else 4) * (k // 64 if group else 1)
    row_tiles = up(m, rows)
    scales *= row_tiles * rows // 16 if group else m
    moved = row_tiles * n * k * weight + up(n, columns) * m * k * w + scales + m * n * w
    return moved, 2 * row_tiles * rows * n * k * (3 if w == 4 else 1)


def matmul_s8(s, w):
    m, n, k = s['m'], s['n'], s['k']
    return 2 * m * k * w + m * k + up(m, 64) * up(n, 64) * 2 * 64 * k + m * n * w, 2 * m * n * k


def quantize(s, w):
    n = s['rows'] * s['k']
    return n * (2 * w + s['bits'] / 8), 3 * n


def times(bytes_factor, operations_factor=1):
    """A kernel that moves and computes so many times the least."""
    return lambda least: (least[0] * bytes_factor, least[1] * operations_factor)


ATTENTION = 'T=2048 M=2048 B=1 H=2 dh=64'
SAMPLE = 'the row in fp32 to scratch and back, then 6 to 15 passes over it from L2 (6 counted): one block a row'
KERNELS = [  # file, operation, type, shape, what it moves, reason
    ('attention_mma_forward', 'attention_forward', 'bf16', ATTENTION, attention_forward_mma,
     'k, value, r once a tile of 64 queries, from L2; whole tiles on the diagonal, one more block of r a tile of queries'),
    ('attention_forward', 'attention_forward', 'fp32', ATTENTION, attention_forward_general,
     'the same, with q twice and 128 rows of r a tile'),
    ('attention_topk', 'attention_forward', 'bf16', ATTENTION + ' topk=256', attention_topk,
     'scores in fp32 written once and read five times (three digits, maximum, sum), bounded to what L2 and L1 hold'),
    ('attention_pages', 'attention_forward', 'bf16', ATTENTION + ' topk=256 block=1', attention_pages,
     'extremes and bounds of all pages; two blocks of r a page when no two chosen pages are neighbours, as counted here'),
    ('attention_mma_backward*', 'attention_backward', 'bf16', ATTENTION, attention_backward_mma,
     'three kernels that each compute the scores again, so that no sum is atomic (29.5 units for 16)'),
    ('attention_backward', 'attention_backward', 'fp32', ATTENTION, attention_backward_general,
     'the same three ways on ordinary cores: 29 units'),
    ('attention_decode', 'attention_decode', 'bf16', 'N=8 S=8 slots=4096 window=4096 H=12 dh=64', attention_decode,
     'r once a sequence, from L2; a partial result a split of the keys'),
    ('attention_decode', 'attention_decode', 'bf16', 'N=8 S=8 slots=4096 window=4096 H=12 dh=64 topk=256', attention_decode,
     'as above; scores written once, read six times by the selection'),
    ('layernorm', 'layernorm_forward', 'bf16', 'rows=4096 D=768 residual=1 sum=1', layernorm_forward,
     'gain and bias once a row, from L1'),
    ('layernorm_backward', 'layernorm_backward', 'bf16', 'rows=4096 D=768 residual=1 parts=5', layernorm_backward,
     'gain twice a row, from L1; partial sums of 512 stripes, from L2'),
    ('cross_entropy', 'cross_entropy', 'bf16', 'rows=512 V=32768', times(1.5), 'the row is read again for the gradient, from L2'),
    ('cross_entropy', 'log_probability', 'bf16', 'rows=512 V=32768', times(1), 'one pass'),
    ('embedding', 'embedding_forward', 'bf16', 'rows=4096 D=768 V=32768', times(1), 'one pass'),
    ('embedding', 'embedding_backward', 'bf16', 'rows=4096 D=768 V=32768', embedding_backward,
     '512 blocks group the rows, each reading all tokens twice, from L2'),
    ('optimizer', 'adamw', 'bf16', 'tensors=1 rows=3072 D=768 step=5 low=1', times(1),
     'one pass; random numbers for the rounding are another 80 integer operations an entry'),
    ('optimizer', 'global_norm', 'bf16', 'tensors=1 rows=3072 D=768', times(1), 'one pass'),
    ('optimizer', 'fgm_step', 'bf16', 'rows=32768 D=768', times(1), 'with the norm before it: two passes over the gradient'),
    ('quantized_matmul', 'quantized_matmul', 'bf16', 'm=1 n=8192 k=4096 bits=8', quantized,
     'weights once; activations once a block of 16 columns, from L2; mma has 16 rows whether they are wanted or not'),
    ('quantized_matmul', 'quantized_matmul', 'bf16', 'm=1 n=8192 k=4096 bits=4 grouped=1 half=1', quantized,
     'as above'),
    ('quantized_matmul', 'quantized_matmul', 'bf16', 'm=512 n=8192 k=4096 bits=8', quantized,
     'weights once a 64 rows, activations once a 32 columns, from L2: no shared memory between'),
    ('matmul_s8', 'quantized_matmul', 'bf16', 'm=512 n=8192 k=4096 bits=8 w8a8=1', matmul_s8,
     'tiles of 64 x 64, both operands from L2; integer operations, at twice the rate of bf16'),
    ('quantize', 'quantize', 'bf16', 'rows=4096 k=4096 bits=8', quantize, 'the row is read again for the integers, from L1 or L2'),
    ('activation', 'activation_backward', 'bf16', 'rows=2048 F=3072 activation=2', times(1), 'one pass'),
    ('bias', 'bias_backward', 'bf16', 'rows=2048 n=3072', column_sums, 'partial sums of 64 stripes, from L2'),
    ('elementwise', 'cast', 'bf16', 'rows=2048 n=3072', times(1), 'one pass'),
    ('elementwise', 'add', 'bf16', 'rows=2048 n=3072', times(1), 'one pass'),
    ('elementwise', 'memory_roll', 'bf16', 'K=1024 memory=512 B=8 D=768', times(1), 'a copy; twice that when source and target overlap'),
    ('elementwise', 'ring_store', 'bf16', 'N=4096 S=4 slots=2048 chunk=1024 H=12 dh=64', times(1), 'one pass'),
    ('position', 'position_encoding', 'bf16', 'distances=4096 D=768', times(1, 100), 'some 200 fp64 operations a pair, once for a set of weights'),
    ('sample', 'sample', 'bf16', 'rows=16 V=32768 rules=5', times(1 + 2 + 6 * 2), SAMPLE),
]


def kernel_table(least):
    yield '| kernel, cuda/ | at | MB | least | ratio | MFLOP | least | ratio | why |'
    yield '|---|---|---|---|---|---|---|---|---|'
    for file, operation, type_, shape, moved, why in KERNELS:
        megabytes, megaflops = least[operation, type_, shape]
        if moved.__name__ == '<lambda>':
            work = moved((megabytes * 1e6, megaflops * 1e6))
        else:
            work = moved({k: int(v) for k, v in re.findall(r'(\w+)=(\d+)', shape)}, 4 if type_ == 'fp32' else 2)
        share = f'{work[1] / megaflops / 1e6:.2f}' if megaflops else '-'
        yield (f'| {file} | {operation} {type_} {shape} | {work[0] / 1e6:.2f} | {megabytes:.2f} | {work[0] / megabytes / 1e6:.2f} '
               f'| {work[1] / 1e6:.1f} | {megaflops:.1f} | {share} | {why} |')


def preset(name):
    with open(os.path.join(ROOT, 'weights', 'presets', name + '.json')) as file:
        return json.load(file)


def training(name, lanes, optimizer_bytes):
    """Of one step: tokens, model operations, operations of dense products and of attention as executed, bytes of the rest."""
    c = preset(name)
    depth, width, wide, heads = c['n_layer'], c['d_model'], c['d_ff'], c['n_head'] * c['d_head']
    segment = memory = c['segment']
    tokens = lanes * segment
    matrices = c['vocab_size'] * width + depth * (4 * heads * width + 2 * width * wide)
    positions = depth * heads * width * (segment + memory) / tokens
    visible = sum(memory + i + 1 for i in range(segment)) / segment
    model = tokens * (6 * (matrices + positions) + 18 * heads * depth * visible)
    dense = tokens * (6 * (matrices + positions) + 12 * heads * width * depth * memory / segment)  # memory's k, value
    shape = {'T': segment, 'M': memory, 'B': lanes, 'H': c['n_head'], 'dh': c['d_head']}
    attention = depth * (attention_forward_mma(shape, 2)[1] + attention_backward_mma(shape, 2)[1])
    parameters = matrices + depth * heads * width
    rest = tokens * 2 * (depth * (width * (19 + 4 * memory / segment) + 6 * wide) + 2 * c['vocab_size'])
    return tokens, model, dense, attention, rest + parameters * (optimizer_bytes + 4)


def training_table():
    cards = ' | '.join(f'{card}: dense | attention | bytes | step, ms | tokens/s | of peak' for card in CARDS)
    yield f'| preset, lanes | model TFLOP | {cards} |'
    yield '|---|---|' + '---|' * (6 * len(CARDS))
    for name, lanes, optimizer_bytes in (('base', 8, 28), ('large', 4, 28), ('7b', 1, 14)):
        tokens, model, dense, attention, moved = training(name, lanes, optimizer_bytes)
        line = f'| {name}, {lanes} | {model / 1e12:.1f} |'
        for bandwidth, tensor, mma in CARDS.values():
            parts = dense / (0.6 * tensor), attention / (0.6 * mma), moved / (0.9 * bandwidth)
            step = sum(parts)
            line += ''.join(f' {1e3 * part:.1f} |' for part in parts)
            line += f' {1e3 * step:.0f} | {tokens / step:,.0f} | {100 * model / step / tensor:.0f}% |'
        yield line


def decoding_table():
    yield '| preset | sequences | weights, MB | keys and values, MB | r, MB | ' + ' | '.join(f'{c}, tokens/s' for c in CARDS) + ' |'
    yield '|---|---|---|---|---|' + '---|' * len(CARDS)
    for name in ('base', 'large', '7b'):
        c = preset(name)
        heads = c['n_head'] * c['d_head']
        window = c['segment'] + c['mem_len']
        matrices = c['vocab_size'] * c['d_model'] + c['n_layer'] * (4 * heads * c['d_model'] + 2 * c['d_model'] * c['d_ff'])
        table = c['n_layer'] * window * heads * 2
        for sequences in (1, 8):
            ring = sequences * 2 * table
            moved = matrices * 2 + ring + table
            rates = ' | '.join(f'{sequences * 0.9 * bandwidth / moved:,.0f}' for bandwidth, _, _ in CARDS.values())
            yield f'| {name} | {sequences} | {matrices * 2 / 1e6:.0f} | {ring / 1e6:.0f} | {table / 1e6:.0f} | {rates} |'


# docs/420.md: the goal, bytes a weight with its scales (int8: fp32, one a row; int4: fp16, one for 64), the cards' bandwidth.
GOAL = 420
WEIGHTS = {'bf16': lambda n, k: 2 * n * k, 'int8': lambda n, k: n * k + 4 * n, 'int4': lambda n, k: n * k // 2 + n * k // 64 * 2}
A100 = {'A100-40': 1.555e12, 'A100-80': 2.039e12}
SECOND_LEVEL = 40e6  # bytes of an A100's L2


def matrices_7b(bytes_of):
    """What every pass reads of the weights, without W_r, the embedding as the output layer."""
    c = preset('7b')
    heads, width, wide = c['n_head'] * c['d_head'], c['d_model'], c['d_ff']
    layer = bytes_of(3 * heads, width) + bytes_of(width, heads) + bytes_of(wide, width) + bytes_of(width, wide)
    return bytes_of(c['vocab_size'], width) + c['n_layer'] * layer


def keys_7b(window, rows=1, texts=1, integers=False):
    """Keys, values and R of all layers, bf16 or int8 with an fp32 scale a head; once a pass where a layer's lie in L2, otherwise once a row."""
    c = preset('7b')
    one = window * c['n_head'] * (c['d_head'] + 4 if integers else 2 * c['d_head'])
    layer = (2 * texts + 1) * one
    return c['n_layer'] * layer * (rows if layer > SECOND_LEVEL else 1)


def bytes_table():
    yield ('| weights | GB a pass | of 512 keys, GB | of 4,096 keys, GB | in int8, GB | 420 tokens/s, 512 keys: GB/s | of A100-40 | of A100-80 | '
           '4,096 keys: of A100-80 | with keys in int8 |')
    yield '|---|---|---|---|---|---|---|---|---|---|'
    for name, bytes_of in WEIGHTS.items():
        read, few, many, small = matrices_7b(bytes_of), keys_7b(512), keys_7b(4096), keys_7b(4096, integers=True)
        needed = [100 * GOAL * moved / A100[card] for moved, card in
                  ((read + few, 'A100-40'), (read + few, 'A100-80'), (read + many, 'A100-80'), (read + small, 'A100-80'))]
        yield (f'| {name} | {read / 1e9:.2f} | {few / 1e9:.2f} | {many / 1e9:.2f} | {small / 1e9:.2f} | {GOAL * (read + few) / 1e9:,.0f} | '
               + ' | '.join(f'{share:.0f}%' for share in needed) + ' |')


def accepted():
    """(text, tokens a pass, rows a pass) of bench/results/speculation.json, texts written again by the small model."""
    with open(os.path.join(ROOT, 'bench', 'results', 'speculation.json'), encoding='utf-8') as file:
        lines = [json.loads(line) for line in file]
    found = [line for line in lines if line.get('task') == 'replayed' and line['weights'] == 'small']
    return [(r['text'], r['tokens'] / r['passes'], 1 + r['drafted'] / r['passes']) for r in found]


def paths_table():
    yield ('| drafts as in | tokens a pass | rows a pass | ' + ' | '.join(f'{w}, {c}' for w in ('int8', 'int4') for c in A100)
           + ' | int8, 4,096 keys in int8, A100-80 | int4, 4,096 keys in int8, A100-80 |')
    yield '|---|---|---|' + '---|' * 6
    for text, tokens, rows in [('none', 1, 1)] + accepted():
        def share(weights, keys, bandwidth):
            return f'{100 * GOAL / tokens * (matrices_7b(WEIGHTS[weights]) + keys) / bandwidth:.0f}%'
        few = ' | '.join(share(weights, keys_7b(512, rows), bandwidth) for weights in ('int8', 'int4') for bandwidth in A100.values())
        many = ' | '.join(share(weights, keys_7b(4096, rows, integers=True), A100['A100-80']) for weights in ('int8', 'int4'))
        yield f'| {text} | {tokens:.2f} | {rows:.2f} | {few} | {many} |'


def batch_table():
    yield '| texts | ' + ' | '.join(f'{w}, {k} keys' for w in WEIGHTS for k in (512, 4096)) + ' |'
    yield '|---|' + '---|' * 6
    for texts in (1, 2, 4, 8, 16):
        shares = (100 * GOAL / texts * (matrices_7b(b) + keys_7b(k, texts=texts)) / A100['A100-80'] for b in WEIGHTS.values() for k in (512, 4096))
        yield f'| {texts} | ' + ' | '.join(f'{share:.0f}%' for share in shares) + ' |'


def tables():
    listing = operations()
    return {'operations': listing.strip(), 'kernels': '\n'.join(kernel_table(least_work(listing))),
            'training': '\n'.join(training_table()), 'decoding': '\n'.join(decoding_table()),
            '420 bytes': '\n'.join(bytes_table()), '420 paths': '\n'.join(paths_table()), '420 batch': '\n'.join(batch_table())}


def main():
    found = tables()
    if len(sys.argv) == 1:
        print('\n\n'.join(found.values()))
        return 0
    if sys.argv[1] not in ('--update', '--check'):
        print(__doc__, file=sys.stderr)
        return 2
    for page in PAGES:
        with open(page, encoding='utf-8') as file:
            old = new = file.read()
        for name, table in found.items():
            new = re.sub(rf'(<!-- {name} -->\n).*?(<!-- end -->)', lambda m: f'{m[1]}{table}\n{m[2]}', new, flags=re.S)
        if sys.argv[1] == '--update':
            with open(page, 'w', encoding='utf-8') as file:
                file.write(new)
        elif new != old:
            print(f'{os.path.relpath(page, ROOT)} is not what bench/predict.py prints: run bench/predict.py --update', file=sys.stderr)
            return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
