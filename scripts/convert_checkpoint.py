#!/usr/bin/env python3
"""Turns a PyTorch checkpoint (pytorch_model.bin) into model.safetensors beside it, for `longhand import`.

    scripts/convert_checkpoint.py FOLDER|FILE [--output FILE]

Needs PyTorch (Debian: python3-torch) and nothing else. Only tensors are read from the file, where the installed PyTorch
can do that (1.13 and later); an older one would run what a pickle asks for: convert only files that you trust."""
import argparse
import json
import os
import pathlib
import struct
import sys

import torch

TYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
         torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}


def read_state(path):
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except TypeError:  # PyTorch before 1.13 does not know weights_only
        state = torch.load(path, map_location="cpu")
    state = state.get("state_dict", state)
    unknown = [name for name, value in state.items() if not torch.is_tensor(value) or value.dtype not in TYPES]
    if unknown:
        sys.exit(f"convert_checkpoint: {path}: not a plain state dict, {unknown[0]} is no tensor that safetensors holds")
    return state


def write_safetensors(path, state):
    """Wider types first, so that every tensor begins at a multiple of its type's size; header padded to 64 bytes."""
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    header, begin = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        end = begin + state[name].numel() * state[name].element_size()
        header[name] = {"dtype": TYPES[state[name].dtype], "shape": list(state[name].shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % 64)
    part = f"{path}.part"
    with open(part, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            tensor = state[name].detach().contiguous()
            # numpy knows no bfloat16: its bytes are those of the 16-bit integers in its place.
            tensor = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
            file.write(tensor.numpy().tobytes())
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=pathlib.Path, help="pytorch_model.bin, or the folder that holds it")
    parser.add_argument("--output", type=pathlib.Path, help="default: model.safetensors beside it")
    arguments = parser.parse_args()
    source = arguments.source / "pytorch_model.bin" if arguments.source.is_dir() else arguments.source
    if not source.exists():
        sys.exit(f"convert_checkpoint: {source}: no such file")
    output = arguments.output or source.parent / "model.safetensors"
    state = read_state(source)
    write_safetensors(output, state)
    print(f"{output}: {len(state)} tensors")


if __name__ == "__main__":
    main()
