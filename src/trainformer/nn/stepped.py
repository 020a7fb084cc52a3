"""A method that draws: it knows the seed and how many steps are done, and goes on from there."""

import torch
from pydantic import PrivateAttr
from torch import Tensor

from trainformer.core.roles import Facts, Method, Model


class Stepped(Method):
    """What is drawn in a step follows from the seed and the number of the step."""

    _seed: int = PrivateAttr(0)
    _step: int = PrivateAttr(0)

    def prepare(self, model: Model, facts: Facts) -> None:
        self._seed, self._step = facts.seed, 0

    def after_step(self, model: Model, step: int) -> None:
        self._step += 1

    def state(self) -> dict[str, Tensor]:
        """The number of steps done."""
        return {"step": torch.tensor(self._step)}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._step = int(state["step"])
