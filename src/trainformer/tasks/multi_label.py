"""Any number of labels for a text: tags, several topics at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from trainformer.core.arrays import Array
from trainformer.core.errors import UserError
from trainformer.core.roles import Answer, Decision, Task
from trainformer.core.rows import Example
from trainformer.data.encode import LongText, require_texts
from trainformer.data.labels import Labelled, label_text
from trainformer.losses.binary import binary_cross_entropy, symmetric_kl
from trainformer.metrics.decide import AnyOf
from trainformer.metrics.many_labels import ManyLabels

if TYPE_CHECKING:  # who only answers has no PyTorch
    from torch import Tensor

    from trainformer.core.batch import Batch


class MultiLabel(LongText, Labelled, Task):
    """Any number of labels for a text, each said or not for itself."""

    best: ClassVar[str] = "f1_micro"
    higher_is_better: ClassVar[bool] = True

    separator: str | None = Field(None, min_length=1)
    """What stands between labels that are written in one string; none: labels come as lists."""

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """The label is a list, empty where none is true, or a string with a separator; ... for a row without (prediction)."""
        target = None if label is ... else self._split(label)
        self._check(target or [])
        return Example(require_texts(texts, 1), target, row, weight)

    def _split(self, label: Any) -> list[str]:
        """The labels of a row, each once, in the order given."""
        if isinstance(label, str) and self.separator is not None:
            label = [word for word in map(str.strip, label.split(self.separator)) if word]
        if isinstance(label, list | tuple):
            return list(dict.fromkeys(map(label_text, label)))
        hint = " For several labels in one string: --set task.separator=';'." if isinstance(label, str) else ""
        shown = "null" if label is None else repr(label)
        raise UserError(f"the labels are {shown:.60}, not a list.", fix=f"Give a list, [] for none.{hint}")

    def observe(self, example: Example) -> None:
        self._count(example.target)

    def settle(self) -> None:
        self._fix()

    def targets(self, example: Example) -> Array:
        """1 for each label that is true, 0 for the others."""
        found = np.zeros(0 if example.target is None else len(self.known), dtype=np.float32)
        for label in example.target or []:
            found[self.index(label)] = 1.0
        return found

    def outputs(self) -> int:
        return len(self.known)

    @property
    def rule(self) -> AnyOf:
        """What the outputs mean."""
        return AnyOf(self.known)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """balanced: a label that is true weighs as much as its rows without it do for each row with it."""
        rows = self.training_rows or 0
        balanced = [(rows - count) / count if 0 < count < rows else 1.0 for count in self.class_counts or []]
        weights = self._weights(balanced, output.device)
        target = batch.target.view(-1, len(self.known))
        return binary_cross_entropy(output, target, weights, self.label_smoothing, self.focal_gamma)

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        return symmetric_kl(one, other)

    def answer(self, output: Tensor, decision: Decision) -> list[Answer]:
        return self.rule.answers(output, decision)

    def metric(self, decision: Decision | None = None) -> ManyLabels:
        return ManyLabels(self.known, decision)
