"""Moves of token embeddings, row by row: a list with a tensor "T E" for each part of a batch.

All sizes are those of a whole row, and noise is drawn from (place, row), so how a step is cut into micro-batches changes nothing.
"""

import math

import torch
from torch import Tensor

from trainformer.core.batch import Batch, Packed, shifted
from trainformer.core.seeds import generator

Moves = list[Tensor]


def owners(part: Packed) -> Tensor:
    """The example of each token: "T"."""
    return torch.repeat_interleave(part.owner, torch.tensor(part.lengths, device=part.owner.device))


def noise(batch: Batch, width: int, normal: bool, *place: int | str) -> Moves:
    """For each token `width` numbers, standard normal or uniform in -1..1, drawn from the place in the run and the row."""
    drawn: list[list[Tensor]] = [[] for _ in batch.parts]
    for item in batch.examples:
        draw = generator(*place, item.row)
        for pieces, part in zip(drawn, item.parts, strict=True):
            shape = (sum(part.lengths), width)
            pieces.append(torch.randn(shape, generator=draw) if normal else 2 * torch.rand(shape, generator=draw) - 1)
    return [torch.cat(pieces).to(part.ids.device) for pieces, part in zip(drawn, batch.parts, strict=True)]


def tokens(batch: Batch) -> Tensor:
    """The number of tokens of each example: "B"."""
    counts = [torch.bincount(owners(part), minlength=len(batch)) for part in batch.parts]
    return torch.stack(counts).sum(0)


def norms(moves: Moves, batch: Batch, order: float = 2.0) -> Tensor:
    """The length of each example's move, "B": the root of the sum of squares, or the largest entry (order infinity)."""
    found = torch.zeros(len(batch), device=moves[0].device)
    for move, part in zip(moves, batch.parts, strict=True):
        own = move.float().abs().amax(1) if math.isinf(order) else move.float().pow(2).sum(1)
        found = found.scatter_reduce(0, owners(part), own, "amax" if math.isinf(order) else "sum")
    return found if math.isinf(order) else found.sqrt()


def times(moves: Moves, factors: Tensor, batch: Batch) -> Moves:
    """Each example's move times its factor of "B"."""
    return [move * factors[owners(part)][:, None] for move, part in zip(moves, batch.parts, strict=True)]


def of_length(moves: Moves, batch: Batch, length: float, order: float = 2.0) -> Moves:
    """Each example's move brought to a length; one that is zero or not finite becomes zero."""
    sizes = norms(moves, batch, order)
    usable = (sizes > 0) & sizes.isfinite()
    scaled = times(moves, torch.where(usable, length / sizes.where(usable, 1.0), 0.0), batch)
    return [torch.nan_to_num(move, nan=0.0, posinf=0.0, neginf=0.0) for move in scaled]


def within(moves: Moves, batch: Batch, radius: float, order: float = 2.0) -> Moves:
    """Moves that are longer than the radius, cut back to it: scaled or, for order infinity, entry by entry."""
    if math.isinf(order):
        return [move.clamp(-radius, radius) for move in moves]
    sizes = norms(moves, batch)
    return times(moves, (radius / sizes.clamp_min(1e-30)).clamp_max(1.0), batch)


def leaves(moves: Moves) -> Moves:
    """The same moves, ready to have gradients."""
    return [move.detach().requires_grad_(True) for move in moves]


def move(batch: Batch, moves: Moves) -> Batch:
    """The batch with moves added to those that it has already."""
    return shifted(batch, [m if p.shift is None else p.shift + m for m, p in zip(moves, batch.parts, strict=True)])


def uphill(moves: Moves) -> Moves:
    """The gradients of leaves; zero where the loss does not see them."""
    return [torch.zeros_like(m) if m.grad is None else m.grad for m in moves]
