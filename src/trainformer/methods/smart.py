"""SMART: answers that are smooth around each row, and steps that stay near (Jiang et al. 2020, arXiv:1911.03437)."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn
from torch.func import functional_call

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Loss, Model, Task
from trainformer.nn import shifts
from trainformer.nn.average import Average
from trainformer.nn.draws import State, again, drawn
from trainformer.nn.states import noted
from trainformer.nn.stepped import Stepped

EARLY, EARLY_SHARE = 0.99, 0.1
"""In the first tenth of the steps the average keeps no more than this share (section 4.1 of the paper)."""


class Smart(Stepped):
    """Ask that answers are smooth: the worst small change of any number in a row's embeddings must not change them.

    Inputs: embeddings "T E" of each row. Gives: `loss + alpha * divergence(answer, answer at the move) + proximal *
    divergence(answer, answer of the averaged weights)`, "U"; the move starts at normal noise and goes uphill by `rate * g / max
    |g|`, within -epsilon..epsilon. The first two answers learn; the third is that of a running mean of the weights, with the same
    dropout, and keeps each step near those before (Bregman proximal point). The task's divergence is half of the paper's, and
    noise larger than its 1e-5 is told from none in bfloat16.

    When: few rows, or rows that are written in many ways; the strongest of the adversaries, and the dearest.
    Cost: `3 + steps` passes a step, of which one without gradients, and a float32 copy of the trained weights.
    With: every method but `prompt`.
    See: Jiang et al. 2020, arXiv:1911.03437.
    """

    passes: ClassVar[int] = 2
    alpha: float = Field(1.0, gt=0, le=100)
    """Weight of the divergence at the move; the paper uses 1 to 5, of twice this divergence."""
    epsilon: float = Field(0.01, gt=0, le=10)
    """Largest change of a number of the embeddings."""
    rate: float = Field(0.01, gt=0, le=10)
    """Largest change of a number in a step uphill."""
    noise: float = Field(0.001, gt=0, le=10)
    """Standard deviation of the start."""
    steps: int = Field(1, ge=1, le=10)
    """Steps uphill."""
    proximal: float = Field(1.0, ge=0, le=100)
    """Weight of the divergence from the answer of the averaged weights; the paper uses 1, of twice this divergence; 0: none."""
    momentum: float = Field(0.999, ge=0, lt=1)
    """Share of the averaged weights that a step keeps, 0..1; in the first tenth of the steps at most 0.99."""

    _task: Task | None = PrivateAttr(None)
    _width: int = PrivateAttr(0)
    _near: Average | None = PrivateAttr(None)
    _early: float = PrivateAttr(0.0)

    def prepare(self, model: Model, facts: Facts) -> None:
        super().prepare(model, facts)
        self._task, self._width = facts.task, model.body.embed().embedding_dim
        self._early = EARLY_SHARE * facts.steps
        self._near = Average(model) if self.proximal else None

    def wrap_loss(self, loss: Loss) -> Loss:
        def smooth(model: nn.Module, batch: Batch) -> Tensor:
            if not torch.is_grad_enabled():
                return loss(model, batch)
            state = drawn(batch.weight.device)
            with noted(model, before=False) as seen:
                value = loss(model, batch)
            answer = seen[0].float()
            moves = self._worst(model, batch, answer.detach(), state)
            value = value + self.alpha * self._apart(answer, model, shifts.move(batch, moves), state)
            return value + self.proximal * self._from_average(answer, model, batch, state) if self._near else value

        return smooth

    def _worst(self, model: nn.Module, batch: Batch, answer: Tensor, state: State) -> shifts.Moves:
        """The moves after some steps uphill from noise."""
        start = shifts.noise(batch, self._width, True, self._seed, self._step, "smart")
        moves = [self.noise * move for move in start]
        for _ in range(self.steps):
            at = shifts.leaves(moves)
            # `forward` looks only: what is hooked to the model does not see it, and its graph is soon gone.
            apart = self._apart(answer, model.forward, shifts.move(batch, at), state).sum()
            gradient = list(torch.autograd.grad(apart, at, retain_graph=True))
            uphill = shifts.of_length(gradient, batch, self.rate, math.inf)
            moves = shifts.within([m.detach() + u for m, u in zip(at, uphill, strict=True)], batch, self.epsilon, math.inf)
        return moves

    def _apart(self, answer: Tensor, run: Callable[[Batch], Tensor], batch: Batch, state: State) -> Tensor:
        """How far a run is from an answer, "U"; the same dropout as in the answer, so that it is not what differs."""
        assert self._task is not None, "prepare comes before the first step"
        with again(state):
            return self._task.divergence(answer, run(batch).float())

    def _from_average(self, answer: Tensor, model: nn.Module, batch: Batch, state: State) -> Tensor:
        """How far the answer is from that of the averaged weights, which does not learn."""
        assert self._near is not None, "proximal is more than 0"
        near = {name: value.to(model.get_parameter(name).dtype) for name, value in self._near.values.items()}
        run = torch.no_grad()(lambda rows: functional_call(model, near, (rows,)))
        return self._apart(answer, run, batch, state)

    def after_step(self, model: Model, step: int) -> None:
        if self._near is not None:
            self._near.towards(model, 1 - (min(self.momentum, EARLY) if self._step < self._early else self.momentum))
        super().after_step(model, step)

    def state(self) -> dict[str, Tensor]:
        """The number of steps done, and the averaged weights where there are any."""
        return super().state() if self._near is None else self._near.state(self._step)

    def restore(self, state: dict[str, Tensor]) -> None:
        """After `prepare`. Raises UserError if the average is of other weights."""
        if self._near is None:
            super().restore(state)
        else:
            self._step = self._near.restore(state, "smart")
