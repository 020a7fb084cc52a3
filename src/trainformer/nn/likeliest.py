"""The likeliest next tokens of each text that is written, among all of a vocabulary."""

import torch
from torch import Tensor

from trainformer.nn.native.library import able, call

PIECE = 64
"""Scores among which the highest is sought first."""


def likeliest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of each row of scores "N V" as log-likelihoods "N C", the highest first, and where they stand "N C".

    `scores` may be written over. By one kernel on a CPU that has kernels.
    """
    count = min(count, scores.shape[1])
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and able():
        best, place = scores.new_empty(len(scores), count), torch.empty(len(scores), count, dtype=torch.long)
        call("likeliest", scores.contiguous(), *scores.shape, count, best, place)
        return best, place
    best, place = highest(scores, count)
    return best - best[:, :1] - scores.sub_(best[:, :1]).exp_().sum(-1, keepdim=True).log_(), place


def highest(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of each row "N V" and where they stand: "N C", the highest first.

    They lie in those pieces of the row whose own highest are the highest: to find these is one quick pass on a CPU, and to sort
    out the rest takes a fraction of the row.
    """
    pieces = scores.shape[1] // PIECE
    if scores.device.type != "cpu" or pieces < 4 * count:
        top, place = scores.topk(count, -1)
        return top, place
    even, rest = scores[:, : pieces * PIECE].unflatten(1, (pieces, PIECE)), scores[:, pieces * PIECE :]
    best = even.amax(-1).topk(count, -1).indices
    few = even.gather(1, best[:, :, None].expand(-1, -1, PIECE)).flatten(1)
    places = (best[:, :, None] * PIECE + torch.arange(PIECE)).flatten(1)
    places = torch.cat([places, torch.arange(pieces * PIECE, scores.shape[1]).expand(len(scores), -1)], 1)
    top, place = torch.cat([few, rest], 1).topk(count, -1)
    return top, places.gather(1, place)
