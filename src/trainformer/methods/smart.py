"""SMART: answers that are smooth around each row (Jiang et al. 2020, arXiv:1911.03437)."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Loss, Model, Task
from trainformer.nn import shifts
from trainformer.nn.draws import again, drawn
from trainformer.nn.states import noted
from trainformer.nn.stepped import Stepped


class Smart(Stepped):
    """Ask that answers are smooth: the worst small change of any number in a row's embeddings must not change them.

    Inputs: embeddings "T E" of each row. Gives: `loss + alpha * divergence(answer, answer at the move)`, "U"; the move starts
    at normal noise and goes uphill by `rate * g / max |g|`, within -epsilon..epsilon. Both answers learn. Cost: `2 + steps`
    passes. Goes well with: every method. See: Jiang et al. 2020, arXiv:1911.03437, of which this is the first half (smoothness);
    the divergence is half of the paper's symmetric one, and noise larger than its 1e-5 is told from none in bfloat16.
    """

    passes: ClassVar[int] = 2

    alpha: float = Field(1.0, gt=0, le=100)
    """Weight of the divergence; the paper uses 1 to 5, of twice this divergence."""
    epsilon: float = Field(0.01, gt=0, le=10)
    """Largest change of a number of the embeddings."""
    rate: float = Field(0.01, gt=0, le=10)
    """Largest change of a number in a step uphill."""
    noise: float = Field(0.001, gt=0, le=10)
    """Standard deviation of the start."""
    steps: int = Field(1, ge=1, le=10)
    """Steps uphill."""

    _task: Task | None = PrivateAttr(None)
    _width: int = PrivateAttr(0)

    def prepare(self, model: Model, facts: Facts) -> None:
        super().prepare(model, facts)
        self._task, self._width = facts.task, model.body.embed().embedding_dim

    def wrap_loss(self, loss: Loss) -> Loss:
        def smooth(model: nn.Module, batch: Batch) -> Tensor:
            if not torch.is_grad_enabled():
                return loss(model, batch)
            state = drawn(batch.weight.device)
            with noted(model, before=False) as seen:
                value = loss(model, batch)
            answer = seen[0].float()

            def divergence(run: Callable[[Batch], Tensor], moves: shifts.Moves, first: Tensor) -> Tensor:
                assert self._task is not None, "prepare comes before the first step"
                with again(state):  # the same dropout as in the first answer: what differs is the move alone
                    return self._task.divergence(first, run(shifts.move(batch, moves)).float())

            start = shifts.noise(batch, self._width, True, self._seed, self._step, "smart")
            moves = [self.noise * move for move in start]
            for _ in range(self.steps):
                at = shifts.leaves(moves)
                # `forward` looks only: what is hooked to the model does not see it, and its graph is soon gone.
                apart = divergence(model.forward, at, answer.detach()).sum()
                gradient = list(torch.autograd.grad(apart, at, retain_graph=True))
                uphill = shifts.of_length(gradient, batch, self.rate, math.inf)
                moves = shifts.within([m.detach() + u for m, u in zip(at, uphill, strict=True)], batch, self.epsilon, math.inf)
            return value + self.alpha * divergence(model, moves, answer)

        return smooth
