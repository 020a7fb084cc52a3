"""Labels: what counts as one, their order, how often each stands in the training rows, and what each weighs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, field_validator

from trainformer.core.component import Component
from trainformer.core.errors import UserError, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MANY_LABELS, MANY_SHARE = 20, 0.3
"""More distinct numbers than this, and than this share of the rows, are a scale and not classes."""


class Labelled(Component):
    """Settings of what learns labels, and what it keeps of them: their names, order and counts."""

    labels: list[str] | None = None
    """The labels in the order of the model's outputs; none: those of the training rows, numbers by value, words by alphabet."""
    class_weights: Literal["none", "balanced"] | dict[str, Weight] = "none"
    """Weight of each label's loss: none, balanced (the rarer the heavier), or given by label (1 for those left out)."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of the target that is spread over all classes, 0..1."""
    focal_gamma: float = Field(0.0, ge=0, le=10)
    """Power of the focal loss, which heeds rows that are already right less; 0: plain cross-entropy, 2 is usual."""
    class_counts: list[int] | None = None
    """Training rows with each label; filled by training."""
    training_rows: int | None = None
    """Training rows in all; filled by training."""

    for_numbers: ClassVar[str] = "--task regression"
    """What to use for numbers on a scale."""

    _seen: Counter[str] = PrivateAttr(default_factory=Counter)
    _rows: int = PrivateAttr(0)

    @field_validator("labels", mode="before")
    @classmethod
    def _labels_are_names(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        names = [label_text(v) for v in value]
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice or not names:
            raise UserError(f"the label '{twice[0]}' stands twice in it." if twice else "it is empty.")
        return names

    @property
    def known(self) -> list[str]:
        """The labels, once they are fixed."""
        assert self.labels is not None, "labels are fixed by settle()"
        return self.labels

    def index(self, label: str) -> int:
        """The place of a label among the outputs. Raises UserError with the nearest label for an unknown one."""
        try:
            return self.known.index(label)
        except ValueError:
            why = "was not seen in training" if self.class_counts else "is not among task.labels"
            raise UserError(f"the label '{label:.60}' {why}.", fix=nearest(label, self.known)) from None

    def _check(self, labels: Iterable[str]) -> None:
        """Refuses labels that are unknown, where the labels are fixed already."""
        if self.labels is not None:
            for label in labels:
                self.index(label)

    def _count(self, labels: Iterable[str]) -> None:
        """Sees the labels of one training row."""
        self._seen.update(labels)
        self._rows += 1

    def _fix(self) -> None:
        """After the last row: labels and counts. Raises UserError for a scale, a class with one row, unknown weights."""
        if self._rows == 0:
            raise UserError("there are no training rows to learn from.")
        self._refuse_scale()
        self._refuse_same()
        self._refuse_single()
        labels = self.labels if self.labels is not None else in_order(self._seen)
        if isinstance(self.class_weights, dict):
            for label in self.class_weights:
                if label not in labels:
                    raise UserError(f"no label '{label}' to weigh.", where="task.class_weights", fix=nearest(label, labels))
        self.labels = labels
        self.class_counts = [self._seen[label] for label in labels]
        self.training_rows = self._rows

    def _refuse_same(self) -> None:
        if all(count == self._rows for count in self._seen.values()):
            named = ", ".join(f"'{label:.60}'" for label in in_order(self._seen)[:5])
            what = f"all {self._rows} training rows have the label {named}" if named else "no training row has a label"
            raise UserError(f"{what}: there is nothing to tell apart.", fix="Name another column with --label, or add rows.")

    def _refuse_single(self) -> None:
        single = in_order(label for label, count in self._seen.items() if count == 1)
        if single:
            named = ", ".join(f"'{label:.60}'" for label in single[:5]) + (f" and {len(single) - 5} more" if single[5:] else "")
            words = "only one training row each" if single[1:] else "only one training row"
            hint = f" For numbers on a scale: {self.for_numbers}." if _numeric(single) else ""
            what = f"{named} {'have' if single[1:] else 'has'} {words}: nothing can be learnt from one."
            raise UserError(what, fix=f"Add rows, merge or remove the label.{hint}")

    def _refuse_scale(self) -> None:
        distinct = len(self._seen)
        if distinct <= MANY_LABELS or distinct <= MANY_SHARE * self._rows or not _numeric(self._seen):
            return
        if 2 * sum(not float(label).is_integer() for label in self._seen) > distinct:
            raise UserError(
                f"{distinct} different numbers in {self._rows} rows look like a scale and not like classes.",
                fix=f"Use {self.for_numbers}.",
            )

    def _weights(self, balanced: list[float], device: torch.device) -> Tensor | None:
        """The weight "C" of each label; None where all are 1."""
        if self.class_weights == "none":
            return None
        given = self.class_weights
        values = [given.get(label, 1.0) for label in self.known] if isinstance(given, dict) else balanced
        import torch

        return torch.tensor(values, device=device)


def label_text(label: Any) -> str:
    """A label as text: any JSON scalar, 3.0 as "3", true as "true". Raises UserError for null, blanks, NaN, lists."""
    if isinstance(label, bool):
        return json.dumps(label)
    if isinstance(label, int):
        return str(label)
    if isinstance(label, float):
        if not isfinite(label):
            raise UserError(f"the label is {label}.", fix="Give the row a label or remove it.")
        return str(int(label)) if label.is_integer() else repr(label)
    if isinstance(label, str) and label.strip():
        return label
    if isinstance(label, str) or label is None:
        raise UserError(f"the label is {'null' if label is None else 'empty'}.", fix="Give the row a label or remove it.")
    kind = "a list" if isinstance(label, list | tuple) else type(label).__name__
    fix = "Rows with several labels: --task multi_label." if kind == "a list" else ""
    raise UserError(f"the label is {kind} ({label!r:.60}), not a word or a number.", fix=fix)


def balanced_weights(counts: list[int]) -> list[float]:
    """rows / (classes * rows of the class): each class weighs the same in all, and the mean over rows is 1.

    A class without rows is not counted, and weighs 1.
    """
    classes = sum(count > 0 for count in counts)
    return [sum(counts) / (classes * count) if count else 1.0 for count in counts]


def in_order(labels: Iterable[str]) -> list[str]:
    """By value if all are numbers, else by alphabet."""
    names = list(labels)
    return sorted(names, key=lambda n: (float(n), n)) if _numeric(names) else sorted(names)


def _numeric(labels: Iterable[str]) -> bool:
    try:
        return all(isfinite(float(label)) for label in labels)
    except ValueError:
        return False
