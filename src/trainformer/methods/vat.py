"""VAT: answers that do not change where the embeddings move most (Miyato et al. 2018, arXiv:1704.03976)."""

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


class Vat(Stepped):
    """Ask that answers stay as they are where a small move of the token embeddings changes them most.

    Inputs: embeddings "T E" of each row. Gives: `loss + alpha * divergence(answer, answer at epsilon * d)`, "U"; d of length 1 is
    what `iterations` of the power method find to change the answer most; the first answer is held fixed. Labels are not asked
    for.

    When: few rows; unlike the other adversaries it asks nothing of labels.
    Cost: `2 + iterations` passes.
    With: every method; few labels are what it is for.
    See: Miyato et al. 2018, arXiv:1704.03976; the divergence is the task's own, symmetric one.
    """

    passes: ClassVar[int] = 2

    alpha: float = Field(1.0, gt=0, le=100)
    """Weight of the divergence."""
    epsilon: float = Field(1.0, gt=0, le=100)
    """Length of the move of all embeddings of a row, in their units."""
    probe: float = Field(0.1, gt=0, le=10)
    """Length of the move by which the power method looks around."""
    iterations: int = Field(1, ge=1, le=10)
    """Iterations of the power method."""

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
            answer = seen[0].detach().float()

            def divergence(run: Callable[[Batch], Tensor], moves: shifts.Moves) -> Tensor:
                assert self._task is not None, "prepare comes before the first step"
                with again(state):  # the same dropout as in the first answer: what differs is the move alone
                    return self._task.divergence(answer, run(shifts.move(batch, moves)).float())

            direction = shifts.noise(batch, self._width, True, self._seed, self._step, "vat")
            for _ in range(self.iterations):
                at = shifts.leaves(shifts.of_length(direction, batch, self.probe))
                # `forward` looks only: what is hooked to the model does not see it, and its graph is soon gone.
                apart = divergence(model.forward, at).sum()
                direction = list(torch.autograd.grad(apart, at, retain_graph=True))
            return value + self.alpha * divergence(model, shifts.of_length(direction, batch, self.epsilon))

        return smooth
