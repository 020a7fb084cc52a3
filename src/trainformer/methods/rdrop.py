"""R-Drop: two passes with different dropout must agree (Liang et al. 2021, arXiv:2106.14448)."""

from typing import Any, ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Loss, Method, Model, Task


class Rdrop(Method):
    """Two passes with different dropout must agree: their divergence is added to the mean of their losses.

    Inputs: any loss "U" that runs the model. Gives: `(one + other) / 2 + alpha * divergence`, "U", in nats.

    When: few rows, and a model with dropout.
    Cost: two passes a step.
    With: every method; it needs dropout, without which the divergence is 0.
    See: Liang et al. 2021, arXiv:2106.14448; it adds the two losses, here their mean keeps the scale of one.
    """

    shards: ClassVar[bool] = True
    passes: ClassVar[int] = 2

    alpha: float = Field(1.0, ge=0, le=100)
    """Weight of the divergence, 0 or more: half of the paper's alpha, since the losses are averaged; it uses 0.1 to 1 on GLUE."""

    _task: Task | None = PrivateAttr(None)

    def prepare(self, model: Model, facts: Facts) -> None:
        self._task = facts.task

    def wrap_loss(self, loss: Loss) -> Loss:
        def both(model: nn.Module, batch: Batch) -> Tensor:
            one, one_seen = _watched(loss, model, batch)
            other, other_seen = _watched(loss, model, batch)
            return (one + other) / 2 + self.alpha * self._divergence(one_seen, other_seen)

        return both

    def _divergence(self, one: list[Tensor], other: list[Tensor]) -> Tensor:
        """Mean over the runs of the model, of which the loss inside may need several."""
        assert self._task is not None, "prepare comes before the first step"
        assert one and len(one) == len(other), "the loss inside must run the model, both times equally often"
        apart = [self._task.divergence(a, b) for a, b in zip(one, other, strict=True)]
        return torch.stack(apart).mean(0)


def _watched(loss: Loss, model: nn.Module, batch: Batch) -> tuple[Tensor, list[Tensor]]:
    """A loss and what the model gave meanwhile. A hook, not a wrapper: the losses inside see the model's own names."""
    seen: list[Tensor] = []
    graded = torch.is_grad_enabled()

    def note(module: nn.Module, inputs: Any, output: Tensor) -> None:
        # A loss inside may also run the model without gradients, to look only: nothing is learnt from that.
        if torch.is_grad_enabled() == graded:
            seen.append(output.float())

    handle = model.register_forward_hook(note)
    try:
        return loss(model, batch), seen
    finally:
        handle.remove()
