"""Tensors as a safetensors file, written piece by piece from memory: no second copy of them, and every write can be seen.

The format: https://github.com/huggingface/safetensors (the library reads what this writes).
"""

import json
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainformer.core.files import write_bytes

NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """A file that `safetensors` reads, on the disk when this ends. Raises OSError; KeyError for a type without a name."""
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))  # so that each lies aligned
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_bytes(path, [struct.pack("<Q", len(text)) + text, *(_memory(t) for _, t in ordered if t.numel())])


def _memory(tensor: Tensor) -> memoryview:
    """The bytes of a tensor; a contiguous one on the CPU is not copied."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
