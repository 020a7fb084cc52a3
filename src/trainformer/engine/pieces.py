"""What the loop calls: the gradient of a step, and the log."""

import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainformer.core.batch import Batch
from trainformer.core.files import write_text
from trainformer.core.roles import Grad, Loss, Method, Model, Task
from trainformer.data.plan import seed_of

Numbers = Callable[[], AbstractContextManager[Any]]
"""Opens a context in which matrix products use the chosen numbers."""


def base_loss(task: Task) -> Loss:
    """The task's own loss, one value "U" for each unit."""

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        return task.loss(model(batch).float(), batch)

    return loss


def base_grad(model: Model, loss: Loss, numbers: Numbers, seed: Callable[[], int]) -> Grad:
    """The innermost gradient: units of the whole step are counted first, losses weighed, summed and divided once.

    So the result does not depend on how the step was cut into micro-batches.
    """

    def grad(batches: list[Batch]) -> Tensor:
        units = sum(len(b.weight) for b in batches)
        device = next(model.parameters()).device
        total = torch.zeros((), device=device)
        for number, batch in enumerate(batches):
            moved = batch.to(device)
            torch.manual_seed(seed_of(seed(), "micro", number))
            with numbers():
                share = (loss(model, moved) * moved.weight).sum() / units
            share.backward()
            total += share.detach()
        return total

    return grad


def wrapped(model: Model, task: Task, methods: list[Method], numbers: Numbers, seed: Callable[[], int]) -> Grad:
    """The gradient function with every method around it; the last in the configuration is outermost."""
    loss = base_loss(task)
    for method in methods:
        loss = method.wrap_loss(loss)
    grad = base_grad(model, loss, numbers, seed)
    for method in methods:
        grad = method.wrap_grad(grad, model)
    return grad


class Log:
    """`log.jsonl`: a line a step, a line an evaluation. A loss that is no number stands as the text "nan" or "inf"."""

    def __init__(self, path: Path, step: int, scored: Sequence[int]):
        """Going on after `step`, evaluated at `scored`, drops what a run that was broken off wrote later."""
        self._known = {(s, True) for s in scored} | {(s, False) for s in range(1, step + 1)}
        lines = path.read_bytes().splitlines() if path.exists() else []
        write_text(path, "".join(f"{line.decode()}\n" for line in lines if self._is_known(line)))
        self._file = path.open("a", encoding="utf-8")

    def _is_known(self, line: bytes) -> bool:
        """Whether a line is of this run's past, and the first of its kind; one that was cut while it was written is not."""
        try:
            values = json.loads(line)
            place = (values["step"], "validation" in values)
        except (ValueError, KeyError, TypeError):
            return False
        known = place in self._known
        self._known.discard(place)
        return known

    def write(self, **values: Any) -> None:
        """One line, at once."""
        plain = {k: v if not isinstance(v, float) or math.isfinite(v) else str(v) for k, v in values.items()}
        self._file.write(json.dumps(plain, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Waits until the lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
