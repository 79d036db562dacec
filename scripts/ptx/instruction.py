"""One instruction of PTX: its parts, and how it reads and writes its operands in C++."""
import re

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


def label(name):
    return name.replace('$', 'L')


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

    def statement(self, translations):
        """The C++ of it; `translations` has a function for each name, and for `cc`, whatever leaves a carry."""
        translate = translations.get('cc' if 'cc' in self.modifiers else self.name) or self.refuse()
        statement = translate(self)
        if statement is None:
            self.refuse()
        if self.predicate:
            return f'if ({self.negated}{self.function.registers[self.predicate]}) {{ {statement} }}'
        return statement
