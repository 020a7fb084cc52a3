"""Which numbers the matrix products use: bfloat16 where it was measured to be faster here, not where a name says so."""

import time
from functools import cache

import torch

from trainformer.core.errors import UserError
from trainformer.nn.native.library import NoLibrary, load


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


def kernels(wanted: str, device: torch.device, half: bool) -> tuple[bool, list[str]]:
    """Whether to use the kernels in C, and what to say of it. Raises UserError where they are asked for and cannot be."""
    fits = device.type == "cpu" and half
    if wanted == "off" or (wanted == "auto" and not fits):
        return False, []
    if not fits:
        what = f"the kernels are for bfloat16 on a CPU; this run is in {'bfloat16' if half else 'float32'} on {device.type}."
        raise UserError(what, where="train.native", fix="Set it to auto, or train.precision=bfloat16 and train.device=cpu.")
    try:
        load()
    except NoLibrary as error:
        if wanted == "on":
            raise UserError(f"no kernels: {error}.", where="train.native", fix="Install gcc, or set it to auto.") from error
        return False, [f"kernels: none, {error}; plain PyTorch instead"]
    return True, ["kernels: compiled here for bfloat16 (--set train.native=off: plain PyTorch)"]


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
