"""A number: squared error and Huber's loss, one value per unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a task names its loss, and answers without PyTorch
    from torch import Tensor


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """(output - target)^2, "U", of outputs "U 1" or "U"."""
    return (output.float().view(-1) - target.float().view(-1)) ** 2


def huber(output: Tensor, target: Tensor, delta: float) -> Tensor:
    """Squared up to `delta`, linear beyond, "U": an outlier pulls no harder than `delta` (Huber 1964).

    It equals `squared_error` within delta, and meets it with the same slope there: delta * (2|e| - delta) beyond.
    """
    error = (output.float().view(-1) - target.float().view(-1)).abs()
    inside = error.clamp(max=delta)
    return inside * (2 * error - inside)
