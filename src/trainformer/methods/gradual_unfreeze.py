"""Gradual unfreezing: the head first, then layer after layer from the top (Howard and Ruder 2018, arXiv:1801.06146)."""

from typing import ClassVar

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.roles import Facts, Grad, Method, Model


class GradualUnfreeze(Method):
    """Train the head first, and let the layers join one by one from the top, the embeddings last.

    Inputs: the blocks of the body. Gives: the same model; at first no backward pass goes below the head, at the end it goes
    through all.

    When: the head starts at random (`train.probe=false`), and few rows could tear good layers apart.
    Cost: less than full training while layers wait.
    With: `llrd`, and every method; what another method freezes stays frozen.
    See: Howard and Ruder 2018, arXiv:1801.06146, who let one join an epoch.
    """

    clashes: ClassVar[dict[str, str]] = {"adalora": "it would cut ranks of layers that have not begun to learn"}

    until: float = Field(0.5, gt=0, le=1)
    """Share of the steps, 0..1, at the end of which all layers train; they join at equal distances."""

    _waits: list[tuple[nn.Parameter, int]] = PrivateAttr(default_factory=list)
    _step: int = PrivateAttr(0)

    def prepare(self, model: Model, facts: Facts) -> None:
        """Settles at which step each trained parameter joins; one that several blocks share joins with the highest."""
        blocks = model.body.blocks()
        begin = {id(p): len(blocks) - i for i, block in enumerate(blocks) for p in block.parameters()}
        each = self.until * facts.steps / (len(blocks) + 1)
        body = [p for p in model.body.parameters() if p.requires_grad]
        self._waits = [(p, int(begin[id(p)] * each)) for p in body if id(p) in begin]
        self._step = 0

    def wrap_grad(self, grad: Grad, model: Model) -> Grad:
        def some(batches: list[Batch]) -> Tensor:
            waiting = [p for p, begin in self._waits if begin > self._step]
            trained = [p.requires_grad for p in waiting]
            try:
                for parameter in waiting:
                    parameter.requires_grad_(False)
                return grad(batches)
            finally:
                for parameter, before in zip(waiting, trained, strict=True):
                    parameter.requires_grad_(before)

        return some

    def after_step(self, model: Model, step: int) -> None:
        self._step = step

    def state(self) -> dict[str, Tensor]:
        """The steps done: they tell which layers have joined."""
        return {"step": torch.tensor(self._step)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._step = int(state["step"])
