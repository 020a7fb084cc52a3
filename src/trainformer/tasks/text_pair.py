"""Two texts read together: their relation as a label, or their likeness as a number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from trainformer.core.arrays import Array
from trainformer.core.roles import Answer, Decision, Task
from trainformer.core.rows import Example
from trainformer.data.encode import LongText, require_texts
from trainformer.data.labels import Labelled, balanced_weights, label_text
from trainformer.data.numbers import Scaled, number
from trainformer.losses.classification import cross_entropy, symmetric_kl
from trainformer.losses.regression import huber, squared_error
from trainformer.metrics.decide import OneOf, number_answers, numbers
from trainformer.metrics.number import Number
from trainformer.metrics.one_label import OneLabel

if TYPE_CHECKING:  # who only answers has no PyTorch
    from torch import Tensor

    from trainformer.core.batch import Batch
    from trainformer.core.protocols import Metric


class TextPair(LongText, Labelled, Scaled, Task):
    """A label or a number for two texts: paraphrase, entailment, answer to a question, likeness."""

    higher_is_better: ClassVar[bool] = True
    pair: ClassVar[bool] = True
    for_numbers: ClassVar[str] = "--set task.kind=similarity"

    kind: Literal["classification", "similarity"] = "classification"
    """classification: a label; similarity: a number, answered within the range of the training targets."""

    @property
    def best(self) -> str:  # type: ignore[override]
        """The score that chooses the best epoch: it depends on the kind."""
        return "accuracy" if self.labelled else "r2"

    @property
    def labelled(self) -> bool:
        return self.kind == "classification"

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """The label is any JSON scalar (similarity: a finite number), or ... for a row without one (prediction)."""
        target: Any = None
        if label is not ...:
            target = label_text(label) if self.labelled else number(label)
        if self.labelled and target is not None:
            self._check([target])
        return Example(require_texts(texts, 2), target, row, weight)

    def observe(self, example: Example) -> None:
        if self.labelled:
            self._count([example.target])
        else:
            self._observe_number(example.target)

    def settle(self) -> None:
        if self.labelled:
            self._fix()
        else:
            self._fix_scale()

    def targets(self, example: Example) -> Array:
        """The place of the label among the outputs, or the number in deviations from the mean."""
        return np.array(self._target(example.target), dtype=np.int64 if self.labelled else np.float32)

    def _target(self, target: Any) -> list[float]:
        if target is None:
            return []
        return [self.index(target)] if self.labelled else [self._standard(target)]

    def outputs(self) -> int:
        return len(self.known) if self.labelled else 1

    @property
    def rule(self) -> OneOf | None:
        """What the outputs mean; a number has no rule."""
        return OneOf(self.known) if self.labelled else None

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        if not self.labelled:
            return huber(output, batch.target, self.huber_delta) if self.huber_delta else squared_error(output, batch.target)
        weights = self._weights(balanced_weights(self.class_counts or []), output.device)
        return cross_entropy(output, batch.target, weights, self.label_smoothing, self.focal_gamma)

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        return symmetric_kl(one, other) if self.labelled else squared_error(one, other)

    def answer(self, output: Tensor, decision: Decision) -> list[Answer]:
        rule = self.rule
        if rule is None:
            return number_answers(numbers(output, *self.scale, self.least, self.most))
        return rule.answers(output, decision)

    def metric(self, decision: Decision | None = None) -> Metric:
        return OneLabel(self.known, decision) if self.labelled else Number(*self.scale, self.least, self.most)
