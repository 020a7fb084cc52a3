"""SAM: learn from the worst weights nearby, and so end where the loss is flat (Foret et al. 2021, arXiv:2010.01412)."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from pydantic import Field
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Grad, Method, Model
from trainformer.nn.gradients import add, take


class Sam(Method):
    """Learn from the gradient at the worst weights nearby, and so end where the loss is flat.

    Inputs: the gradient g of all trained weights w over the whole step. Gives: the gradient at `w + rho * g / ||g||`; the loss at
    w.

    When: few rows, or other texts in use than in training.
    Cost: two passes a step, a second copy of the weights.
    With: every method; with `ema` or `swa` it is flat in two ways.
    See: Foret et al. 2021, arXiv:2010.01412, and for language models Bahri et al. 2022, arXiv:2110.08529.
    """

    rho: float = Field(0.05, gt=0, le=10)
    """Length of the move of all trained weights together, in their units; 0.05 to 0.15 is usual."""

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        def sharp(batches: list[Batch]) -> Tensor:
            before = take(model)
            try:
                loss = grad(batches)
                with _moved(take(model), self.rho):
                    grad(batches)
                return loss
            finally:
                add(before)

        return sharp


@contextmanager
def _moved(gradients: list[tuple[nn.Parameter, Tensor]], rho: float) -> Iterator[None]:
    """Moves the weights uphill, and puts their very bits back. Without a direction nothing moves."""
    norm = torch.stack([g.float().norm() for _, g in gradients]).norm() if gradients else torch.tensor(0.0)
    if not 0 < float(norm) < math.inf:
        yield
        return
    bits = [(p, p.detach().clone()) for p, _ in gradients]
    try:
        with torch.no_grad():
            for parameter, gradient in gradients:
                parameter.add_(gradient.to(parameter.dtype), alpha=rho / float(norm))
        gradients.clear()
        yield
    finally:
        with torch.no_grad():
            for parameter, value in bits:
                parameter.copy_(value)
