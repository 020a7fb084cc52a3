"""Greedy soup: the mean of the best checkpoints that is best on validation (Wortsman et al. 2022, arXiv:2203.05482)."""

from collections.abc import Callable

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Method, Model

Weights = dict[str, Tensor]


class Soup(Method):
    """Ship the mean of the best checkpoints: each, from the best down, is mixed in if validation does not get worse by it.

    Inputs: the weights to ship at each evaluation, and their score. Gives: the mean of those that were taken, never worse on
    validation than the best one alone.

    When: validation scores go up and down between evaluations.
    Cost: a float32 copy of the trained weights for each that is kept, in memory and in checkpoints, and at the end an evaluation
    each.
    With: every method; more evaluations (`train.evals_per_epoch`) give it more to choose from.
    See: Wortsman et al. 2022, arXiv:2203.05482, with checkpoints of one run as ingredients.
    """

    keep: int = Field(4, ge=2, le=50)
    """Checkpoints that are kept: the best ones."""

    _kept: list[tuple[float, Weights]] = PrivateAttr(default_factory=list)
    _names: list[str] = PrivateAttr(default_factory=list)

    def prepare(self, model: Model, facts: Facts) -> None:
        self._names, self._kept = [n for n, p in model.named_parameters() if p.requires_grad], []

    def scored(self, model: Model, score: float) -> None:
        """Of equal scores the earlier is the better, as for the epoch that ships."""
        if len(self._kept) == self.keep and score <= self._kept[-1][0]:
            return
        weights = {n: model.get_parameter(n).detach().float().cpu().clone() for n in self._names}
        self._kept = sorted([*self._kept, (score, weights)], key=lambda each: -each[0])[: self.keep]

    @torch.no_grad()
    def finish(self, model: Model, score: Callable[[], float]) -> None:
        taken: list[Weights] = []
        best = -torch.inf
        for _, weights in self._kept:
            _put(model, _mean([*taken, weights]))
            found = score()
            if found >= best:
                taken, best = [*taken, weights], found
        if taken:
            _put(model, _mean(taken))

    def state(self) -> dict[str, Tensor]:
        """Scores, best first, and the weights of each."""
        scores = torch.tensor([score for score, _ in self._kept], dtype=torch.float64)
        return {"scores": scores} | {f"{i}.{n}": v.clone() for i, (_, w) in enumerate(self._kept) for n, v in w.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """After `prepare`. Raises UserError if the weights are of another model."""
        scores = state["scores"].tolist()
        strange = {f"{i}.{n}" for i in range(len(scores)) for n in self._names} ^ (state.keys() - {"scores"})
        if strange:
            what = f"the saved weights and this run are not of one model: '{min(strange)}' is in one only."
            raise UserError(what, where="soup", fix="Resume with the settings of the first run, or start anew.")
        self._kept = [(s, {n: state[f"{i}.{n}"].clone() for n in self._names}) for i, s in enumerate(scores)]


def _mean(weights: list[Weights]) -> Weights:
    return {name: torch.stack([w[name] for w in weights]).mean(0) for name in weights[0]}


def _put(model: Model, weights: Weights) -> None:
    for name, value in weights.items():
        model.get_parameter(name).copy_(value)
