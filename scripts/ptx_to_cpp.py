#!/usr/bin/env python3
"""Translates the PTX that nvcc makes of a kernel file into C++ for the fibers of cuda/simt, one statement an instruction,
branches as gotos, so that what nvcc really made runs on a machine without a GPU. tests/simt/ptx/machine.h defines the
instructions. An instruction that is not known here is refused with its text, never guessed.

usage: ptx_to_cpp.py IN.ptx OUT.cpp
"""
import re
import sys

TYPES = {'pred': 'bool', 'b8': 'uint8_t', 'u8': 'uint8_t', 's8': 'int8_t', 'b16': 'uint16_t', 'u16': 'uint16_t',
         's16': 'int16_t', 'b32': 'uint32_t', 'u32': 'uint32_t', 's32': 'int32_t', 'b64': 'uint64_t', 'u64': 'uint64_t',
         's64': 'int64_t', 'f32': 'float', 'f64': 'double'}
BYTES = {name: int(name[1:]) // 8 for name in TYPES if name != 'pred'}
SPECIAL = {'%tid': 'threadIdx', '%ctaid': 'blockIdx', '%ntid': 'blockDim', '%nctaid': 'gridDim'}


class Unknown(Exception):
    """An instruction or operand that has no translation."""


def split(text):
    """Operands at the commas outside of braces, brackets and parentheses."""
    parts, depth, part = [], 0, ''
    for letter in text:
        depth += (letter in '{[(') - (letter in '}])')
        if letter == ',' and depth == 0:
            parts.append(part.strip())
            part = ''
        else:
            part += letter
    return parts + [part.strip()] if part.strip() else parts


def elements(operand):
    """The registers of {a, b, ...}."""
    return [part.strip() for part in operand.strip('{} ').split(',')]


class Instruction:
    """One instruction: predicate, name, modifiers, type, operands; knows how to read and write its operands."""

    def __init__(self, text, function):
        self.text, self.function = text, function
        match = re.fullmatch(r'(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)', text, re.S)
        if not match:
            raise Unknown(text)
        self.negated, self.predicate, self.opcode, operands = match.groups()
        self.fields = self.opcode.split('.')
        self.name, self.modifiers = self.fields[0], self.fields[1:]
        self.type = self.fields[-1] if self.fields[-1] in TYPES else None
        self.operands = split(operands)

    def refuse(self):
        raise Unknown(self.text)

    def only(self, *modifiers):
        """Refuses modifiers beyond the type and these."""
        if any(m not in modifiers and m not in TYPES for m in self.modifiers):
            self.refuse()

    def read(self, index, type=None):
        return self.value(self.operands[index], type or self.type)

    def value(self, operand, type):
        ctype = TYPES[type]
        if match := re.fullmatch(r'0f([0-9A-Fa-f]{8})', operand):
            return f'std::bit_cast<{ctype}>(0x{match[1]}u)'
        if match := re.fullmatch(r'0d([0-9A-Fa-f]{16})', operand):
            return f'std::bit_cast<{ctype}>(0x{match[1]}ull)'
        if match := re.fullmatch(r'(-?)(0x[0-9A-Fa-f]+|\d+)U?', operand):
            number = int(match[1] + match[2], 0) & 0xffffffffffffffff
            return f'static_cast<{ctype}>({hex(number)}ull)'
        if match := re.fullmatch(r'(%\w+)\.([xyz])', operand):
            if match[1] in SPECIAL:
                return f'ptx::as<{ctype}>(uint32_t({SPECIAL[match[1]]}.{match[2]}))'
        if operand == '%laneid':
            return f'ptx::as<{ctype}>(uint32_t(simt::current_thread->lane))'
        negated = operand.startswith('!')
        register = operand.lstrip('!')
        if register in self.function.registers:
            return ('!' if negated else '') + f'ptx::as<{ctype}>({self.function.registers[register]})'
        if (address := self.function.address_of(register)) is not None:
            return f'static_cast<{ctype}>({address})'
        return self.refuse()

    def write(self, operand, expression):
        if operand == '_':
            return f'{expression};'
        if operand not in self.function.registers:
            self.refuse()
        return f'ptx::set({self.function.registers[operand]}, {expression});'

    def place(self, operand, type, alignment):
        """A C++ lvalue for [base + offset] in the instruction's space."""
        match = re.fullmatch(r'\[\s*([^\]+]+?)\s*(?:\+\s*(-?\d+))?\s*\]', operand)
        if not match:
            self.refuse()
        base, offset = match[1], match[2] or '0'
        ctype = TYPES[type]
        if 'shared' in self.modifiers or 'shared::cta' in self.modifiers:
            return f'ptx::at<{ctype}>(shared, static_cast<uint32_t>({self.value(base, "u32")} + {offset}), {alignment})'
        return f'ptx::at<{ctype}>(ptx::pointer({self.value(base, "u64")}), {offset}, {alignment})'

    def statement(self):
        translate = carried if 'cc' in self.modifiers else TRANSLATIONS.get(self.name) or self.refuse()
        statement = translate(self)
        if statement is None:
            self.refuse()
        if self.predicate:
            return f'if ({self.negated}{self.function.registers[self.predicate]}) {{ {statement} }}'
        return statement


# How instructions become statements. Each function takes an Instruction.

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


def move(i):
    i.only()
    halves = {'b32': ('b16', 16), 'b64': ('b32', 32)}
    destination, source = i.operands
    if i.function.registers.get(source, '').endswith('_f32'):
        i.function.floats.add(destination)
    if destination.startswith('{'):
        part, width = halves[i.type]
        parts = [i.write(register, f'static_cast<{TYPES[part]}>(word >> {width * n})')
                 for n, register in enumerate(elements(destination))]
        return f'{{ const {TYPES[i.type]} word = {i.value(source, i.type)}; {" ".join(parts)} }}'
    if source.startswith('{'):
        part, width = halves[i.type]
        words = [f'static_cast<{TYPES[i.type]}>({i.value(register, part)}) << {width * n}'
                 for n, register in enumerate(elements(source))]
        return i.write(destination, ' | '.join(words))
    return i.write(destination, i.read(1))


def to_generic(i):
    """cvta: between the addresses of a space and those of C++."""
    if 'shared' in i.modifiers:
        arena = 'reinterpret_cast<uint64_t>(shared)'
        return i.write(i.operands[0], f'{i.read(1, "u64")} {"-" if "to" in i.modifiers else "+"} {arena}')
    if not set(i.modifiers) <= {'to', 'global', 'local', 'const', 'param', 'u64'}:
        i.refuse()
    return i.write(i.operands[0], i.read(1))


CACHE_HINTS = ('ca', 'cg', 'cs', 'lu', 'cv', 'wb', 'wt', 'nc', 'relaxed', 'weak', 'volatile', 'gpu', 'sys', 'L1::no_allocate',
               'L2::128B', 'L2::256B')


def memory_type(i):
    i.only('global', 'shared', 'shared::cta', 'param', 'local', 'const', 'v2', 'v4', *CACHE_HINTS)
    return 4 if 'v4' in i.modifiers else 2 if 'v2' in i.modifiers else 1


def load(i):
    count, ctype = memory_type(i), TYPES[i.type]
    registers = elements(i.operands[0]) if count > 1 else [i.operands[0]]
    if 'param' in i.modifiers and (parameter := i.function.parameter(i.operands[1])):
        value, offset = parameter
        reads = [f'ptx::parameter<{ctype}>({value}, {offset + n * BYTES[i.type]})' for n in range(count)]
        return ' '.join(i.write(register, read) for register, read in zip(registers, reads))
    place = i.place(i.operands[1], i.type, count * BYTES[i.type])
    if count == 1:
        return i.write(registers[0], f'*{place}')
    return f'{{ const {ctype}* from = {place}; {" ".join(i.write(r, f"from[{n}]") for n, r in enumerate(registers))} }}'


def store(i):
    count = memory_type(i)
    if 'param' in i.modifiers:
        value, offset = i.function.parameter(i.operands[0]) or i.refuse()
        return f'ptx::set_parameter({value}, {offset}, {i.read(1)});' if count == 1 else i.refuse()
    place = i.place(i.operands[0], i.type, count * BYTES[i.type])
    registers = elements(i.operands[1]) if count > 1 else [i.operands[1]]
    values = [f'to[{n}] = {i.value(register, i.type)};' for n, register in enumerate(registers)]
    return f'{{ {TYPES[i.type]}* to = {place}; {" ".join(values)} {note_halves(i, registers, count)} }}'


def note_halves(i, registers, count):
    """A word in global memory may be two bf16 when it is not stored as a float: their tolerance is another."""
    stored_as_float = i.type in ('f32', 'f64') or any(register in i.function.floats for register in registers)
    if {'shared', 'shared::cta', 'local'} & set(i.modifiers) or stored_as_float or BYTES[i.type] not in (2, 4):
        return ''
    return f'ptx::wrote_halves(to, {count * BYTES[i.type]});'


ATOMIC_CHANGES = {'add': 'ptx::add(old, value)', 'min': 'ptx::smaller(old, value)', 'max': 'ptx::larger(old, value)', 'and': 'old & value',
                  'or': 'old | value', 'xor': 'old ^ value', 'exch': 'value', 'inc': 'old >= value ? 0 : old + 1',
                  'dec': 'old == 0 || old > value ? value : old - 1'}


def atomic(i):
    changes = [m for m in i.modifiers if m in ATOMIC_CHANGES or m == 'cas']
    i.only('global', 'shared', 'shared::cta', 'relaxed', 'gpu', *changes)
    operands = i.operands if i.name == 'atom' else ['_'] + i.operands
    place, ctype = i.place(operands[1], i.type, BYTES[i.type]), TYPES[i.type]
    if changes == ['cas']:
        change = f'old == {i.value(operands[2], i.type)} ? {i.value(operands[3], i.type)} : old'
        call = f'ptx::atomic({place}, [&]({ctype} old) -> {ctype} {{ return {change}; }})'
    elif len(changes) == 1:
        change = f'[value = {i.value(operands[2], i.type)}]([[maybe_unused]] {ctype} old) -> {ctype} {{ return {ATOMIC_CHANGES[changes[0]]}; }}'
        call = f'ptx::atomic({place}, {change})'
    else:
        i.refuse()
    return i.write(operands[0], call)


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


def copy_async(i):
    if i.opcode == 'cp.async.commit_group':
        return 'simt::cp_async_commit();'
    if i.opcode == 'cp.async.wait_group':
        return f'simt::cp_async_wait<{i.operands[0]}>();'
    if i.opcode == 'cp.async.wait_all':
        return 'simt::cp_async_commit(); simt::cp_async_wait<0>();'
    if i.opcode != 'cp.async.cg.shared.global' or i.operands[2] != '16':
        i.refuse()
    to = i.place(i.operands[0], 'b8', 1)
    source = re.fullmatch(r'\[\s*(\S+?)\s*\]', i.operands[1]) or i.refuse()
    given = i.value(i.operands[3], 's32') if len(i.operands) > 3 else '16'
    return f'simt::cp_async_16_zfill({to}, ptx::pointer({i.value(source[1], "u64")}), {given});'


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


def label(name):
    return name.replace('$', 'L')


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
    'selp': select, 'setp': compare, 'cvt': convert, 'mov': move, 'cvta': to_generic,
    'ld': load, 'st': store, 'atom': atomic, 'red': atomic, 'bar': barrier, 'barrier': barrier,
    'membar': lambda i: '__threadfence();', 'fence': lambda i: '__threadfence();',
    'shfl': shuffle, 'vote': vote, 'match': match_lanes, 'redux': reduce, 'cp': copy_async, 'ldmatrix': load_matrix,
    'mma': matrix_product, 'call': call, 'bra': branch, 'ret': lambda i: 'return;', 'exit': lambda i: 'return;',
    'trap': lambda i: '__trap();',
}


class Function:
    """A kernel, or a function that one calls: its parameters, shared and local arrays, registers, and the statements that it
    becomes."""

    def __init__(self, number, name, results, parameters, body, module):
        self.number, self.name, self.module = number, name, module
        names = r'\.param\s[^,]*?(\w+)(?:\[\d+\])?\s*(?:,|$)'
        self.parameters, self.results = (re.findall(names, text.strip(), re.S) for text in (parameters, results))
        self.registers, self.shared, self.locals, self.arguments = {}, {}, {}, set()
        self.shared_bytes, self.dynamic_alignment, self.approximate, self.floats = 0, 1, set(), set()
        self.lines, self.declarations = [], []
        statements = list(split_statements(body))
        for statement in statements:  # arrays first: an instruction may stand before its scope's declaration
            self.declare_array(statement)
        for name, alignment in module.dynamic:
            self.dynamic_alignment = max(self.dynamic_alignment, alignment)
            self.shared[name] = -(-self.shared_bytes // alignment) * alignment
        for statement in statements:
            self.translate(statement)

    def declare_array(self, statement):
        if match := re.fullmatch(r'\.param\s+(?:\.align\s+\d+\s+)?\.\w+\s+(\w+)(?:\[\d+\])?', statement):
            self.arguments.add(match[1])  # of a call
            self.declarations.append(f'alignas(16) char {match[1]}[64];')
            return
        match = re.fullmatch(r'\.(shared|local)\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)(?:\[(\d+)\])?', statement)
        if not match:
            return
        alignment, size = int(match[2] or 1), BYTES[match[3]] * int(match[5] or 1)
        if match[1] == 'shared':
            at = -(-self.shared_bytes // alignment) * alignment
            self.shared[match[4]], self.shared_bytes = at, at + size
        else:
            name = f'local_{len(self.locals)}'
            self.locals[match[4]] = name
            self.declarations.append(f'alignas({max(alignment, 16)}) char {name}[{size}];')

    def address_of(self, symbol):
        if symbol in self.shared:
            return str(self.shared[symbol])
        if symbol in self.locals:
            return f'reinterpret_cast<uint64_t>({self.locals[symbol]})'
        if symbol in self.module.constants:
            return f'reinterpret_cast<uint64_t>({self.module.constants[symbol]})'
        if symbol in self.parameters:
            return f'reinterpret_cast<uint64_t>(parameter[{self.parameters.index(symbol)}])'
        return None

    def parameter(self, operand):
        """The array that a parameter's bytes are in, and the offset in it, of [name + offset]."""
        match = re.fullmatch(r'\[(\w+?)(?:\+(\d+))?\]', operand)
        if match and match[1] in self.parameters:
            return f'parameter[{self.parameters.index(match[1])}]', int(match[2] or 0)
        if match and match[1] in self.results:
            return f'result[{self.results.index(match[1])}]', int(match[2] or 0)
        return (match[1], int(match[2] or 0)) if match and match[1] in self.arguments else None

    def declare_registers(self, statement):
        type, names = re.fullmatch(r'\.reg\s+\.(\w+)\s+(.*)', statement).groups()
        declared = []
        for name in split(names):
            numbered = re.fullmatch(r'(%?\w+)<(\d+)>', name)
            declared += [f'{numbered[1]}{n}' for n in range(int(numbered[2]))] if numbered else [name]
        for name in declared:
            unique = f'{name.lstrip("%")}_{type}'
            if name not in self.registers or self.registers[name] != unique:
                self.registers[name] = unique
                self.declarations.append(f'[[maybe_unused]] {TYPES[type]} {unique}{{}};')

    def translate(self, statement):
        if statement.endswith(':'):
            self.lines.append(f'{label(statement[:-1])}:;')
        elif statement.startswith('.reg'):
            self.declare_registers(statement)
        elif statement and not statement.startswith('.'):
            self.lines.append(Instruction(statement, self).statement())

    def body(self):
        return '\n'.join([*dict.fromkeys(self.declarations), *self.lines, '}', ''])

    def kernel_text(self):
        return (f'// {self.name}\nvoid kernel_{self.number}([[maybe_unused]] const void* const* parameter) {{\n'
                '[[maybe_unused]] char* const shared = static_cast<char*>(simt::dynamic_shared());\n' + self.body() +
                f'const ptx::Kernel registered_{self.number}("{self.name}", kernel_{self.number}, {self.shared_bytes}, '
                f'{self.dynamic_alignment}, "{" ".join(sorted(self.approximate))}");\n')

    def head(self):
        return (f'void {self.name}([[maybe_unused]] const void* const* parameter, [[maybe_unused]] void* const* result, '
                '[[maybe_unused]] char* shared)')


def split_statements(body):
    """Statements of a body, without their semicolons; labels end in a colon. Scopes are dissolved: nvcc and our asm give
    every register of a file a name and type of its own."""
    statement = ''
    position = 0
    while position < len(body):
        letter = body[position]
        if letter == '{' and statement.strip():  # a vector of operands
            end = body.index('}', position)
            statement += body[position:end + 1]
            position = end
        elif letter in '{}':
            pass
        elif letter == ';':
            yield ' '.join(statement.split())
            statement = ''
        elif letter == ':' and body[position + 1] != ':' and body[position - 1] != ':' and re.fullmatch(r'\s*[$\w]+', statement):
            yield statement.strip() + ':'
            statement = ''
        else:
            statement += letter
        position += 1


class Module:
    """A PTX file."""

    def __init__(self, text):
        text = re.sub(r'//[^\n]*', '', text)
        self.dynamic = [(name, int(alignment)) for alignment, name in
                        re.findall(r'\.extern\s+\.shared\s+\.align\s+(\d+)\s+\.\w+\s+(\w+)\[\]', text)]
        self.constants, self.constant_text = {}, []
        for match in re.finditer(r'^\.?(?:visible\s+)?\.(?:global|const)\s+\.align\s+(\d+)\s+\.(\w+)\s+(\w+)(?:\[\d*\])?\s*=\s*(\{[^}]*\}|[^;]+);',
                                 text, re.M):
            name = f'constant_{len(self.constants)}'
            self.constants[match[3]] = name
            values = match[4] if match[4].startswith('{') else '{' + match[4] + '}'
            self.constant_text.append(f'alignas({match[1]}) {TYPES[match[2]]} {name}[] = {values};')
        self.kernels, self.callees = [], {}
        head = r'\.func\s+(?:\(([^)]*)\)\s*)?(\w+)\s*\(([^)]*)\)[^{;]*'
        for match in re.finditer(head, text):
            self.callees[match[2]] = None
        for match in re.finditer(head + r'\{', text):
            self.callees[match[2]] = Function(0, match[2], match[1] or '', match[3], self.body_at(text, match.end()), self)
        for match in re.finditer(r'\.entry\s+(\w+)\s*\((.*?)\)([^{]*)\{', text, re.S):
            self.kernels.append(Function(len(self.kernels), match[1], '', match[2], self.body_at(text, match.end()), self))

    @staticmethod
    def body_at(text, start):
        end, depth = start, 1
        while depth:
            depth += {'{': 1, '}': -1}.get(text[end], 0)
            end += 1
        return text[start:end - 1]

    def text(self, source):
        head = [f'// Made by scripts/ptx_to_cpp.py from {source}.', '#include "tests/simt/ptx/machine.h"', '', 'namespace {', '']
        callees = [f for f in self.callees.values() if f]
        return '\n'.join(head + self.constant_text + [f'{f.head()};' for f in callees] +
                         [f'{f.head()} {{\n{f.body()}' for f in callees] + [k.kernel_text() for k in self.kernels] +
                         ['}  // namespace', ''])


if __name__ == '__main__':
    source, target = sys.argv[1:]
    try:
        output = Module(open(source).read()).text(source)
    except Unknown as unknown:
        sys.exit(f'{source}: no translation of "{unknown}"')
    open(target, 'w').write(output)
