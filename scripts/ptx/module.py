"""A PTX file: its constants, its functions, and the C++ of them all."""
import re

from ptx import arithmetic, memory, threads
from ptx.instruction import BYTES, TYPES, Instruction, label, split

TRANSLATIONS = {**arithmetic.TRANSLATIONS, **memory.TRANSLATIONS, **threads.TRANSLATIONS}


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
            self.lines.append(Instruction(statement, self).statement(TRANSLATIONS))

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
