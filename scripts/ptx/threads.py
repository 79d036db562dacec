"""What the threads of a warp and a block do together, calls and branches."""
import re

from ptx.instruction import TYPES, elements, label, split


def barrier(i):
    if i.fields in (['bar', 'warp', 'sync'],):
        return f'__syncwarp({i.value(i.operands[0], "u32")});'
    if i.fields[1:2] == ['red'] and i.fields[2] in ('popc', 'and', 'or') and len(i.operands) == 3:
        function = {'popc': 'count', 'and': 'and', 'or': 'or'}[i.fields[2]]
        return i.write(i.operands[0], f'uint32_t(__syncthreads_{function}({i.value(i.operands[2], "pred")}))')
    if i.fields not in (['bar', 'sync'], ['bar', 'arrive'], ['barrier', 'sync'], ['barrier', 'cta', 'sync', 'aligned']):
        i.refuse()
    if len(i.operands) == 1:
        return '__syncthreads();' if i.operands[0] == '0' else i.refuse()
    function = 'bar_arrive' if 'arrive' in i.fields else 'bar_sync'
    return f'simt::{function}({i.value(i.operands[0], "s32")}, {i.value(i.operands[1], "s32")});'


def shuffle(i):
    modes = {'bfly': 'butterfly', 'down': 'down', 'up': 'up', 'idx': 'index'}
    if i.fields[:2] != ['shfl', 'sync'] or i.fields[2] not in modes:
        i.refuse()
    result, _, valid = i.operands[0].partition('|')
    values = f'{i.read(1, "b32")}, {i.read(2, "u32")}, {i.read(3, "u32")}, {i.read(4, "u32")}'
    call = f'bool valid = false; const uint32_t word = ptx::shuffle(ptx::Shuffle::{modes[i.fields[2]]}, {values}, valid);'
    return f'{{ {call} {i.write(result, "word")} {i.write(valid, "valid") if valid else ""} }}'


def vote(i):
    functions = {'ballot': '__ballot_sync', 'any': '0 != __any_sync', 'all': '0 != __all_sync'}
    if i.fields[1] != 'sync' or i.fields[2] not in functions:
        i.refuse()
    return i.write(i.operands[0], f'{functions[i.fields[2]]}({i.read(2, "u32")}, {i.value(i.operands[1], "pred")})')


def match_lanes(i):
    if i.fields[1:3] != ['any', 'sync']:
        i.refuse()
    return i.write(i.operands[0], f'__match_any_sync({i.read(2, "u32")}, {i.read(1)})')


def reduce(i):
    if i.fields[1] != 'sync':
        i.refuse()
    type = 's32' if i.type == 's32' and i.fields[2] in ('add', 'min', 'max') else 'u32'
    return i.write(i.operands[0], f'__reduce_{i.fields[2]}_sync({i.read(2, "u32")}, {i.read(1, type)})')


def load_matrix(i):
    match = re.fullmatch(r'ldmatrix\.sync\.aligned\.m8n8\.x([24])(\.trans)?\.shared\.b16', i.opcode) or i.refuse()
    registers = elements(i.operands[0])
    writes = ' '.join(i.write(register, f'r[{n}]') for n, register in enumerate(registers))
    function = f'simt::ldmatrix_x{match[1]}{"_trans" if match[2] else ""}'
    return f'{{ uint32_t r[{match[1]}]; {function}(r, {i.place(i.operands[1], "b8", 1)}); {writes} }}'


PRODUCTS = {'mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32': ('simt::mma_bf16_16816', 'f32'),
            'mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32': ('simt::mma_s8_16832', 's32')}


def matrix_product(i):
    function, type = PRODUCTS.get(i.opcode) or i.refuse()
    d, a, b, c = (elements(operand) for operand in i.operands)
    sums = ', '.join(i.value(register, type) for register in c)
    left = ', '.join(i.value(register, 'b32') for register in a)
    right = ', '.join(i.value(register, 'b32') for register in b)
    writes = ' '.join(i.write(register, f'd[{n}]') for n, register in enumerate(d))
    return f'{{ {TYPES[type]} d[4] = {{{sums}}}; const uint32_t a[4] = {{{left}}}; {function}(d, a, {right}); {writes} }}'


def call(i):
    """call.uni (result), function, (arguments): arrays of the caller stand for the parameters."""
    if i.opcode != 'call.uni' or i.operands[1] not in i.function.module.callees:
        i.refuse()
    function = i.function
    results, arguments = (split(operand.strip('() ')) for operand in (i.operands[0], i.operands[2]))
    function.approximate.add('call')
    lists = [', '.join(function.parameter(f'[{name}]')[0] for name in names) for names in (results, arguments)]
    return (f'{{ void* const results[] = {{{lists[0]}}}; const void* const arguments[] = {{{lists[1]}}}; '
            f'{i.operands[1]}(arguments, results, shared); }}')


def branch(i):
    if i.opcode not in ('bra', 'bra.uni'):
        i.refuse()
    return f'goto {label(i.operands[0])};'


TRANSLATIONS = {
    'bar': barrier, 'barrier': barrier, 'membar': lambda i: '__threadfence();', 'fence': lambda i: '__threadfence();',
    'shfl': shuffle, 'vote': vote, 'match': match_lanes, 'redux': reduce, 'ldmatrix': load_matrix, 'mma': matrix_product,
    'call': call, 'bra': branch, 'ret': lambda i: 'return;', 'exit': lambda i: 'return;', 'trap': lambda i: '__trap();',
}
