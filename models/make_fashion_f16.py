#!/usr/bin/env python3
"""Rounds a float32 diffusers folder to float16, which halves it: how models/fashion was made from its original.

    python3 models/make_fashion_f16.py ORIGINAL models/fashion

Needs numpy. Every tensor of unet/ is rounded to nearest even; the JSON files are copied as they are. The output
depends on the input alone: tensors in the order of their names, no metadata but the format.
"""
import json
import pathlib
import shutil
import struct
import sys

import numpy as np

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
COPIED = ["model_index.json", "labels.json", "unet/config.json", "scheduler/scheduler_config.json"]


def read(path):
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        assert entry["dtype"] == "F32", f"{path}: {name} is {entry['dtype']}, not F32"
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(raw[8 + length + begin : 8 + length + end], "<f4").reshape(entry["shape"])
    return tensors


def write(path, tensors):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, x in tensors.items():
        header[name] = {"dtype": "F16", "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(x.tobytes() for x in tensors.values()))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = map(pathlib.Path, sys.argv[1:])
    halves = {name: x.astype("<f2") for name, x in sorted(read(source / WEIGHTS).items())}
    for name, x in halves.items():
        assert np.isfinite(x).all(), f"{name} has values beyond float16"
    for name in COPIED:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    write(target / WEIGHTS, halves)


main()
