"""Curriculum: easy rows first (Bengio et al. 2009; Platanios et al. 2019, arXiv:1903.09848)."""

import math
from typing import Any, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.errors import UserError
from trainformer.core.roles import Facts, Loss, Model
from trainformer.nn.stepped import Stepped


class Curriculum(Stepped):
    """Learn from easy rows first: the share of the rows that is read, the easiest, grows with the steps.

    Inputs: how hard each training row is. Gives: by length or by a column, rows out of the easiest share c of all, each row drawn
    for a step replaced by the one at c times its rank; by loss, the easiest share of each step alone has a weight, so that the
    plan does not hang on what was learnt (self-paced).

    When: rows differ much in how hard or how noisy they are, and a length, a column or the loss tells.
    Cost: none; by loss, a second forward pass where a step is cut into micro-batches.
    With: every method.
    See: Bengio et al. 2009 (ICML); Platanios et al. 2019, arXiv:1903.09848 (pacing); Kumar et al. 2010 (NeurIPS; self-paced).
    """

    by: Literal["length", "column", "loss"] = "length"
    """What makes a row hard: its tokens, a number in a column, or the model's own loss."""
    column: str | None = None
    """Column of the training rows with how hard each is, for `by: column`."""
    pace: Literal["linear", "root", "geometric", "step"] = "root"
    """How the share grows: in a line, its square in a line (root), by equal factors, or at once at the end."""
    start: float = Field(0.3, gt=0, le=1)
    """Share of the rows that is read at first, 0..1."""
    over: float = Field(0.5, gt=0, le=1)
    """Share of the steps after which all rows are read, 0..1."""

    _steps: int = PrivateAttr(1)
    _order: list[int] = PrivateAttr(default_factory=list)
    _rank: list[int] = PrivateAttr(default_factory=list)

    def couples(self) -> bool:
        return self.by == "loss"

    def prepare(self, model: Model, facts: Facts) -> None:
        """Raises UserError for a column that is missing, unknown, or not of numbers."""
        super().prepare(model, facts)
        self._steps = facts.steps
        if (self.by == "column") != (self.column is not None):
            fix = "Give both: --set method.curriculum.by=column --set method.curriculum.column=NAME"
            raise UserError("`by: column` and the name of a column go together.", where="method.curriculum.column", fix=fix)
        if self.by == "loss" or self._order:
            return
        hard = facts.lengths() if self.column is None else self._numbers(facts)
        order = torch.argsort(hard, stable=True)
        self._order, self._rank = order.tolist(), torch.argsort(order).tolist()

    def _numbers(self, facts: Facts) -> Tensor:
        assert self.column is not None, "rows have a length or a column"
        return torch.tensor([_number(value, self.column) for value in facts.column(self.column)], dtype=torch.float64)

    def share(self, step: int) -> float:
        """The share of the rows, the easiest, that a step reads, 0..1."""
        done = min(1.0, step / max(1.0, self.over * self._steps))
        grown = {
            "linear": self.start + (1 - self.start) * done,
            "root": math.sqrt(self.start**2 + (1 - self.start**2) * done),
            "geometric": self.start ** (1 - done),
            "step": self.start if done < 1 else 1.0,
        }
        return grown[self.pace]

    def pick(self, rows: list[int], step: int) -> list[int]:
        if self.by == "loss":
            return rows
        share = self.share(step)
        return [self._order[int(self._rank[row] * share)] for row in rows]

    def wrap_loss(self, loss: Loss) -> Loss:
        def paced(model: nn.Module, batch: Batch) -> Tensor:
            value = loss(model, batch)
            kept = math.ceil(self.share(self._step) * len(value))
            easy = value.detach().argsort(stable=True)[:kept]
            return value * torch.zeros_like(value).index_fill(0, easy, len(value) / kept)

        return paced if self.by == "loss" else loss


def _number(value: Any, column: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        what = f"'{column}' is {value!r:.40}, not a number."
        raise UserError(what, where="method.curriculum.column", fix="Name a column of numbers: small is easy, large is hard.")
    return number
