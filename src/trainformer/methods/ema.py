"""EMA: evaluate and ship an exponential moving average of the weights (Tarvainen and Valpola 2017, arXiv:1703.01780)."""

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Method, Model


class Ema(Method):
    """Evaluate and ship a moving average of the weights, which is steadier than the last ones.

    Inputs: the trained weights after each step t = 1, 2, ... Gives: `average += (1 - d) * (weights - average)` with
    `d = min(decay, (1 + t) / (10 + t))`, so that the start is soon forgotten. Cost: a float32 copy of the trained
    weights, a second one while evaluating. Goes well with: every method. See: Tarvainen and Valpola 2017, arXiv:1703.01780.
    """

    decay: float = Field(0.999, gt=0, lt=1)
    """Share of the average that a step keeps, 0..1, once warm-up is over; 0.999 remembers about 1,000 steps."""

    _average: dict[str, Tensor] = PrivateAttr(default_factory=dict)
    _training: dict[str, Tensor] = PrivateAttr(default_factory=dict)
    _steps: int = PrivateAttr(0)

    def prepare(self, model: Model, facts: Facts) -> None:
        """Starts the average at the weights that will be trained."""
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._average = {n: p.detach().float().clone() for n, p in trained.items()}
        self._training, self._steps = {}, 0

    @torch.no_grad()
    def after_step(self, model: Model, step: int) -> None:
        assert not self._training, "the weights of training must be swapped back before the next step"
        self._steps += 1
        decay = min(self.decay, (1 + self._steps) / (10 + self._steps))
        for name, average in self._average.items():
            average.lerp_(model.get_parameter(name).float(), 1 - decay)

    @torch.no_grad()
    def swap(self, model: Model) -> None:
        """The weights of training are kept, not recomputed: swapping back gives the same bits."""
        coming = self._training or self._average
        leaving = {} if self._training else {n: model.get_parameter(n).detach().clone() for n in self._average}
        for name, value in coming.items():
            model.get_parameter(name).copy_(value)
        self._training = leaving

    def state(self) -> dict[str, Tensor]:
        """The averages by the names of their weights, and the steps seen. Called while the weights are those of training."""
        assert not self._training, "swap back before saving"
        averages = {f"average.{name}": value for name, value in self._average.items()}
        return {**averages, "steps": torch.tensor(self._steps)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """After `prepare`. Raises UserError if the averages are of other weights."""
        saved = {name.removeprefix("average."): value for name, value in state.items() if name != "steps"}
        strange = sorted(set(saved) ^ set(self._average))
        if strange:
            what = f"the saved average and this run do not train the same weights: '{strange[0]}' is in one only."
            raise UserError(what, where="ema", fix="Resume with the settings of the first run, or start anew.")
        for name, value in saved.items():
            self._average[name].copy_(value)
        self._steps = int(state["steps"])
