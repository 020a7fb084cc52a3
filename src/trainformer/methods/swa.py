"""SWA: evaluate and ship the mean of the weights of late steps (Izmailov et al. 2018, arXiv:1803.05407)."""

import math
from typing import ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor

from trainformer.core.roles import Facts, Method, Model
from trainformer.nn.average import Average


class Swa(Method):
    """Evaluate and ship the plain mean of the weights of late steps; until there are any, the weights themselves.

    Inputs: the trained weights after each `every`-th step of the last part of the run. Gives: their mean, `mean += (weights -
    mean) / n` for the n-th.

    When: long runs at a rate that stays up; in short ones `ema` follows sooner.
    Cost: a float32 copy of the trained weights, a second one while evaluating.
    With: every method but `ema`; a rate that stays up (`train.schedule: constant`) lets the weights wander, and the mean be
    better than each.
    See: Izmailov et al. 2018, arXiv:1803.05407.
    """

    clashes: ClassVar[dict[str, str]] = {"ema": "both evaluate and ship an average of the weights; choose one."}

    start: float = Field(0.75, ge=0, lt=1)
    """Share of the steps after which weights are averaged, 0..1."""
    every: int = Field(1, ge=1)
    """Steps from one set of weights that is averaged to the next."""

    _average: Average | None = PrivateAttr(None)
    _first: int = PrivateAttr(0)
    _steps: int = PrivateAttr(0)

    def prepare(self, model: Model, facts: Facts) -> None:
        self._average, self._steps = Average(model), 0
        self._first = math.floor(self.start * facts.steps)

    @property
    def _kept(self) -> Average:
        assert self._average is not None, "prepare comes before the first step"
        return self._average

    @property
    def _taken(self) -> int:
        """How many sets of weights are in the mean."""
        return max(0, self._steps - self._first) // self.every

    def after_step(self, model: Model, step: int) -> None:
        before, self._steps = self._taken, self._steps + 1
        if self._taken > before:
            self._kept.towards(model, 1 / self._taken)

    def swap(self, model: Model) -> None:
        if self._taken:
            self._kept.swap(model)

    def state(self) -> dict[str, Tensor]:
        """The means by the names of their weights, and the steps seen. Called while the weights are those of training."""
        return self._kept.state(self._steps)

    def restore(self, state: dict[str, Tensor]) -> None:
        """After `prepare`. Raises UserError if the means are of other weights."""
        self._steps = self._kept.restore(state, "swa")
