"""Mixup: learn between the rows (Zhang et al. 2018, arXiv:1710.09412), on states (Verma et al. 2019, arXiv:1806.05236)."""

import random

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Loss, Model
from trainformer.core.seeds import generator, seed_of
from trainformer.nn.states import first_run, last_layer, noted
from trainformer.nn.stepped import Stepped


class Mixup(Stepped):
    """Mix the state of each example with that of another of the same step: answers between rows change in a line.

    Inputs: the states "B D" that the last layer reads, of the whole step. Gives: the loss of each row's own target at `s * state
    + (1 - s) * other`, s drawn from Beta(alpha + 1, alpha), which has the same mean as both targets' losses, weighed by s and 1 -
    s, with s from Beta(alpha, alpha).

    When: few rows, noisy labels, or scores that are too sure.
    Cost: a second forward pass where a step is cut into micro-batches.
    With: every method; what stands before it in the list sees mixed answers.
    See: Zhang et al. 2018, arXiv:1710.09412; Verma et al. 2019, arXiv:1806.05236 (states); Carratino et al. 2020,
    arXiv:2006.06049 (one target).
    """

    alpha: float = Field(0.2, gt=0, le=100)
    """How far rows are mixed: near 0 hardly, 1 evenly; 0.1 to 0.4 is usual."""

    _last: nn.Linear | None = PrivateAttr(None)

    def couples(self) -> bool:
        return True

    def prepare(self, model: Model, facts: Facts) -> None:
        """Raises UserError if the head has no layer to mix before."""
        super().prepare(model, facts)
        self._last = last_layer(model.head, "mixup")

    def wrap_loss(self, loss: Loss) -> Loss:
        return lambda model, batch: loss(_Mixed(model, self._last, *self._draw(batch)), batch)

    def _draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """The share "B 1" that each row keeps, and the row "B" that it is mixed with."""
        kept = [self._share(row) for row in batch.rows]
        partner = torch.randperm(len(batch), generator=generator(self._seed, self._step, "mixup"))
        return torch.tensor(kept, device=batch.weight.device)[:, None], partner.to(batch.weight.device)

    def _share(self, row: int) -> float:
        draw = random.Random(seed_of(self._seed, self._step, "mixup", row))
        return draw.betavariate(self.alpha + 1, self.alpha)


class _Mixed(nn.Module):
    """The model with the states of its last layer mixed."""

    def __init__(self, model: nn.Module, last: nn.Linear | None, share: Tensor, partner: Tensor):
        super().__init__()
        self._run, self._last, self._share, self._partner = model.__call__, [last], share, partner
        self.body, self.head = model.body, model.head

    def forward(self, batch: Batch) -> Tensor:
        last = self._last[0]
        assert last is not None, "prepare comes before the first step"
        with noted(last) as seen:
            self._run(batch)
        states = first_run(seen, batch)
        mixed = self._share * states + (1 - self._share) * states[self._partner]
        output: Tensor = last.forward(mixed)  # not called: what others have hooked to it sees each example once
        return output
