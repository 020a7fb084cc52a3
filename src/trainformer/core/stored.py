"""Reads safetensors files into arrays: NumPy alone, and nothing is taken at its word.

The format: https://github.com/huggingface/safetensors. Where PyTorch is, weights are read by that library.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from trainformer.core.arrays import Array

TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}
SIZES = {name: np.dtype(kind).itemsize for name, kind in TYPES.items()}
SIZES |= {"BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "U32": 4, "U64": 8}
MOST_HEADER = 100_000_000
"""Bytes of a header, as the library limits them."""


def header(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, str], int]:
    """What a file says of its tensors, its metadata, and where its data begins. Raises ValueError for what is no such file."""
    size = path.stat().st_size
    with path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, MOST_HEADER):
            raise ValueError("its header does not fit into it")
        try:
            told = json.loads(f.read(length))
            metadata = told.pop("__metadata__", {})
            ends = [_end(each) for each in sorted(told.values(), key=lambda each: each["data_offsets"])]
        except (AttributeError, KeyError, TypeError, RecursionError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"its header cannot be read ({type(error).__name__})") from error
    if [0, *(end for _, end in ends)] != [*(begin for begin, _ in ends), size - 8 - length]:
        raise ValueError("its tensors do not fill it")
    return told, metadata, 8 + length


def _end(told: dict[str, Any]) -> tuple[int, int]:
    """Where the bytes of a tensor begin and end. Raises ValueError if they are not those of its shape."""
    begin, end = told["data_offsets"]
    if min([begin, *told["shape"]]) < 0 or end - begin != math.prod(told["shape"]) * SIZES[told["dtype"]]:
        raise ValueError("the size of a tensor is not that of its shape")
    return begin, end


def arrays(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """The tensors of a file by name, and its metadata. Raises ValueError for what is no such file; KeyError for bfloat16."""
    told, metadata, start = header(path)
    found = {}
    for name, each in told.items():
        count = math.prod(each["shape"])
        values = np.fromfile(path, TYPES[each["dtype"]], count, offset=start + each["data_offsets"][0])
        found[name] = values.reshape(each["shape"])
    return found, metadata
