#!/usr/bin/env python3
"""Translates the PTX that nvcc makes of a kernel file into C++ for the fibers of cuda/simt, one statement an instruction,
branches as gotos, so that what nvcc really made runs on a machine without a GPU. tests/simt/ptx/machine.h defines the
instructions. An instruction that is not known here is refused with its text, never guessed.

usage: ptx_to_cpp.py IN.ptx OUT.cpp
"""
import sys

from ptx.instruction import Unknown
from ptx.module import Module

if __name__ == '__main__':
    source, target = sys.argv[1:]
    try:
        output = Module(open(source).read()).text(source)
    except Unknown as unknown:
        sys.exit(f'{source}: no translation of "{unknown}"')
    open(target, 'w').write(output)
