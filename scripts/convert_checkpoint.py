#!/usr/bin/env python3
"""Turns a PyTorch checkpoint (pytorch_model.bin) into model.safetensors beside it, for `longhand import`, and the pickled
vocabulary of a Transfo-XL checkpoint (vocab.bin or vocab.pkl) into vocab.txt, one word a line.

    scripts/convert_checkpoint.py FOLDER|FILE [--output FILE]

Needs PyTorch (Debian: python3-torch) for pytorch_model.bin and nothing else. Only tensors are read from that, where the
installed PyTorch can do it (1.13 and later); an older one would run what a pickle asks for: convert only files that you
trust. Of a vocabulary only words and numbers are read."""
import argparse
import collections
import json
import os
import pathlib
import pickle
import struct
import sys
import zipfile

try:
    import torch
except ImportError:  # a vocabulary can do without
    torch = None

TYPES = torch and {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
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


class Ignored:
    """Stands for every object of a pickle that is no plain value, so that none of its code runs."""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, _):
        pass


class PlainValues(pickle.Unpickler):
    CONTAINERS = {("collections", "OrderedDict"): collections.OrderedDict, ("collections", "Counter"): collections.Counter}

    def find_class(self, module, name):
        return self.CONTAINERS.get((module, name), Ignored)

    def persistent_load(self, _):
        return None


def read_words(path):
    """The tokenizer's words by id: a pickled dictionary, written by pickle or by torch.save in either of its formats."""
    with open(path, "rb") as file:
        if zipfile.is_zipfile(file):
            archive = zipfile.ZipFile(file)
            file = archive.open(next(name for name in archive.namelist() if name.endswith("data.pkl")))
        else:
            file.seek(0)
        for _ in range(4):  # torch.save's older format has a number, a version and the system's sizes before it
            state = PlainValues(file).load()
            if isinstance(state, dict) and "idx2sym" in state:
                return state["idx2sym"]
    sys.exit(f"convert_checkpoint: {path}: no words in it (idx2sym)")


def convert_words(path):
    try:
        words = read_words(path)
    except (pickle.UnpicklingError, EOFError, StopIteration, AttributeError, zipfile.BadZipFile) as error:
        sys.exit(f"convert_checkpoint: {path}: not a pickled vocabulary ({error})")
    output = path.parent / "vocab.txt"
    for index, word in enumerate(words):
        if not isinstance(word, str) or len(word.split()) != 1 or word != word.strip():
            sys.exit(f"convert_checkpoint: {path}: entry {index} is not one word")
    part = pathlib.Path(f"{output}.part")
    part.write_text("".join(word + "\n" for word in words), encoding="utf-8", newline="\n")
    os.replace(part, output)
    print(f"{output}: {len(words)} words")


def convert_state(source, output):
    if torch is None:
        sys.exit(f"convert_checkpoint: {source} needs PyTorch (Debian: apt-get install python3-torch)")
    state = read_state(source)
    write_safetensors(output, state)
    print(f"{output}: {len(state)} tensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source", type=pathlib.Path, help="pytorch_model.bin, or the folder that holds it")
    parser.add_argument("--output", type=pathlib.Path, help="default: model.safetensors beside it")
    arguments = parser.parse_args()
    folder = arguments.source if arguments.source.is_dir() else arguments.source.parent
    source = folder / "pytorch_model.bin" if arguments.source.is_dir() else arguments.source
    words = next((folder / name for name in ("vocab.bin", "vocab.pkl") if (folder / name).exists()), None)
    if source.exists():
        convert_state(source, arguments.output or folder / "model.safetensors")
    elif words is None or not arguments.source.is_dir():
        sys.exit(f"convert_checkpoint: {source}: no such file")
    if words:
        convert_words(words)


if __name__ == "__main__":
    main()
