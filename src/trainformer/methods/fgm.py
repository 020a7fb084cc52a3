"""FGM: also learn from embeddings moved the way that hurts most (Miyato et al. 2017, arXiv:1605.07725)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor

from trainformer.core.batch import Batch
from trainformer.core.roles import Grad, Method, Model
from trainformer.nn.gradients import add, take


class Fgm(Method):
    """Also learn from embeddings that are moved a small step the way that raises the loss most.

    Inputs: the gradient g of the token embeddings "V D" over the whole step. Gives: the gradients at the embeddings e and at `e +
    epsilon * g / ||g||`, added; the loss at e.

    When: few rows; the cheapest of the adversaries.
    Cost: two passes a step, a second copy of the gradients.
    With: every method; embeddings that `lora` freezes are moved all the same, and stay what they were.
    See: Miyato et al. 2017, arXiv:1605.07725; it takes the norm by sequence, here the step has one, so that micro-batches change
    nothing.
    """

    epsilon: float = Field(1.0, gt=0, le=100)
    """Length of the move of the whole embedding table, in the units of the embeddings."""

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        table = model.body.embed().weight

        def both(batches: list[Batch]) -> Tensor:
            kept, trained = take(model), table.requires_grad
            try:
                table.requires_grad_(True)
                loss = grad(batches)
                direction = table.grad if trained else _claim(table)
                kept += take(model)
                with _moved(table, direction, self.epsilon):
                    grad(batches)
                return loss
            finally:
                table.requires_grad_(trained)
                if not trained:
                    table.grad = None
                add(kept)

        return both


def _claim(table: Tensor) -> Tensor | None:
    """The gradient of a frozen table, which must not reach the optimiser."""
    found, table.grad = table.grad, None
    return found


@contextmanager
def _moved(table: Tensor, direction: Tensor | None, epsilon: float) -> Iterator[None]:
    """Moves the rows that have a gradient, and puts their very bits back. Without a direction nothing moves."""
    if direction is None or not 0 < float(direction.norm()) < math.inf:
        yield
        return
    rows = direction.abs().sum(1).nonzero().squeeze(1)
    bits = table.detach()[rows].clone()
    try:
        with torch.no_grad():
            table.index_add_(0, rows, (direction[rows] * (epsilon / direction.norm())).to(table.dtype))
        yield
    finally:
        with torch.no_grad():
            table.index_copy_(0, rows, bits)
