"""Group DRO: learn for the worst group (Sagawa et al. 2020, arXiv:1911.08731)."""

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Loss, Method, Model
from trainformer.metrics.decide import OneOf


class GroupDro(Method):
    """Learn for the worst group of rows: a group whose loss is higher has a weight that grows faster.

    Inputs: one loss "U" for each row of the whole step, and the group of each. Gives: the mean over the step of `q[group] * mean
    loss of the group`, after `q *= exp(eta * mean loss)` and a division that makes their sum 1.

    When: no group of rows (a source, a dialect, a rare label) may be left behind; the mean score may fall for it.
    Cost: a second forward pass where a step is cut into micro-batches.
    With: weight decay and early stopping, without which a large model fits every group.
    See: Sagawa et al. 2020, arXiv:1911.08731, algorithm 1.
    """

    column: str | None = None
    """Column of the training rows that names the group of each; none: the labels are the groups."""
    eta: float = Field(0.01, gt=0, le=10)
    """How fast weights move towards the worst group."""

    _groups: Tensor | None = PrivateAttr(None)
    _names: list[str] = PrivateAttr(default_factory=list)
    _weights: Tensor = PrivateAttr(default_factory=lambda: torch.ones(0))
    _next: Tensor | None = PrivateAttr(None)

    def couples(self) -> bool:
        return True

    def prepare(self, model: Model, facts: Facts) -> None:
        """Raises UserError for an unknown column, for one group alone, and without a column for a task without single labels."""
        if self.column is None:
            rule = getattr(facts.task, "rule", None)
            if not isinstance(rule, OneOf):
                what = "the task has no labels that could be groups."
                raise UserError(what, where="method.group_dro.column", fix="Name a column: --set method.group_dro.column=NAME")
            self._names = rule.labels
        elif self._groups is None:
            values = [str(value) for value in facts.column(self.column)]
            self._names = sorted(set(values))
            self._groups = torch.tensor([self._names.index(value) for value in values])
        if len(self._names) < 2:
            what = f"all training rows are of one group: '{self._names[0]}'."
            raise UserError(what, where="method.group_dro.column", fix="Name another column.")
        self._weights, self._next = torch.full((len(self._names),), 1 / len(self._names)), None

    def wrap_loss(self, loss: Loss) -> Loss:
        def worst(model: nn.Module, batch: Batch) -> Tensor:
            value = loss(model, batch)
            group = self._group(batch)
            counts = torch.bincount(group, minlength=len(self._names)).clamp_min(1)
            means = torch.zeros(len(self._names), device=value.device).index_add(0, group, value.detach().float()) / counts
            grown = self._weights.to(value.device) * (self.eta * means).exp()
            grown = grown / grown.sum()
            if self._next is None and torch.is_grad_enabled():
                self._next = grown.cpu()
            return value * (grown / counts)[group] * len(value)

        return worst

    def _group(self, batch: Batch) -> Tensor:
        """The group of each unit: "U"."""
        if self._groups is None:
            return batch.target
        sizes = torch.tensor(batch.units).diff()
        return self._groups[batch.rows].repeat_interleave(sizes).to(batch.weight.device)

    def after_step(self, model: Model, step: int) -> None:
        """The weights of the step's first loss are kept: another method may have taken it more than once."""
        self._weights, self._next = self._weights if self._next is None else self._next, None

    def state(self) -> dict[str, Tensor]:
        """The weight of each group."""
        return {"weights": self._weights.clone()}

    def restore(self, state: dict[str, Tensor]) -> None:
        self._weights = state["weights"].clone()
