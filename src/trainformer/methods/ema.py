"""EMA: evaluate and ship an exponential moving average of the weights (Tarvainen and Valpola 2017, arXiv:1703.01780)."""

from typing import ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor

from trainformer.core.roles import Facts, Method, Model
from trainformer.nn.average import Average


class Ema(Method):
    """Evaluate and ship a moving average of the weights, which is steadier than the last ones.

    Inputs: the trained weights after each step t = 1, 2, ... Gives: `average += (1 - d) * (weights - average)` with `d =
    min(decay, (1 + t) / (10 + t))`, so that the start is soon forgotten.

    When: always, it is in the default recipe: it steadies short runs at a high rate, and noisy labels are followed less.
    Cost: a float32 copy of the trained weights, a second one while evaluating.
    With: every method.
    See: Tarvainen and Valpola 2017, arXiv:1703.01780.
    """

    shards: ClassVar[bool] = True

    decay: float = Field(0.999, gt=0, lt=1)
    """Share of the average that a step keeps, 0..1, once warm-up is over; 0.999 remembers about 1,000 steps."""

    _average: Average | None = PrivateAttr(None)
    _steps: int = PrivateAttr(0)

    def prepare(self, model: Model, facts: Facts) -> None:
        """Starts the average at the weights that will be trained."""
        self._average, self._steps = Average(model), 0

    @property
    def _kept(self) -> Average:
        assert self._average is not None, "prepare comes before the first step"
        return self._average

    def after_step(self, model: Model, step: int) -> None:
        self._steps += 1
        self._kept.towards(model, 1 - min(self.decay, (1 + self._steps) / (10 + self._steps)))

    def swap(self, model: Model) -> None:
        self._kept.swap(model)

    def state(self) -> dict[str, Tensor]:
        """The averages by the names of their weights, and the steps seen. Called while the weights are those of training."""
        return self._kept.state(self._steps)

    def restore(self, state: dict[str, Tensor]) -> None:
        """After `prepare`. Raises UserError if the averages are of other weights."""
        self._steps = self._kept.restore(state, "ema")
