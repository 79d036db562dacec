"""Moves between registers, loads, stores, copies and atomic changes."""
import re

from ptx.instruction import BYTES, TYPES, elements


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


TRANSLATIONS = {
    'mov': move, 'cvta': to_generic, 'ld': load, 'st': store, 'atom': atomic, 'red': atomic, 'cp': copy_async,
}
