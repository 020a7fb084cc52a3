"""An average of weights that is evaluated and shipped in place of the weights in training."""

import torch
from torch import Tensor

from trainformer.core.errors import UserError
from trainformer.core.roles import Model


class Average:
    """A float32 copy of the trained weights by name, moved towards them; `shown` exchanges the two."""

    def __init__(self, model: Model):
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.values = {n: p.detach().float().clone() for n, p in trained.items()}
        self.training: dict[str, Tensor] = {}

    @torch.no_grad()
    def towards(self, model: Model, share: float) -> None:
        """`average += share * (weights - average)`."""
        assert not self.training, "the weights of training must be swapped back before the next step"
        for name, average in self.values.items():
            average.lerp_(model.get_parameter(name).float(), share)

    @torch.no_grad()
    def swap(self, model: Model) -> None:
        """The weights of training are kept, not recomputed: swapping back gives the same bits."""
        coming = self.training or self.values
        leaving = {} if self.training else {n: model.get_parameter(n).detach().clone() for n in self.values}
        for name, value in coming.items():
            model.get_parameter(name).copy_(value)
        self.training = leaving

    def state(self, steps: int) -> dict[str, Tensor]:
        """The averages by the names of their weights, and the steps seen. Called while the weights are those of training."""
        assert not self.training, "swap back before saving"
        return {**{f"average.{name}": value.clone() for name, value in self.values.items()}, "steps": torch.tensor(steps)}

    def restore(self, state: dict[str, Tensor], where: str) -> int:
        """The steps seen, once the averages are put back. Raises UserError if they are of other weights."""
        saved = {name.removeprefix("average."): value for name, value in state.items() if name != "steps"}
        strange = sorted(set(saved) ^ set(self.values))
        if strange:
            what = f"the saved average and this run do not train the same weights: '{strange[0]}' is in one only."
            raise UserError(what, where=where, fix="Resume with the settings of the first run, or start anew.")
        for name, value in saved.items():
            self.values[name].copy_(value)
        return int(state["steps"])
