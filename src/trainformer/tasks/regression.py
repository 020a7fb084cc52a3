"""A number for a text: a rating, a price, a strength."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trainformer.core.arrays import Array
from trainformer.core.roles import Answer, Decision, Task
from trainformer.core.rows import Example
from trainformer.data.encode import LongText, require_texts
from trainformer.data.numbers import Scaled, number
from trainformer.losses.regression import huber, squared_error
from trainformer.metrics.decide import number_answers, numbers
from trainformer.metrics.number import Number

if TYPE_CHECKING:  # who only answers has no PyTorch
    from torch import Tensor

    from trainformer.core.batch import Batch


class Regression(LongText, Scaled, Task):
    """A number for a text; learnt in deviations from the mean, answered and scored on the scale of the targets."""

    best: ClassVar[str] = "r2"
    higher_is_better: ClassVar[bool] = True

    def parse(self, texts: tuple[str, ...], label: Any, row: int, weight: float) -> Example:
        """The label is a finite number or text that is one, or ... for a row without (prediction)."""
        return Example(require_texts(texts, 1), None if label is ... else number(label), row, weight)

    def observe(self, example: Example) -> None:
        self._observe_number(example.target)

    def settle(self) -> None:
        self._fix_scale()

    def targets(self, example: Example) -> Array:
        """The number in deviations from the mean."""
        return np.array([] if example.target is None else [self._standard(example.target)], dtype=np.float32)

    def outputs(self) -> int:
        return 1

    def loss(self, output: Tensor, batch: Batch) -> Tensor:
        """Squared error or Huber's, in standard deviations of the targets."""
        return huber(output, batch.target, self.huber_delta) if self.huber_delta else squared_error(output, batch.target)

    def divergence(self, one: Tensor, other: Tensor) -> Tensor:
        return squared_error(one, other)

    def answer(self, output: Tensor, decision: Decision) -> list[Answer]:
        return number_answers(numbers(output, *self.scale))

    def metric(self, decision: Decision | None = None) -> Number:
        return Number(*self.scale)
