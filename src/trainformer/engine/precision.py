"""Which numbers the matrix products use: bfloat16 where it was measured to be faster here, not where a name says so."""

import time
from functools import cache

import torch


def device_of(wanted: str) -> torch.device:
    """`auto` is a GPU if there is one."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


def half(wanted: str, device: torch.device) -> bool:
    """Whether to compute in bfloat16."""
    if wanted == "auto":
        return torch.cuda.is_bf16_supported() if device.type == "cuda" else gain() > 1.2
    return wanted == "bfloat16"


@cache
def gain() -> float:
    """How many times faster this CPU multiplies in bfloat16 than in float32: the best of some tries, once a process."""
    seconds = {}
    for kind in (torch.float32, torch.bfloat16):
        a, b = torch.ones(512, 768, dtype=kind), torch.ones(768, 768, dtype=kind)
        seconds[kind] = min(_timed(a, b) for _ in range(8))
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _timed(a: torch.Tensor, b: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.mm(a, b)
    return time.perf_counter() - start
