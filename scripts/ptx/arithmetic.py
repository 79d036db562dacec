"""Instructions on numbers, bits and predicates. Each function takes an Instruction and gives its statement."""
from ptx.instruction import BYTES, TYPES


def simple(cpp, operands, *modifiers, result=None):
    """OP.type d, a, b ...: d = cpp<type>(a, b, ...)."""
    def translate(i):
        i.only(*modifiers)
        arguments = ', '.join(i.read(n) for n in range(1, operands + 1))
        return i.write(i.operands[0], f'{cpp}<{TYPES[i.type]}>({arguments})')
    return translate


def operator(symbol):
    def translate(i):
        i.only()
        ctype = TYPES[i.type]
        return i.write(i.operands[0], f'static_cast<{ctype}>({i.read(1)} {symbol} {i.read(2)})')
    return translate


def bf16_operation(i, function, count):
    """add.bf16x2 and its like."""
    values = [i.value(i.operands[n], 'b32' if i.fields[-1] == 'bf16x2' else 'b16') for n in range(1, count + 1)]
    values += ['0'] * (3 - count)
    names = ', '.join('xyz'[:count])
    body = f'[](auto x, auto y, [[maybe_unused]] auto z) {{ return {function}({names}); }}'
    return i.write(i.operands[0], f'ptx::by_halves({", ".join(values)}, {body})')


def arithmetic(cpp, operands, bf16=None):
    """An operation on integers, floats and bf16."""
    plain = simple(cpp, operands, 'rn', 'lo')
    def translate(i):
        if i.name == 'add' and i.modifiers == ['rz', 'f32']:
            return i.write(i.operands[0], f'ptx::add_to_zero({i.read(1)}, {i.read(2)})')
        if i.fields[-1] in ('bf16', 'bf16x2'):
            return bf16_operation(i, bf16, operands) if bf16 else None
        return plain(i)
    return translate


def multiply(i):
    if i.fields[-1] in ('bf16', 'bf16x2'):
        return bf16_operation(i, '__hmul', 2)
    i.only('lo', 'hi', 'wide', 'rn')
    function = 'ptx::mul_hi' if 'hi' in i.modifiers else 'ptx::mul_wide' if 'wide' in i.modifiers else 'ptx::mul'
    return i.write(i.operands[0], f'{function}<{TYPES[i.type]}>({i.read(1)}, {i.read(2)})')


def multiply_add(i):
    i.only('lo', 'wide', 'rn')
    if 'wide' in i.modifiers:
        wide = i.type[0] + str(16 * BYTES[i.type])
        return i.write(i.operands[0], f'ptx::mad_wide<{TYPES[i.type]}>({i.read(1)}, {i.read(2)}, {i.read(3, wide)})')
    return simple('ptx::mad', 3, 'lo')(i)


def fused(i):
    if i.fields[-1] in ('bf16', 'bf16x2'):
        return bf16_operation(i, '__hfma', 3)
    if 'rm' in i.modifiers:
        i.function.approximate.add('fma.rm')  # only the functions that nvcc expands itself round down
        return i.write(i.operands[0], f'ptx::fma_down({i.read(1)}, {i.read(2)}, {i.read(3)})')
    return simple('ptx::fma', 3, 'rn')(i)


def carried(i):
    """add, sub and mad that leave a carry (.cc) or take the last one (addc, subc, madc)."""
    i.only('lo', 'hi', 'cc')
    type = TYPES[i.type.replace('s', 'u')]
    values = [i.read(n, i.type.replace('s', 'u')) for n in range(1, len(i.operands))]
    if i.name.startswith('mad'):
        if 'hi' in i.modifiers and i.type[0] == 's':
            i.refuse()
        values = [f'ptx::mul{"_hi" if "hi" in i.modifiers else ""}<{type}>({values[0]}, {values[1]})', values[2]]
    function = 'subtract_with_borrow' if i.name.startswith('sub') else 'add_with_carry'
    carry_in = 'carry' if i.name.endswith('c') else 'false'
    keep = 'carry' if 'cc' in i.modifiers else 'unused_carry'
    i.function.declarations += ['[[maybe_unused]] bool carry = false;', '[[maybe_unused]] bool unused_carry = false;']
    return i.write(i.operands[0], f'ptx::{function}<{type}>({values[0]}, {values[1]}, {carry_in}, {keep})')


def divide(i):
    if 'full' in i.modifiers or 'approx' in i.modifiers:
        i.function.approximate.add(i.opcode)
    return simple('ptx::div', 2, 'rn', 'full', 'approx')(i)


def unary(cpp, exact_when_rounded=False):
    """A function of one float: exact with .rn where the manual says so, else within some last places."""
    def translate(i):
        i.only('approx', 'ftz', 'rn')
        exact = exact_when_rounded and 'rn' in i.modifiers
        if i.type == 'f64' and exact:
            return i.write(i.operands[0], f'{cpp}<false>({i.read(1)})')
        if i.type == 'f64' and i.fields in (['rcp', 'approx', 'ftz', 'f64'], ['rsqrt', 'approx', 'ftz', 'f64']):
            i.function.approximate.add(i.opcode)
            return i.write(i.operands[0], f'ptx::upper_word({cpp}<false>({i.read(1)}))')
        if i.type != 'f32':
            i.refuse()
        if not exact:
            i.function.approximate.add(i.opcode)
        flush = 'true' if 'ftz' in i.modifiers else 'false'
        return i.write(i.operands[0], f'{cpp}<{flush}>({i.read(1)})')
    return translate


def logical_not(i):
    i.only()
    return i.write(i.operands[0], f'!{i.read(1)}' if i.type == 'pred' else f'static_cast<{TYPES[i.type]}>(~{i.read(1)})')


def shift(cpp):
    def translate(i):
        i.only()
        return i.write(i.operands[0], f'{cpp}<{TYPES[i.type]}>({i.read(1)}, {i.read(2, "u32")})')
    return translate


def funnel_shift(i):
    i.only('l', 'r', 'wrap', 'clamp')
    side = 'left' if 'l' in i.modifiers else 'right'
    wrap = 'true' if 'wrap' in i.modifiers else 'false'
    return i.write(i.operands[0], f'ptx::funnel_{side}({i.read(1)}, {i.read(2)}, {i.read(3)}, {wrap})')


def insert_field(i):
    i.only()
    values = f'{i.read(1)}, {i.read(2)}, {i.read(3, "u32")}, {i.read(4, "u32")}'
    return i.write(i.operands[0], f'ptx::insert_field<{TYPES[i.type]}>({values})')


def extract_field(i):
    i.only()
    return i.write(i.operands[0], f'ptx::extract_field<{TYPES[i.type]}>({i.read(1)}, {i.read(2, "u32")}, {i.read(3, "u32")})')


def permute(i):
    i.only()
    return i.write(i.operands[0], f'__byte_perm({i.read(1)}, {i.read(2)}, {i.read(3)})')


def bit_count(function):
    def translate(i):
        i.only()
        return i.write(i.operands[0], f'uint32_t({function}{"ll" if i.type == "b64" else ""}({i.read(1)}))')
    return translate


def highest_bit(i):
    i.only('shiftamt')
    function = 'ptx::shift_to_highest' if 'shiftamt' in i.modifiers else 'ptx::highest_bit'
    return i.write(i.operands[0], f'{function}({i.read(1, i.type.replace("s", "u"))})') if i.type[0] == 'u' else None


def reverse(i):
    i.only()
    return i.write(i.operands[0], f'__brev{"ll" if i.type == "b64" else ""}({i.read(1)})')


def select(i):
    i.only()
    return i.write(i.operands[0], f'{i.read(3, "pred")} ? {i.read(1)} : {i.read(2)}')


COMPARISONS = {'eq': '==', 'ne': '!=', 'lt': '<', 'le': '<=', 'gt': '>', 'ge': '>=', 'lo': '<', 'ls': '<=', 'hi': '>', 'hs': '>='}


def compare(i):
    comparison, rest = i.modifiers[0], i.modifiers[1:]
    left, right = i.read(1), i.read(2)
    floating = i.type in ('f32', 'f64')
    if comparison == 'nan':
        result = f'ptx::unordered({left}, {right})'
    elif comparison == 'num':
        result = f'!ptx::unordered({left}, {right})'
    elif floating and comparison.endswith('u') and comparison[:-1] in COMPARISONS:
        result = f'({left} {COMPARISONS[comparison[:-1]]} {right} || ptx::unordered({left}, {right}))'
    elif comparison == 'ne' and floating:
        result = f'({left} != {right} && !ptx::unordered({left}, {right}))'
    elif comparison in COMPARISONS:
        result = f'{left} {COMPARISONS[comparison]} {right}'
    else:
        i.refuse()
    if rest[:1] and rest[0] in ('and', 'or', 'xor'):
        result = f'({result}) {dict(zip(("and", "or", "xor"), ("&&", "||", "!=")))[rest[0]]} {i.read(3, "pred")}'
        rest = rest[1:]
    if rest != [i.type] or '|' in i.operands[0]:
        i.refuse()
    return i.write(i.operands[0], result)


ROUNDINGS = {'rni': 'std::nearbyint', 'rzi': 'std::trunc', 'rmi': 'std::floor', 'rpi': 'std::ceil'}


def convert(i):
    modifiers, (to, source) = i.modifiers[:-2], i.fields[-2:]
    destination = i.operands[0]
    if to == 'bf16x2' and source == 'f32' and modifiers == ['rn']:
        return i.write(destination, f'ptx::bf16_pair({i.read(2, "f32")}, {i.read(1, "f32")})')
    if to == 'bf16' and source == 'f32' and modifiers == ['rn']:
        return i.write(destination, f'uint16_t(__float2bfloat16_rn({i.read(1, "f32")}).raw)')
    if to == 'f32' and source == 'bf16' and not modifiers:
        return i.write(destination, f'__bfloat162float(ptx::bf16({i.read(1, "b16")}))')
    if to == 'f16' and source == 'f32' and modifiers == ['rn']:
        return i.write(destination, f'uint16_t(__float2half_rn({i.read(1, "f32")}).raw)')
    if to == 'f32' and source == 'f16' and not modifiers:
        return i.write(destination, f'__half2float(__ushort_as_half({i.read(1, "b16")}))')
    if to not in TYPES or source not in TYPES:
        i.refuse()
    value, rounding = i.read(1, source), modifiers[0] if modifiers else None
    if to[0] == 'f' and source[0] == 'f':
        if rounding in ROUNDINGS and len(modifiers) == 1:
            return i.write(destination, f'{ROUNDINGS[rounding]}({value})')
        if modifiers == ['sat']:
            return i.write(destination, f'ptx::saturate({value})')
        if modifiers in (['rn'], []):
            return i.write(destination, f'static_cast<{TYPES[to]}>({value})')
    elif source[0] == 'f' and rounding in ROUNDINGS and len(modifiers) == 1:
        return i.write(destination, f'ptx::to_integer<{TYPES[to]}>({ROUNDINGS[rounding]}({value}))')
    elif to[0] == 'f' and modifiers == ['rn'] or not modifiers:
        return i.write(destination, f'static_cast<{TYPES[to]}>({value})')
    i.refuse()


TRANSLATIONS = {
    'add': arithmetic('ptx::add', 2, '__hadd'), 'sub': arithmetic('ptx::sub', 2, '__hsub'), 'mul': multiply,
    'mad': multiply_add, 'fma': fused, 'div': divide, 'rem': simple('ptx::rem', 2),
    'min': arithmetic('ptx::smaller', 2, '__hmin'), 'max': arithmetic('ptx::larger', 2, '__hmax'),
    'addc': carried, 'subc': carried, 'madc': carried,
    'neg': simple('ptx::negate', 1), 'abs': simple('ptx::absolute', 1), 'copysign': simple('ptx::copysign', 2),
    'ex2': unary('ptx::exp2'), 'lg2': unary('ptx::log2'), 'rcp': unary('ptx::reciprocal', True),
    'sqrt': unary('ptx::root', True), 'rsqrt': unary('ptx::reciprocal_root'), 'sin': unary('ptx::sine'),
    'cos': unary('ptx::cosine'), 'tanh': unary('ptx::tangent_hyperbolic'),
    'and': operator('&'), 'or': operator('|'), 'xor': operator('^'), 'not': logical_not,
    'shl': shift('ptx::shift_left'), 'shr': shift('ptx::shift_right'), 'shf': funnel_shift, 'bfi': insert_field,
    'bfe': extract_field, 'prmt': permute, 'popc': bit_count('__popc'), 'clz': bit_count('__clz'), 'brev': reverse,
    'bfind': highest_bit,
    'selp': select, 'setp': compare, 'cvt': convert,
    'cc': carried,
}
