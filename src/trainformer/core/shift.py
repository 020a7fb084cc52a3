"""Adds to the token embeddings what a batch says: noise and moves are data, so a pass that is run again sees them too."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch, Packed


@contextmanager
def shifting(body: Any, batch: Batch) -> Iterator[None]:
    """Inside, the body's embedding gives its rows with the shifts of the batch added, part after part."""
    if all(part.shift is None for part in batch.parts):
        yield
        return
    parts = cycle(batch.parts)
    table: nn.Embedding = body.embed()
    handle = table.register_forward_hook(lambda module, inputs, output: _add(output, next(parts)))
    try:
        yield
    finally:
        handle.remove()


def _add(output: Tensor, part: Packed) -> Tensor:
    if part.shift is None:
        return output
    more = output.numel() // output.shape[-1] - len(part.shift)
    if more == 0 or output.shape[0] == 1:  # packed; a body may have filled up the number of tokens
        return output + nn.functional.pad(part.shift, (0, 0, 0, more)).view_as(output)
    places = torch.arange(output.shape[1], device=output.device)
    real = places < torch.tensor(part.lengths, device=output.device)[:, None]
    return output + torch.zeros_like(output).masked_scatter(real[:, :, None].expand_as(output), part.shift.to(output.dtype))
