"""One label for a text: topic, sentiment, intent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trainformer.core.arrays import Array
from trainformer.core.roles import Answer, Decision, Task
from trainformer.core.rows import Example
from trainformer.data.encode import LongText, require_texts
from trainformer.data.labels import Labelled, balanced_weights, label_text
from trainformer.losses.classification import cross_entropy, symmetric_kl
from trainformer.metrics.decide import OneOf
from trainformer.metrics.one_label import OneLabel

if TYPE_CHECKING:  # who only answers has no PyTorch
    from torch import Tensor

    from trainformer.core.batch import Batch


class TextClassification(LongText, Labelled, Task):
    """One label for a text, out of those of the training rows."""

    best: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """The label is any JSON scalar, or ... for a row without one (prediction)."""
        target = None if label is ... else label_text(label)
        if target is not None:
            self._check([target])
        return Example(require_texts(texts, 1), target, row, weight)

    def observe(self, example: Example) -> None:
        self._count([example.target])

    def settle(self) -> None:
        self._fix()

    def targets(self, example: Example) -> Array:
        """The place of the label among the outputs."""
        return np.array([] if example.target is None else [self.index(example.target)], dtype=np.int64)

    def outputs(self) -> int:
        return len(self.known)

    @property
    def rule(self) -> OneOf:
        """What the outputs mean."""
        return OneOf(self.known)

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        weights = self._weights(balanced_weights(self.class_counts or []), output.device)
        return cross_entropy(output, batch.target, weights, self.label_smoothing, self.focal_gamma)

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        return symmetric_kl(one, other)

    def answer(self, output: Tensor, decision: Decision) -> list[Answer]:
        return self.rule.answers(output, decision)

    def metric(self, decision: Decision | None = None) -> OneLabel:
        return OneLabel(self.known, decision)
