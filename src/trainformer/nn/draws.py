"""The same draws again: dropout that is to be equal in two passes starts from one state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

State = tuple[torch.device, Tensor, Tensor | None]


def drawn(device: torch.device) -> State:
    """Where the draws of the CPU, and of a GPU, stand now."""
    return device, torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


@contextmanager
def again(state: State) -> Iterator[None]:
    """Inside, draws begin where they stood at a state; outside they go on as if nothing had been drawn."""
    device, cpu, gpu = state
    now = drawn(device)
    try:
        _set(device, cpu, gpu)
        yield
    finally:
        _set(*now)


def _set(device: torch.device, cpu: Tensor, gpu: Tensor | None) -> None:
    torch.set_rng_state(cpu)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu, device)
