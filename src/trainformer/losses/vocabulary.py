"""One token out of a vocabulary: cross-entropy of a few rows at a time, so that no table of all probabilities is ever there."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

AT_ONCE, AT_ONCE_GPU = 2**19, 2**26
"""Scores that are looked at together: in float32 they fit into the caches of a core or two; a GPU wants more at a time."""


def token_cross_entropy(scores: Tensor, target: Tensor, smoothing: float = 0.0) -> Tensor:
    """Loss "U" in nats, in float32, of scores "U V" for the true tokens `target` "U"; scores may be in bfloat16.

    The same as `classification.cross_entropy`: -(1 - s) log p(target) - s mean(log p), s the smoothing (Szegedy et al. 2016,
    arXiv:1512.00567). Of each token the logarithm of the sum is kept, and its probabilities are computed again for the
    gradient, which comes in the numbers of the scores.
    """
    loss: Tensor = _TokenLoss.apply(scores, target, smoothing)
    return loss


class _TokenLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor, smoothing: float) -> Tensor:
        whole, loss = (scores.new_empty(len(scores), dtype=torch.float32) for _ in range(2))
        for rows, x in _pieces(scores):
            true = x.gather(-1, target[rows, None]).squeeze(-1)
            said = torch.lerp(true, x.mean(-1), smoothing) if smoothing else true
            top = x.amax(-1)
            torch.add(x.sub_(top[:, None]).exp_().sum(-1).log_(), top, out=whole[rows])
            torch.sub(whole[rows], said, out=loss[rows])
        ctx.save_for_backward(scores, target, whole)
        ctx.smoothing = smoothing
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        scores, target, whole = ctx.saved_tensors
        found, (grad,) = torch.empty_like(scores), grads
        for rows, x in _pieces(scores):
            p = x.sub_(whole[rows, None]).exp_()
            if ctx.smoothing:
                p -= ctx.smoothing / scores.shape[-1]
            p.scatter_add_(-1, target[rows, None], p.new_full((1, 1), ctx.smoothing - 1).expand(len(p), 1))
            found[rows] = p.mul_(grad[rows, None])
        return found, None, None


def _pieces(scores: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time, and their scores in float32, in memory that is used again for the next ones."""
    width = scores.shape[-1]
    step = max(1, (AT_ONCE if scores.device.type == "cpu" else AT_ONCE_GPU) // max(1, width))
    memory = scores.new_empty(min(step, len(scores)), width, dtype=torch.float32)
    for first in range(0, len(scores), step):
        rows = slice(first, min(first + step, len(scores)))
        yield rows, memory[: rows.stop - first].copy_(scores[rows])
